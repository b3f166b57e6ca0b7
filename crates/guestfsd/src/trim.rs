// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // An ioctl that rustix does not know.
//! FITRIM: a filesystem tells its disk which blocks are free.

use rustix::ioctl::{self, Updater, opcode};
use std::os::fd::AsFd;

/// `struct fstrim_range` (linux/fs.h).
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
    minlen: u64,
}

/// Trims extents of at least `minlen` bytes that are free from `start` on, over `len` bytes; returns the bytes.
pub(crate) fn free_extents(
    filesystem: impl AsFd,
    start: u64,
    len: u64,
    minlen: u64,
) -> rustix::io::Result<u64> {
    let mut range = Range { start, len, minlen };
    // SAFETY: FITRIM reads and writes one `struct fstrim_range`, as which `Range` is laid out.
    unsafe {
        let trim = Updater::<{ opcode::read_write::<Range>(b'X', 121) }, Range>::new(&mut range);
        ioctl::ioctl(filesystem, trim)?;
    }
    Ok(range.len)
}
