// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Signal handlers: there is no safe way to install one.
//! SIGTERM, SIGINT and SIGHUP end the session: the channel is shut, so that whatever waits for the
//! client goes on to clean up.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static ENDING: AtomicBool = AtomicBool::new(false);
static CHANNEL: AtomicI32 = AtomicI32::new(-1);

/// Whether the process has been told to end.
pub(crate) fn ending() -> bool {
    ENDING.load(Ordering::Relaxed)
}

extern "C" fn end(_signal: libc::c_int) {
    ENDING.store(true, Ordering::Relaxed);
    let fd = CHANNEL.load(Ordering::Relaxed);
    if fd >= 0 {
        // SAFETY: shutdown is async-signal-safe, and harmless on what is not a socket. It may set
        // errno, which no longer matters once `ENDING` is set.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
}

/// From now on these signals end what reads from this descriptor, which stays open until the process
/// ends. SIGPIPE is ignored: a client that hung up shows as an error.
pub(crate) fn install(channel: &impl AsFd) {
    CHANNEL.store(channel.as_fd().as_raw_fd(), Ordering::Relaxed);
    // SAFETY: an all-zero sigaction is valid (no flags: system calls are interrupted).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = end as extern "C" fn(libc::c_int) as usize;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: `action` is valid, its handler only does what is async-signal-safe.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
}
