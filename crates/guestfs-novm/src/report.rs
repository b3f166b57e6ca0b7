// SPDX-License-Identifier: Apache-2.0
//! Where errors go that no call can be answered with ([`crate::refusal`]): to standard error, which
//! libguestfs takes for the console of its appliance and throws away unless it is verbose; and so to the
//! client's own, too.

use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

static CLIENT: OnceLock<File> = OnceLock::new();

/// From here on the process that started this one hears of errors, if what it has for standard error
/// is to be had.
pub(crate) fn to_parent_too() {
    let Some(parent) = rustix::process::getppid() else { return };
    // The descriptor itself, so that both append to a file at the same position. If that is not allowed, the
    // file (not a socket) can be opened again.
    let own = pidfd_open(parent, PidfdFlags::empty())
        .and_then(|pidfd| pidfd_getfd(pidfd, 2, PidfdGetfdFlags::empty()));
    let again = || {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/{}/fd/2", parent.as_raw_nonzero());
        rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty())
    };
    if let Ok(file) = own.or_else(|_| again()) {
        CLIENT.set(file.into()).ok();
    }
}

/// What leads to the client's standard error, for a process that closes what it does not need.
pub(crate) fn client() -> Option<RawFd> {
    CLIENT.get().map(File::as_raw_fd)
}

/// Writes an error to the log.
pub(crate) fn to_log(error: &Error) {
    io::stderr().write_all(line(error).as_bytes()).ok();
}

/// Writes an error to the log and to the client's standard error.
pub(crate) fn report(error: &Error) {
    to_log(error);
    // Skipped if writing would block.
    let takes = |file: &&File| {
        let mut fds = [PollFd::new(*file, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n == 1)
    };
    if let Some(mut client) = CLIENT.get().filter(takes) {
        client.write_all(line(error).as_bytes()).ok();
    }
}

/// What is left of errors at the end of a session: the last one, while those before it are reported.
#[derive(Debug)]
pub(crate) struct Last(Result<()>);

impl Last {
    pub(crate) fn new() -> Self {
        Self(Ok(()))
    }

    /// Takes note of how one more step ended.
    pub(crate) fn add(&mut self, result: Result<()>) {
        if let Err(e) = result
            && let Err(earlier) = std::mem::replace(&mut self.0, Err(e))
        {
            report(&earlier);
        }
    }

    pub(crate) fn result(self) -> Result<()> {
        self.0
    }
}

fn line(error: &Error) -> String {
    format!("guestfs-novm: {error}\n")
}
