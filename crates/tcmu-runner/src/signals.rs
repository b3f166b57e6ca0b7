// SPDX-License-Identifier: Apache-2.0
//! What signals ask of the daemon. They are blocked in every thread and read by the main loop.
//! SIGPIPE is ignored by Rust's runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: flush, close, end.
    Stop,
    /// SIGHUP: reopen the log file, and try images again that were not there.
    Reopen,
}

/// Which signals are handled.
const TABLE: [(libc::c_int, Signal); 3] =
    [(libc::SIGTERM, Signal::Stop), (libc::SIGINT, Signal::Stop), (libc::SIGHUP, Signal::Reopen)];

/// The signals of [`Signal`], as they come.
#[derive(Debug)]
pub struct Signals(io_engine::Signals);

impl Signals {
    /// Blocks the signals in this thread and those that it starts from now on.
    pub fn new() -> io::Result<Signals> {
        io_engine::Signals::block(&TABLE.map(|(number, _)| number)).map(Signals)
    }

    /// The next signal, if one is pending.
    pub fn next(&self) -> Option<Signal> {
        let number = self.0.next()?;
        TABLE.iter().find(|(n, _)| *n == number).map(|&(_, signal)| signal)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
