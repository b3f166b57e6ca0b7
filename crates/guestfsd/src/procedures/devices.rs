// SPDX-License-Identifier: Apache-2.0
//! Which block devices there are.

use crate::devices::Device;
use crate::error::{Context, Error, Result};
use crate::mountable::Mountable;
use crate::session::Session;
use guestfs_api::{Errno, structs};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whole disks, in the order in which the client added them.
pub(crate) fn list_devices(s: &mut Session) -> Result<Vec<PathBuf>> {
    Ok(s.settled_devices().list())
}

/// Number of disks that the client added.
pub(crate) fn nr_devices(s: &mut Session) -> Result<i32> {
    let count = s.settled_devices().list().len();
    i32::try_from(count).map_err(|_| Error::new(Errno::EOVERFLOW, "too many devices"))
}

/// Partitions of all disks and of software RAID.
pub(crate) fn list_partitions(s: &mut Session) -> Result<Vec<PathBuf>> {
    let disks = s.settled_devices().list();
    let mut found = Vec::new();
    for disk in &disks {
        found.extend(partitions_of(disk));
    }
    found.extend(arrays()?.iter().flat_map(|array| partitions_of(array)));
    Ok(found)
}

/// Arrays of software RAID.
pub(super) fn arrays() -> Result<Vec<PathBuf>> {
    let mut arrays: Vec<PathBuf> = std::fs::read_dir("/sys/block")
        .on("/sys/block")?
        .filter_map(|entry| entry.ok().filter(|e| e.path().join("md").exists()))
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    arrays.sort();
    Ok(arrays)
}

/// Partitions of a disk, by ascending number.
pub(super) fn partitions_of(disk: &Path) -> Vec<PathBuf> {
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

/// Whether a device is a whole disk and no partition.
pub(crate) fn is_whole_device(_: &mut Session, device: Device) -> Result<bool> {
    let sysfs = device.sysfs()?;
    // Logical volumes and the like are on no bus: they have no `device`.
    Ok(sysfs.join("device").exists() && !sysfs.join("partition").exists())
}

/// Disks that were added with a label, and that label.
pub(crate) fn list_disk_labels(_: &mut Session) -> Result<Vec<(std::ffi::OsString, PathBuf)>> {
    let dir = Path::new("/dev/disk/guestfs");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let device = std::fs::canonicalize(entry.path()).on(entry.file_name())?;
        found.push((entry.file_name(), device));
    }
    found.sort();
    Ok(found)
}

/// Virtio 9p exports: these never come with a disk image.
pub(crate) fn list_9p(_: &mut Session) -> Result<Vec<String>> {
    let mut tags = Vec::new();
    for entry in
        std::fs::read_dir("/sys/bus/virtio/drivers/9pnet_virtio").into_iter().flatten().flatten()
    {
        if let Ok(tag) = std::fs::read_to_string(entry.path().join("mount_tag")) {
            tags.push(tag.trim_end_matches(['\0', '\n']).to_owned());
        }
    }
    tags.sort();
    Ok(tags)
}

/// Splits a mountable: type 1 is a device, 2 a btrfs subvolume, 3 a path.
pub(crate) fn internal_parse_mountable(
    s: &mut Session,
    mountable: Mountable,
) -> Result<structs::InternalMountable> {
    let im_device = s.client_name(mountable.device.path());
    Ok(match mountable.volume {
        None => {
            structs::InternalMountable { im_type: 1, im_device, im_volume: OsStr::new("").into() }
        }
        Some(im_volume) => structs::InternalMountable { im_type: 2, im_device, im_volume },
    })
}
