// SPDX-License-Identifier: Apache-2.0
//! Augeas: configuration files of the guest as a tree.
//!
//! libaugeas is C and reads what the guest has written, and it follows the guest's symbolic links by path. So
//! it works in a process of its own ([`helper`]): this program, started again, which loads the library,
//! enters the sysroot by `chroot` for the time of each request and leaves it again, so that nothing is busy
//! between calls. Lenses are this machine's: the working directory stays outside, and lenses are found from
//! there. A crash of the library, or a file that makes it ask for memory without end, ends that process
//! and makes one call fail.
//!
//! Requests and answers are XDR with a length before it, over a socket pair.

mod helper;
mod library;
pub(crate) mod messages;

use guest_error::{Context, Errno, Error, Result};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) use helper::main as helper;
use messages::{Answer, Operation, Request, receive};

/// The tree that a session has open, if it has.
#[derive(Debug, Default)]
pub(crate) struct State(Option<Process>);

/// The process that has the tree; dropped, it ends.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Unlike its number, this is never another process.
    pidfd: Option<OwnedFd>,
    stream: UnixStream,
}

impl Process {
    fn start() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().on("augeas")?;
        let child = Command::new("/proc/self/exe")
            .arg("--helper=augeas")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .on("augeas")?;
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { child, pidfd, stream: ours })
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Answer> {
        let message = request.encode()?;
        match self.stream.write_all(&message).and_then(|()| receive(&mut self.stream)) {
            Ok(Some(answer)) => Answer::decode(&answer),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e).on("augeas"),
            Ok(None) | Err(_) => {
                self.kill();
                let status = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
                let text =
                    format!("augeas failed ({status}), its tree is lost: call aug-init again");
                Err(Error::new(Errno::ECONNABORTED, text))
            }
        }
    }

    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            pidfd_send_signal(pidfd, Signal::KILL).ok();
        }
        self.stream.shutdown(std::net::Shutdown::Both).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.child.wait().ok();
    }
}

impl State {
    /// Opens a tree of what is below `root` of this sysroot, in place of the one that was open.
    pub(crate) fn open(&mut self, sysroot: &Path, root: &OsStr, flags: i32) -> Result<()> {
        self.close();
        let mut process = Process::start()?;
        let texts = [Some(root), Some(sysroot.as_os_str()), None];
        process.ask(&Request { operation: Operation::Open, texts, number: flags })?;
        self.0 = Some(process);
        Ok(())
    }

    /// Asks for something of the open tree; an error names the first of the texts.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> Result<Answer> {
        let Some(process) = &mut self.0 else {
            let message = "you must call 'aug-init' first to initialize Augeas";
            return Err(Error::new(Errno::EINVAL, message));
        };
        let answer = process.ask(request);
        if answer.as_ref().is_err_and(|e| e.errno() == Errno::ECONNABORTED) {
            self.0 = None;
        }
        match request.texts[0] {
            Some(text) if !text.is_empty() => answer.map_err(|e| e.within(text)),
            _ => answer,
        }
    }

    /// Closes the tree; returns whether one was open.
    pub(crate) fn close(&mut self) -> bool {
        self.0.take().is_some()
    }
}
