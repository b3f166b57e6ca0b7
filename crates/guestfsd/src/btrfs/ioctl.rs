// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // btrfs is asked and told by ioctls.
//! The ioctls of btrfs (linux/btrfs.h), each a function of a file or directory that is open on the filesystem.
//!
//! Numbers and names go in, what the kernel says comes out. Opening files and saying what an error is about is the
//! callers' part. What is unsafe about them is here; the modules below have the structures.

pub(crate) mod balance;
pub(crate) mod quotas;
pub(super) mod scrub;
pub(super) mod search;
pub(crate) mod subvolumes;

use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use std::ffi::{OsStr, c_void};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The number that all of them share.
const MAGIC: u8 = 0x94;

const fn write<T>(number: u8) -> Opcode {
    opcode::write::<T>(MAGIC, number)
}

const fn read<T>(number: u8) -> Opcode {
    opcode::read::<T>(MAGIC, number)
}

const fn read_write<T>(number: u8) -> Opcode {
    opcode::read_write::<T>(MAGIC, number)
}

/// An ioctl on a structure that the kernel reads, writes or both.
struct Request<'a, const OP: Opcode, T> {
    value: &'a mut T,
}

// SAFETY: only `call` makes them, and says why its opcodes fit their structures.
unsafe impl<const OP: Opcode, T> Ioctl for Request<'_, OP, T> {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        OP
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.value).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> Result<IoctlOutput> {
        Ok(output)
    }
}

/// Makes an ioctl; returns what it returns, which is not negative.
fn call<const OP: Opcode, T>(file: impl AsFd, value: &mut T) -> Result<IoctlOutput> {
    // SAFETY: each `OP` used here and in the modules below is made of the structure that it is used with (`write::<T>` and so on), laid out
    // as in linux/btrfs.h, and any bits are values of its fields. What a field points to is alive during the call.
    unsafe { rustix::ioctl::ioctl(file, Request::<OP, T> { value }) }
}

/// An ioctl whose argument is a number, or that has none (0).
fn tell<const OP: Opcode>(file: impl AsFd, number: usize) -> Result<()> {
    // SAFETY: each `OP` used here and in the modules below takes a number, or nothing.
    unsafe { rustix::ioctl::ioctl(file, rustix::ioctl::IntegerSetter::<OP>::new_usize(number)) }
}

/// A name in a structure, which has to end in NUL.
fn name<const N: usize>(name: &OsStr) -> Result<[u8; N]> {
    let mut field = [0; N];
    let bytes = name.as_bytes();
    if bytes.len() >= N {
        return Err(Errno::NAMETOOLONG);
    }
    field[..bytes.len()].copy_from_slice(bytes);
    Ok(field)
}

/// A field with text up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

impl VolArgs {
    fn named(of: &OsStr) -> Result<Self> {
        Ok(Self { fd: 0, name: name(of)? })
    }
}

/// Writes everything to the devices.
pub(crate) fn sync(filesystem: impl AsFd) -> Result<()> {
    tell::<{ opcode::none(MAGIC, 8) }>(filesystem, 0)
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FilesystemInfo {
    max_id: u64,
    devices: u64,
    fsid: [u8; 16],
    others: [u64; 124],
}

/// The filesystem's UUID.
pub(crate) fn filesystem_uuid(filesystem: impl AsFd) -> Result<[u8; 16]> {
    let mut args = FilesystemInfo { max_id: 0, devices: 0, fsid: [0; 16], others: [0; 124] };
    call::<{ read::<FilesystemInfo>(31) }, _>(filesystem, &mut args)?;
    Ok(args.fsid)
}

/// Has the kernel look at a device (`control` is /dev/btrfs-control): it mounts filesystems on several devices only
/// when it has seen all.
pub(crate) fn register(control: impl AsFd, device: &Path) -> Result<()> {
    let mut args = VolArgs::named(device.as_os_str())?;
    call::<{ write::<VolArgs>(4) }, _>(control, &mut args).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<VolArgs>(), 4096);
        assert_eq!(size_of::<FilesystemInfo>(), 1024);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert_eq!(name::<4>(OsStr::new("abc")).unwrap(), *b"abc\0");
        assert_eq!(name::<4>(OsStr::new("abcd")).unwrap_err(), Errno::NAMETOOLONG);
        assert_eq!(text(b"ab\0c"), b"ab");
    }
}
