// SPDX-License-Identifier: Apache-2.0
//! What an inode has besides its mode: flags and generation. `unsafe` here: `ioctl` requests that `rustix` has no
//! functions for.
#![allow(unsafe_code)]

use rustix::fs::IFlags;
use rustix::io::Result;
use rustix::ioctl::{self, Getter, Opcode, Setter, opcode};
use std::ffi::{c_int, c_long};
use std::os::fd::AsFd;

/// The kernel says `long` and means `int`: only the size in the number of the request is that of a `long`.
const GETVERSION: Opcode = opcode::read::<c_long>(b'v', 1);
const SETVERSION: Opcode = opcode::write::<c_long>(b'v', 2);

/// Flags: `FS_APPEND_FL` and so on.
pub fn flags(file: impl AsFd) -> Result<u32> {
    rustix::fs::ioctl_getflags(file).map(|flags| flags.bits())
}

/// Sets the flags.
pub fn set_flags(file: impl AsFd, flags: u32) -> Result<()> {
    rustix::fs::ioctl_setflags(file, IFlags::from_bits_retain(flags))
}

/// The generation: what distinguishes files that had the same inode number one after the other.
pub fn generation(file: impl AsFd) -> Result<u32> {
    // SAFETY: FS_IOC_GETVERSION writes an `int` where it is told to.
    let value = unsafe { ioctl::ioctl(file, Getter::<GETVERSION, c_int>::new()) }?;
    Ok(value.cast_unsigned())
}

/// Sets the generation.
pub fn set_generation(file: impl AsFd, generation: u32) -> Result<()> {
    // SAFETY: FS_IOC_SETVERSION reads an `int` where it is told to.
    unsafe { ioctl::ioctl(file, Setter::<SETVERSION, c_int>::new(generation.cast_signed())) }
}
