// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for BLKDISCARD, which no library wraps.
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
