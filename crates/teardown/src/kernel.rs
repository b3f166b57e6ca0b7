// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // The ioctl of the device mapper and swapoff(2) have no safe wrapper.
//! What the kernel is told: to remove a device, to stop an array, to swap to something no more.

use crate::layers::{Kind, Layer};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

const CONTROL: &str = "/dev/mapper/control";
/// `DM_DEV_REMOVE` (linux/dm-ioctl.h).
const DM_DEV_REMOVE: libc::Ioctl = request(4);
/// Bytes of a `struct dm_ioctl`.
const DM_IOCTL: usize = 312;
/// Version of the interface that is spoken.
const DM_VERSION: [u32; 3] = [4, 0, 0];

/// `_IOWR(0xfd, number, struct dm_ioctl)`.
#[allow(clippy::cast_possible_truncation)] // The type of the C library's ioctl: the number has 32 bits.
const fn request(number: u32) -> libc::Ioctl {
    (0xc000_0000 | ((DM_IOCTL as u32) << 16) | (0xfd << 8) | number) as libc::Ioctl
}

/// Removes a device, once.
pub(crate) fn remove(layer: &Layer) -> io::Result<()> {
    match &layer.kind {
        Kind::Mapper { name, .. } => {
            remove_mapped(layer.number)?;
            forget_node(&Path::new("/dev/mapper").join(name), layer.number);
            Ok(())
        }
        // "Writing is equivalent to STOP_ARRAY ioctl" (Documentation/admin-guide/md.rst).
        Kind::Array => fs::write(layer.directory.join("md/array_state"), "clear"),
        Kind::Other => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "not made by the device mapper or md"))
        }
    }
}

/// Removes the device of this number, whatever its name is by now.
fn remove_mapped((major, minor): (u32, u32)) -> io::Result<()> {
    let control = File::options().read(true).write(true).open(CONTROL)?;
    let mut argument = [0u8; DM_IOCTL];
    let mut put = |at: usize, bytes: &[u8]| argument[at..at + bytes.len()].copy_from_slice(bytes);
    for (i, number) in DM_VERSION.iter().enumerate() {
        put(4 * i, &number.to_ne_bytes());
    }
    let size = u32::try_from(DM_IOCTL).unwrap_or(0);
    put(12, &size.to_ne_bytes());
    // Where data would begin.
    put(16, &size.to_ne_bytes());
    // `huge_encode_dev`.
    let device = u64::from(minor & 0xff) | (u64::from(major) << 8) | (u64::from(minor >> 8) << 20);
    put(40, &device.to_ne_bytes());
    // SAFETY: the kernel reads and writes a `struct dm_ioctl`, which has no more bytes than `argument`.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), DM_DEV_REMOVE, argument.as_mut_ptr()) };
    check(done)
}

/// Removes the node of a device that is gone, where nobody but programs makes nodes.
fn forget_node(node: &Path, (major, minor): (u32, u32)) {
    let is_its = fs::symlink_metadata(node).is_ok_and(|found| {
        found.file_type().is_block_device() && found.rdev() == libc::makedev(major, minor)
    });
    if is_its {
        // Whoever else removes it may be faster.
        fs::remove_file(node).ok();
    }
}

/// Has the kernel stop swapping to this device or file.
pub(crate) fn swapoff(path: &CStr) -> io::Result<()> {
    // SAFETY: the path is a string that ends in NUL.
    check(unsafe { libc::swapoff(path.as_ptr()) })
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ioctls_number_is_that_of_the_header() {
        // As dmsetup's strace shows it.
        assert_eq!(DM_DEV_REMOVE, 0xc138_fd04);
    }

    #[test]
    fn a_node_of_another_device_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("name");
        fs::write(&file, "").unwrap();
        forget_node(&file, (0, 0));
        assert!(file.exists());
    }
}
