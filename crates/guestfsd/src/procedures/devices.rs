// SPDX-License-Identifier: Apache-2.0
//! Which block devices there are.

use crate::devices::Device;
use crate::listing;
use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::structs;
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
    listing::partitions(s.settled_devices())
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

/// Splits a mountable: type 1 is a device, 2 a btrfs subvolume, 3 a path. A volume need not be active: clients ask about
/// all that is listed.
pub(crate) fn internal_parse_mountable(
    s: &mut Session,
    mountable: &OsStr,
) -> Result<structs::InternalMountable> {
    let mountable = match s.mountable("mountable", mountable) {
        Err(e) if e.errno() == Errno::ENODEV && mountable.as_bytes().starts_with(b"/dev/") => {
            let (im_device, im_volume) = (mountable.to_owned(), OsStr::new("").into());
            return Ok(structs::InternalMountable { im_type: 1, im_device, im_volume });
        }
        found => found?,
    };
    let im_device = s.client_name(mountable.device.path());
    Ok(match mountable.volume {
        None => {
            structs::InternalMountable { im_type: 1, im_device, im_volume: OsStr::new("").into() }
        }
        Some(im_volume) => structs::InternalMountable { im_type: 2, im_device, im_volume },
    })
}
