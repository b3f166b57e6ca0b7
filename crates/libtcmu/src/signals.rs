// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call libc's functions for signal masks.
//!
//! Threads of ours get none of the program's signals: its handlers expect its own threads.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

/// A thread's mask.
pub(crate) struct Mask(MaybeUninit<libc::sigset_t>);

/// Blocks all signals of this thread, and of those that it starts; returns the mask it had.
pub(crate) fn block_all() -> Mask {
    let mut old = MaybeUninit::zeroed();
    let mut all = MaybeUninit::uninit();
    // SAFETY: the places are valid; `sigfillset` fills the set.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    Mask(old)
}

/// Restores a mask.
pub(crate) fn restore(old: &Mask) {
    // SAFETY: zeroed, which is the empty set, or filled by the system.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.0.as_ptr(), ptr::null_mut()) };
}
