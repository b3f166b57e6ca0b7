// SPDX-License-Identifier: Apache-2.0
//! Which devices a filesystem is on, and having the kernel see all of them.
//!
//! The kernel mounts a filesystem that is on several devices only after it has looked at each. On most machines udev
//! has it do so; in an appliance, or with no VM, nobody does.

use super::ioctl;
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
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The kernel's own list is kept through this.
const CONTROL: &str = "/dev/btrfs-control";

fn open(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

/// What a device says of its filesystem, if it is one of a btrfs.
fn of(path: &Path) -> Option<Member> {
    // What cannot be read is none.
    open(path).ok().and_then(|file| member(&file).ok().flatten())
}

/// All devices of the filesystem that is on one of them, by their numbers in it; an error (ENODEV) if some are missing.
pub(crate) fn all(devices: &mut Devices, device: &Device) -> Result<Vec<PathBuf>> {
    let file = open(device.path()).on(device)?;
    let this = member(&file).on(device)?;
    let this = this.ok_or_else(|| Error::invalid("not a btrfs filesystem").within(device))?;
    let found = same(devices, device.path(), &this);
    if (found.len() as u64) < this.devices {
        let why = format!("{} of {} devices are there", found.len(), this.devices);
        return Err(Error::new(Errno::ENODEV, why).within(device));
    }
    Ok(found.into_values().collect())
}

/// Devices of the same filesystem, by number.
fn same(devices: &mut Devices, path: &Path, this: &Member) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::from([(this.number, path.to_owned())]);
    if this.devices > 1 {
        for other in listing::loops().into_iter().chain(listing::all(devices)) {
            if let Some(member) = of(&other).filter(|m| m.filesystem == this.filesystem) {
                // Of an array and its parts, which may look the same, the former comes last.
                if member.number != this.number {
                    found.insert(member.number, other);
                }
            }
        }
    }
    found
}

/// Has the kernel look at all devices of the filesystem that is on one of them, before it is mounted.
pub(crate) fn register(devices: &mut Devices, path: &Path) {
    let Some(this) = of(path).filter(|member| member.devices > 1) else { return };
    let Ok(control) = open(Path::new(CONTROL)) else { return };
    for path in same(devices, path, &this).into_values() {
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
