//! This module uses `unsafe` for system calls that no library wraps: locks of an open file
//! description, and BLKDISCARD.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IO(0x12, 119)`: {offset, length} in bytes, aligned to logical blocks.
const BLKDISCARD: libc::Ioctl = 0x1277;

/// Discards a range of a block device; its content is undefined afterwards. Blocks.
pub(crate) fn discard(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: the kernel reads two u64 from the array.
    if unsafe { libc::ioctl(fd.as_raw_fd(), BLKDISCARD, range.as_ptr()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn byte(kind: libc::c_int, at: i64) -> libc::flock {
    // SAFETY: `flock` is plain numbers; zero is a value of each.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).unwrap_or(i16::MAX);
    lock.l_whence = 0; // SEEK_SET
    lock.l_start = at;
    lock.l_len = 1;
    lock
}

/// Locks one byte of a file for reading, for its open file description.
pub(crate) fn lock_shared(fd: BorrowedFd<'_>, at: i64) -> io::Result<()> {
    let lock = byte(libc::F_RDLCK, at);
    // SAFETY: the kernel reads a `flock`.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether another open file description holds a lock on this byte.
pub(crate) fn is_locked(fd: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
    let mut lock = byte(libc::F_WRLCK, at);
    // SAFETY: the kernel reads and writes a `flock`.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } == 0 {
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    } else {
        Err(io::Error::last_os_error())
    }
}
