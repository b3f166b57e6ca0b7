// SPDX-License-Identifier: Apache-2.0
//! The partition that a device is: which one of which disk, and what the disk's table says of it.

use crate::partition_table::{self, Entry, Geometry};
use crate::sysfs;
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A device's partition number, and the disk that it is on; none if it is not a partition.
pub fn of_device(partition: &Path) -> Option<(PathBuf, u32)> {
    let stat = rustix::fs::stat(partition).ok()?;
    let sysfs = sysfs::directory(stat.st_rdev);
    let number = std::fs::read_to_string(sysfs.join("partition")).ok()?.trim().parse().ok()?;
    // ../../devices/DISK/PARTITION
    let directory = std::fs::read_link(sysfs).ok()?;
    Some((Path::new("/dev").join(directory.parent()?.file_name()?), number))
}

/// The entry of this number in the table of a disk; none without such a table or entry.
pub fn entry(disk: &Path, number: u32) -> io::Result<Option<Entry>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut file = rustix::fs::open(disk, flags, Mode::empty()).map(File::from)?;
    let geometry = geometry(&file)?;
    let table = partition_table::read(&mut file, geometry)?;
    Ok(table.and_then(|table| table.entry(number)))
}

/// Whether a disk, open, is a dynamic one of Windows, whose volumes are described in a database and not in its table.
pub fn is_dynamic_disk(mut disk: &File) -> bool {
    let table = geometry(disk).and_then(|geometry| partition_table::read(&mut disk, geometry));
    table.is_ok_and(|t| t.is_some_and(|t| t.entries().iter().any(Entry::is_of_dynamic_disk)))
}

/// A disk's measures.
pub fn geometry(disk: &File) -> io::Result<Geometry> {
    let sector = u64::from(rustix::fs::ioctl_blksszget(disk)?);
    Ok(Geometry { sector, size: rustix::fs::seek(disk, SeekFrom::End(0))? })
}

/// Where a partition begins, in bytes.
pub fn start(partition: &Path) -> Option<u64> {
    /// What the kernel counts in.
    const SECTOR: u64 = 512;
    let sysfs = sysfs::directory(rustix::fs::stat(partition).ok()?.st_rdev);
    let text = std::fs::read_to_string(sysfs.join("start")).ok()?;
    text.trim().parse::<u64>().ok()?.checked_mul(SECTOR)
}
