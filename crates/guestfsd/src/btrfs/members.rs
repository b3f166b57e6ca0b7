// SPDX-License-Identifier: Apache-2.0
//! Which devices a filesystem is on, and having the kernel see all of them.
//!
//! The kernel mounts a filesystem that is on several devices only after it has looked at each. On most machines udev
//! has it do so; in an appliance, or with no VM, nobody does.

use super::ioctl;
use super::ioctl::search::items;
use crate::devices::{Device, Devices};
use crate::listing;
use crate::mounts::Detached;
use guest_error::{Context, Errno, Error, Result};
use probe::superblock::btrfs::{Member, member};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The kernel's own list is kept through this.
const CONTROL: &str = "/dev/btrfs-control";

fn open(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

/// All devices of btrfs that there are.
fn known(devices: &mut Devices) -> Vec<(PathBuf, Member)> {
    // What cannot be read is none.
    let member_of = |path: PathBuf| {
        let found = open(&path).ok().and_then(|file| member(&file).ok().flatten())?;
        Some((path, found))
    };
    listing::loops().into_iter().chain(listing::all(devices)).filter_map(member_of).collect()
}

/// All devices of the filesystem that is on one of them, by their numbers in it; an error (ENODEV) if some are missing.
pub(crate) fn all(devices: &mut Devices, device: &Device) -> Result<Vec<PathBuf>> {
    let file = open(device.path()).on(device)?;
    let this = member(&file).on(device)?;
    let this = this.ok_or_else(|| Error::invalid("not a btrfs filesystem").within(device))?;
    drop(file);
    let mut found = BTreeMap::new();
    if this.devices > 1 {
        let known = known(devices);
        // Of an array and its parts, which may look the same, the former comes last.
        let same = known.iter().filter(|(_, other)| other.filesystem == this.filesystem);
        found.extend(same.map(|(path, other)| (other.number, path.clone())));
        if (found.len() as u64) < this.devices {
            found.extend(seeds(devices, device.path(), &known));
        }
    }
    found.insert(this.number, device.path().to_owned());
    if (found.len() as u64) < this.devices {
        let why = format!("{} of {} devices are there", found.len(), this.devices);
        return Err(Error::new(Errno::ENODEV, why).within(device));
    }
    Ok(found.into_values().collect())
}

/// Of these, the devices of the filesystems that this one was begun from: it has them in its own list. None if it cannot
/// be mounted, as where one of them is missing.
fn seeds(devices: &mut Devices, path: &Path, known: &[(PathBuf, Member)]) -> Vec<(u64, PathBuf)> {
    let Ok(mounted) = mount(devices, path, None, Access::Reading) else { return Vec::new() };
    let listed = match numbers(mounted.into_root()) {
        Ok(listed) => listed,
        Err(e) => {
            tracing::warn!(?path, error = %e, "its devices are not listed");
            return Vec::new();
        }
    };
    let of = |(number, uuid): (u64, [u8; 16])| {
        let (path, _) = known.iter().find(|(_, other)| other.seeding && other.uuid == uuid)?;
        Some((number, path.clone()))
    };
    listed.into_iter().filter_map(of).collect()
}

/// The tree that has an item for each device.
const CHUNKS: u64 = 3;
const DEVICES: u64 = 1;
const DEV_ITEM: u32 = 216;

/// Numbers and UUIDs of the devices of a filesystem that is mounted.
pub(super) fn numbers(filesystem: impl AsFd) -> rustix::io::Result<Vec<(u64, [u8; 16])>> {
    /// Where the UUID is in a `struct btrfs_dev_item`.
    const UUID: usize = 66;
    let mut found = Vec::new();
    items(filesystem, CHUNKS, DEVICES..=DEVICES, DEV_ITEM..=DEV_ITEM, |item| {
        let uuid = item.data.get(UUID..).and_then(|rest| rest.first_chunk());
        found.push((item.offset, uuid.copied().unwrap_or_default()));
        Ok(())
    })?;
    Ok(found)
}

/// Has the kernel look at all devices of the filesystem that is on one of them, before it is mounted.
pub(crate) fn register(devices: &mut Devices, path: &Path) {
    let this = open(path).ok().and_then(|file| member(&file).ok().flatten());
    let Some(this) = this.filter(|this| this.devices > 1) else { return };
    let Ok(control) = open(Path::new(CONTROL)) else { return };
    for (path, other) in known(devices) {
        if other.filesystem != this.filesystem && !other.seeding {
            continue;
        }
        // That one is missing, or mounted elsewhere, mounting says better.
        if let Err(e) = ioctl::register(&control, &path) {
            tracing::debug!(?path, error = %e, "not registered");
        }
    }
}

/// Mounts the filesystem that is on a device, or a subvolume of it, where nobody else can see it.
pub(crate) fn mount(
    devices: &mut Devices,
    device: &Path,
    volume: Option<&OsStr>,
    access: Access,
) -> Result<Detached> {
    register(devices, device);
    let options = volume.map(|volume| {
        let options = [&b"subvol="[..], volume.as_bytes()].concat();
        CString::new(options).map_err(|_| Error::argument("volume", volume, "has a NUL byte"))
    });
    let flags = match access {
        Access::Reading => MountFlags::RDONLY,
        Access::Writing => MountFlags::empty(),
    };
    Detached::mount(device, "btrfs", flags, options.transpose()?.as_deref())
}

/// What a filesystem is mounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Being asked.
    Reading,
    /// Being changed.
    Writing,
}
