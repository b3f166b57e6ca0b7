// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Signal handlers: there is no safe way to install one.
//! SIGTERM, SIGINT and SIGHUP end the session: the channel is shut, so that whatever waits for the
//! client goes on to clean up, and work that takes long is interrupted.

use guest_fs::interrupt;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicI32, Ordering};

static CHANNEL: AtomicI32 = AtomicI32::new(-1);

extern "C" fn end(_signal: libc::c_int) {
    interrupt::request();
    let fd = CHANNEL.load(Ordering::Relaxed);
    if fd >= 0 {
        // SAFETY: shutdown is async-signal-safe, and harmless on what is not a socket. It may set
        // errno, which no longer matters once that is requested.
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
