// SPDX-License-Identifier: Apache-2.0
//! Which block devices there are: disks, partitions, arrays of software RAID, volumes.

use crate::devices::Devices;
use guest_error::{Context, Result};
use probe::device_mapper;
use rustix::fs::{FileType, stat};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Partitions of all disks and of software RAID.
pub(crate) fn partitions(devices: &mut Devices) -> Result<Vec<PathBuf>> {
    let disks = devices.list();
    let mut found: Vec<PathBuf> = disks.iter().flat_map(|disk| partitions_of(disk)).collect();
    found.extend(arrays()?.iter().flat_map(|array| partitions_of(array)));
    Ok(found)
}

/// Arrays of software RAID that can be used.
pub(crate) fn running_arrays() -> Result<Vec<PathBuf>> {
    let mut found = arrays()?;
    // An array that has been stopped may still be in the kernel's table.
    let there = |array: &PathBuf| {
        stat(array).is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_block_device())
    };
    found.retain(there);
    Ok(found)
}

/// All of them; what cannot be listed is left out.
pub(crate) fn all(devices: &mut Devices) -> Vec<PathBuf> {
    let mut found = devices.list();
    found.extend(partitions(devices).unwrap_or_default());
    found.extend(running_arrays().unwrap_or_default());
    found.extend(device_mapper::all().into_iter().map(|map| map.path()));
    found
}

/// Loop devices that are attached to something.
pub(crate) fn loops() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let attached = entries.filter(|entry| entry.path().join("loop/backing_file").exists());
    attached.map(|entry| Path::new("/dev").join(entry.file_name())).collect()
}

/// Arrays of software RAID.
pub(crate) fn arrays() -> Result<Vec<PathBuf>> {
    // Looking into all directories takes long where there are many devices; the kernel's names of arrays begin so.
    let is_array = |entry: &std::fs::DirEntry| {
        entry.file_name().as_bytes().starts_with(b"md") && entry.path().join("md").exists()
    };
    let mut arrays: Vec<PathBuf> = std::fs::read_dir("/sys/block")
        .on("/sys/block")?
        .filter_map(|entry| entry.ok().filter(is_array))
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    arrays.sort();
    Ok(arrays)
}

/// Partitions of a disk, by ascending number.
pub(crate) fn partitions_of(disk: &Path) -> Vec<PathBuf> {
    let Some(name) = disk.file_name() else { return Vec::new() };
    let dir = Path::new("/sys/block").join(name);
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            if !entry.file_name().as_bytes().starts_with(name.as_bytes()) {
                return None;
            }
            let number = std::fs::read_to_string(entry.path().join("partition")).ok()?;
            Some((number.trim().parse().ok()?, Path::new("/dev").join(entry.file_name())))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}
