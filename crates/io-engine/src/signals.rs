// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for signal masks and signalfd(2), which no library wraps.
//!
//! Signals as events: blocked, so that their usual effect does not occur, and read from a descriptor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// The descriptor that signals are read from. It never blocks.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks these signals in this thread and those that it starts from now on.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal; EMFILE and the like.
    pub fn block(signals: &[libc::c_int]) -> io::Result<Signals> {
        let set = signal_set(signals)?;
        set_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: the set is initialized; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal, if one has arrived.
    pub fn next(&self) -> Option<libc::c_int> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let n = rustix::io::read(&self.0, &mut info).ok()?;
        // Its first word is the signal's number.
        let number = info.first_chunk::<4>().filter(|_| n == info.len())?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Unblocks all signals: for programs that are started, which inherit the mask.
///
/// # Errors
/// None is known.
pub fn unblock_all() -> io::Result<()> {
    set_mask(libc::SIG_SETMASK, &signal_set(&[])?)
}

fn set_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialized; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn signal_set(signals: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    // SAFETY: `sigset_t` is plain numbers, and sigemptyset initializes it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes.
    unsafe { libc::sigemptyset(&mut set) };
    for &signal in signals {
        // SAFETY: `set` is initialized.
        if unsafe { libc::sigaddset(&mut set, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_from_the_descriptor_and_has_no_other_effect() {
        // A thread of its own: the mask stays with it.
        let work = || {
            let signals = Signals::block(&[libc::SIGUSR1]).unwrap();
            assert_eq!(signals.next(), None);
            // SAFETY: a signal to this thread, which has blocked it.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
            assert_eq!((signals.next(), signals.next()), (Some(libc::SIGUSR1), None));
            unblock_all().unwrap();
        };
        std::thread::spawn(work).join().unwrap();
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        assert_eq!(Signals::block(&[9999]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
