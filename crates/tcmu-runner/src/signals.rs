// SPDX-License-Identifier: Apache-2.0
//! Signals as events: SIGTERM, SIGINT and SIGHUP are blocked in every thread and read by the main
//! loop from a signalfd. SIGPIPE is ignored by Rust's runtime.
#![allow(unsafe_code)] // signalfd and the signal mask have no safe wrapper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// The descriptor that signals are read from.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals in this thread and those that it starts from now on.
    pub fn new() -> io::Result<Signals> {
        // SAFETY: a `sigset_t` is plain data, and `sigemptyset` makes it valid.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid for writes.
        unsafe { libc::sigemptyset(&mut set) };
        for (number, _) in TABLE {
            // SAFETY: `set` is initialized and the numbers are signals.
            unsafe { libc::sigaddset(&mut set, number) };
        }
        // SAFETY: `set` is initialized; the old mask is not asked for.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is initialized; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal, if one is pending.
    pub fn next(&self) -> Option<Signal> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.0, &mut info).ok()?;
        let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        TABLE.iter().find(|(n, _)| n.cast_unsigned() == number).map(|&(_, signal)| signal)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
