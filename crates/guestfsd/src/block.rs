// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Block devices are queried and changed by ioctls.
//! What the kernel knows of a block device, and what it can be told to do to one.
//!
//! Each function takes the device, open, and is one ioctl. Numbers are those of linux/fs.h.

use rustix::io::Result;
use rustix::ioctl::{Getter, IntegerSetter, NoArg, Opcode, Setter, ioctl, opcode};
use std::ffi::c_int;
use std::fs::File;
use std::io::{Seek, SeekFrom};

/// linux/fs.h's `_IO(0x12, number)`.
const fn op(number: u8) -> Opcode {
    opcode::none(0x12, number)
}

const BLKROSET: Opcode = op(93);
const BLKROGET: Opcode = op(94);
const BLKRRPART: Opcode = op(95);
const BLKFLSBUF: Opcode = op(97);
const BLKRASET: Opcode = op(98);
const BLKSSZGET: Opcode = op(104);
const BLKBSZGET: Opcode = opcode::read::<usize>(0x12, 112);
const BLKDISCARD: Opcode = op(119);
const BLKIOMIN: Opcode = op(120);
const BLKIOOPT: Opcode = op(121);
const BLKALIGNOFF: Opcode = op(122);
const BLKPBSZGET: Opcode = op(123);
const BLKDISCARDZEROES: Opcode = op(124);

/// An ioctl that returns an `int`.
fn get<const OP: Opcode>(device: &File) -> Result<c_int> {
    // SAFETY: each `OP` used below has the kernel write one int (BLKBSZGET too, whatever its number says).
    unsafe { ioctl(device, Getter::<OP, c_int>::new()) }
}

/// An ioctl without an argument.
fn tell<const OP: Opcode>(device: &File) -> Result<()> {
    // SAFETY: each `OP` used below takes no argument.
    unsafe { ioctl(device, NoArg::<OP>::new()) }
}

/// Size in bytes.
pub(crate) fn size(mut device: &File) -> std::io::Result<u64> {
    device.seek(SeekFrom::End(0))
}

/// Whether it is to be read only.
pub(crate) fn is_read_only(device: &File) -> Result<bool> {
    Ok(get::<BLKROGET>(device)? != 0)
}

/// Makes it read only, or writable again.
pub(crate) fn set_read_only(device: &File, read_only: bool) -> Result<()> {
    // SAFETY: BLKROSET reads one int.
    unsafe { ioctl(device, Setter::<BLKROSET, c_int>::new(c_int::from(read_only))) }
}

/// Size of a logical sector.
pub(crate) fn sector_size(device: &File) -> Result<c_int> {
    get::<BLKSSZGET>(device)
}

/// What input and output are to keep to, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Distance from its beginning to the first physical sector that begins with a logical one; negative where
    /// there is none.
    pub alignment_offset: c_int,
    /// Smallest input or output that is worthwhile.
    pub minimum_io: c_int,
    /// Best size of an input or output; 0 where there is none.
    pub optimal_io: c_int,
    /// Size of a physical sector.
    pub physical_sector: c_int,
    /// Size of a logical sector.
    pub logical_sector: c_int,
}

/// What input and output are to keep to.
pub(crate) fn limits(device: &File) -> Result<Limits> {
    Ok(Limits {
        alignment_offset: get::<BLKALIGNOFF>(device)?,
        minimum_io: get::<BLKIOMIN>(device)?,
        optimal_io: get::<BLKIOOPT>(device)?,
        physical_sector: get::<BLKPBSZGET>(device)?,
        logical_sector: get::<BLKSSZGET>(device)?,
    })
}

/// Size of the blocks that its page cache is made of.
pub(crate) fn block_size(device: &File) -> Result<c_int> {
    get::<BLKBSZGET>(device)
}

/// Sets how many sectors of 512 bytes it reads ahead.
pub(crate) fn set_readahead(device: &File, sectors: usize) -> Result<()> {
    // SAFETY: BLKRASET takes a number, no pointer.
    unsafe { ioctl(device, IntegerSetter::<BLKRASET>::new_usize(sectors)) }
}

/// Writes what is cached, and forgets it.
pub(crate) fn flush(device: &File) -> Result<()> {
    tell::<BLKFLSBUF>(device)
}

/// Reads its partition table again.
pub(crate) fn reread_partitions(device: &File) -> Result<()> {
    tell::<BLKRRPART>(device)
}

/// Gives `len` bytes from `offset` on back to what is below the device.
pub(crate) fn discard(device: &File, offset: u64, len: u64) -> Result<()> {
    // SAFETY: BLKDISCARD reads two 64-bit numbers.
    unsafe { ioctl(device, Setter::<BLKDISCARD, [u64; 2]>::new([offset, len])) }
}

/// Whether what was discarded reads as zeroes.
pub(crate) fn discard_zeroes(device: &File) -> Result<bool> {
    Ok(get::<BLKDISCARDZEROES>(device)? != 0)
}
