// SPDX-License-Identifier: Apache-2.0
//! The processes of sessions, and how many there may be.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdout};

/// Most sessions at a time.
const MAX_SESSIONS: usize = 256;
/// Most clients at a time that have not proven who they are. When one more connects, the oldest of them is
/// disconnected, so that silent clients do not keep others out.
const MAX_UNPROVEN: usize = 32;

/// The sessions of a listener, oldest first.
#[derive(Default)]
pub(super) struct Sessions(VecDeque<Running>);

/// The first process of a session.
struct Running {
    child: Child,
    /// Readable when the process has ended.
    end: OwnedFd,
    /// Present until the client has proven who it is; becomes readable when it has, or has failed.
    proof: Option<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // When it ends, so do the processes that it started. A killed process ends at once.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Sessions {
    /// Waits until someone connects, or the process is told to end.
    pub(super) fn wait_for_client(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        while !guest_fs::interrupt::requested() {
            let mut fds = vec![PollFd::new(&listener, PollFlags::IN)];
            for running in &self.0 {
                fds.push(PollFd::from_borrowed_fd(running.end.as_fd(), PollFlags::IN));
                let proof = running.proof.iter();
                fds.extend(proof.map(|p| PollFd::from_borrowed_fd(p.as_fd(), PollFlags::IN)));
            }
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let connected = !fds[0].revents().is_empty();
            self.look();
            if connected {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes note of sessions that have ended, and of clients that have said who they are.
    fn look(&mut self) {
        self.0.retain_mut(|running| matches!(running.child.try_wait(), Ok(None)));
        for running in &mut self.0 {
            if running.proof.as_ref().is_some_and(is_readable) {
                running.proof = None;
            }
        }
    }

    /// Makes room for one more, which has to prove who it is or not. An error where there is none.
    pub(super) fn make_room(&mut self, has_to_prove: bool) -> io::Result<()> {
        let unproven = self.0.iter().filter(|r| r.proof.is_some()).count();
        if has_to_prove && unproven >= MAX_UNPROVEN {
            tracing::warn!(
                "{MAX_UNPROVEN} clients in TLS handshakes: the oldest one is hung up on"
            );
            if let Some(oldest) = self.0.iter().position(|r| r.proof.is_some()) {
                self.0.remove(oldest);
            }
        }
        match self.0.len() {
            0..MAX_SESSIONS => Ok(()),
            _ => Err(io::Error::other(format!("there are {MAX_SESSIONS} sessions already"))),
        }
    }

    /// Keeps the process of one more. Its standard output, if it is a pipe, says when the client has proven who it
    /// is.
    pub(super) fn add(&mut self, mut child: Child) -> io::Result<()> {
        let proof = child.stdout.take();
        let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        match end {
            Ok(end) => self.0.push_back(Running { child, end, proof }),
            Err(e) => {
                child.kill()?;
                child.wait()?;
                return Err(e.into());
            }
        }
        Ok(())
    }
}

fn is_readable(pipe: &ChildStdout) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
    let now = rustix::event::Timespec::default();
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
