// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for fcntl(2) with the F_OFD commands, which no library wraps.
//!
//! Locks on single bytes of a file. They belong to the open file description: duplicates of a
//! descriptor share them, another open(2) of the same file does not, and they end with it, also
//! when the process is killed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A lock of this kind on `len` bytes from `start` on; a `len` of 0 means all of them.
fn lock(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    // SAFETY: `flock` is plain numbers; zero is a value of each.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // The constants are 0 to 2; the field's type differs between platforms.
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let kind = kind as libc::c_short;
    lock.l_type = kind;
    lock.l_whence = 0; // SEEK_SET
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn set(fd: BorrowedFd<'_>, lock: &libc::flock) -> io::Result<()> {
    // SAFETY: the kernel reads a `flock`.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes a shared lock on the byte at `at`. The file has to be open for reading.
///
/// # Errors
/// EAGAIN or EACCES when another open file description has an exclusive lock on it; EINVAL, ENOLCK
/// or EOPNOTSUPP from file systems without locks.
pub fn lock_shared(fd: BorrowedFd<'_>, at: i64) -> io::Result<()> {
    set(fd, &lock(libc::F_RDLCK, at, 1))
}

/// Ends the lock on the byte at `at`, if there is one.
pub fn unlock(fd: BorrowedFd<'_>, at: i64) -> io::Result<()> {
    set(fd, &lock(libc::F_UNLCK, at, 1))
}

/// Ends all locks of this open file description on the file.
pub(crate) fn unlock_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, &lock(libc::F_UNLCK, 0, 0))
}

/// Whether another open file description has a lock on the byte at `at`.
pub fn is_locked(fd: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
    let mut found = lock(libc::F_WRLCK, at, 1);
    // SAFETY: the kernel reads and writes a `flock`.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut found) } {
        0 => Ok(libc::c_int::from(found.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}
