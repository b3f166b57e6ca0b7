// SPDX-License-Identifier: Apache-2.0
//! The partition that a device is: which one of which disk, and what the disk's table says of it.

use crate::block;
use crate::error::{Context, Result};
use partitions::{Entry, Geometry};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A device's partition number, and the disk that it is on; none if it is not a partition.
pub(crate) fn of_device(partition: &Path) -> Option<(PathBuf, u32)> {
    let stat = rustix::fs::stat(partition).ok()?;
    let sysfs = crate::devices::sysfs_of(stat.st_rdev);
    let number = std::fs::read_to_string(sysfs.join("partition")).ok()?.trim().parse().ok()?;
    // ../../devices/DISK/PARTITION
    let directory = std::fs::read_link(sysfs).ok()?;
    Some((Path::new("/dev").join(directory.parent()?.file_name()?), number))
}

/// The entry of this number in the table of a disk; none without such a table or entry.
pub(crate) fn entry(disk: &Path, number: u32) -> Result<Option<Entry>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut file = rustix::fs::open(disk, flags, Mode::empty()).map(File::from).on(disk)?;
    let geometry = geometry(&file).on(disk)?;
    let table = partitions::read(&mut file, geometry).on(disk)?;
    Ok(table.and_then(|table| table.entry(number)))
}

/// A disk's measures.
pub(crate) fn geometry(disk: &File) -> std::io::Result<Geometry> {
    let sector = u64::try_from(block::sector_size(disk)?).unwrap_or(512);
    Ok(Geometry { sector, size: block::size(disk)? })
}
