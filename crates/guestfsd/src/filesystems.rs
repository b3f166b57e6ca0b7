// SPDX-License-Identifier: Apache-2.0
//! Which filesystems there are, and where the one is that is looked for.

use crate::btrfs::members::{self, Access};
use crate::btrfs::subvolumes;
use crate::contents;
use crate::devices::Devices;
use crate::listing::{arrays, partitions, partitions_of};
use crate::lvm;
use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use probe::contents::Contents;
use probe::mountable::MountableName;
use probe::partition_table::Entry;
use probe::{device_mapper, partition};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The device with the filesystem of this UUID.
pub(crate) fn of_uuid(devices: &mut Devices, uuid: &OsStr) -> Result<PathBuf> {
    find(devices, "uuid", uuid, |c| c.uuid().is_some_and(|u| u.eq_ignore_ascii_case(uuid)))
}

/// The device with the filesystem of this label.
pub(crate) fn of_label(devices: &mut Devices, label: &OsStr) -> Result<PathBuf> {
    find(devices, "label", label, |c| c.label() == Some(label))
}

/// The partition of this UUID.
pub(crate) fn partition_of_uuid(devices: &mut Devices, uuid: &OsStr) -> Result<PathBuf> {
    let is = |e: &Entry| OsStr::new(&e.uuid()).eq_ignore_ascii_case(uuid);
    find_partition(devices, "uuid", uuid, is)
}

/// The partition of this name.
pub(crate) fn partition_of_label(devices: &mut Devices, label: &OsStr) -> Result<PathBuf> {
    find_partition(devices, "label", label, |e| e.name() == label)
}

/// The device on which the filesystem is for which this holds. Errors say what was looked for.
pub(crate) fn find(
    devices: &mut Devices,
    argument: &str,
    value: &OsStr,
    is: impl Fn(&Contents) -> bool,
) -> Result<PathBuf> {
    // Of something larger and its parts, the former is meant.
    let volumes = device_mapper::all().into_iter().map(|map| {
        let path = map.path();
        (map.volume().map_or_else(|| path.clone(), |v| v.path()), path)
    });
    let mut places: Vec<(PathBuf, PathBuf)> = volumes.collect();
    let disks = devices.list();
    let arrays = arrays()?;
    let plain = arrays.iter().chain(&disks).flat_map(|d| partitions_of(d)).collect::<Vec<_>>();
    let all = plain.into_iter().chain(arrays).chain(disks);
    places.extend(all.map(|path| (path.clone(), path)));
    for (name, path) in places {
        // What cannot be read is not what is looked for.
        if let Ok(Some(contents)) = contents::of_path(&path, name.as_os_str())
            && !value.is_empty()
            && is(&contents)
        {
            return Ok(name);
        }
    }
    Err(not_found(argument, value, "no filesystem has it"))
}

fn find_partition(
    devices: &mut Devices,
    argument: &str,
    value: &OsStr,
    is: impl Fn(&Entry) -> bool,
) -> Result<PathBuf> {
    for path in partitions(devices)? {
        if let Some((disk, number)) = partition::of_device(&path)
            && let Ok(Some(entry)) = partition::entry(&disk, number)
            && !value.is_empty()
            && is(&entry)
        {
            return Ok(path);
        }
    }
    Err(not_found(argument, value, "no partition has it"))
}

fn not_found(argument: &str, value: &OsStr, why: &str) -> Error {
    Error::new(Errno::ENOENT, format!("{argument}: {}: {why}", value.to_string_lossy()))
}

/// Everything that holds a filesystem, or could, and its type: `unknown` where that is not known.
pub(crate) fn all(s: &mut Session) -> Result<Vec<(MountableName, String)>> {
    let disks = s.settled_devices().list();
    let mut found = Vec::new();
    for disk in disks.iter().filter(|d| partitions_of(d).is_empty()) {
        add(s.devices(), &mut found, disk.clone(), disk);
    }
    for path in partitions(s.devices())? {
        if may_hold_filesystem(&path) {
            add(s.devices(), &mut found, path.clone(), &path);
        }
    }
    for array in arrays()?.iter().filter(|a| partitions_of(a).is_empty()) {
        add(s.devices(), &mut found, array.clone(), array);
    }
    // What is in encrypted devices that are open, and the like.
    for map in device_mapper::all().iter().filter(|map| !map.is_of_lvm() && !map.is_part()) {
        add(s.devices(), &mut found, map.path(), &map.path());
    }
    let active: HashMap<PathBuf, PathBuf> =
        device_mapper::volumes().into_iter().map(|(volume, path)| (volume.path(), path)).collect();
    // The kernel does not know of those that are not active.
    let mut names = lvm::volumes(s).unwrap_or_else(|_| active.keys().cloned().collect());
    names.sort();
    for name in names {
        match active.get(&name) {
            Some(path) => add(s.devices(), &mut found, name, path),
            None => found.push((name.into(), UNKNOWN.to_owned())),
        }
    }
    Ok(found)
}

const UNKNOWN: &str = "unknown";

fn may_hold_filesystem(partition: &Path) -> bool {
    let Some((disk, number)) = partition::of_device(partition) else { return true };
    match partition::entry(&disk, number) {
        Ok(Some(entry)) => entry.may_hold_filesystem(),
        // The kernel shows parts of volumes of dynamic disks, which no table has.
        _ => !File::open(&disk).is_ok_and(|disk| partition::is_dynamic_disk(&disk)),
    }
}

/// Adds what is on a device, unless it is part of something larger or has to be unlocked first.
fn add(
    devices: &mut Devices,
    found: &mut Vec<(MountableName, String)>,
    name: PathBuf,
    path: &Path,
) {
    // A device that cannot be read holds nothing that is known.
    let contents = contents::of_path(path, name.as_os_str()).ok().flatten().unwrap_or_default();
    if matches!(contents.usage(), "raid" | "crypto") {
        return;
    }
    let fstype = match contents.fstype() {
        "" => UNKNOWN,
        known => known,
    };
    found.push((name.clone().into(), fstype.to_owned()));
    if fstype == "btrfs" {
        match subvolumes_of(devices, path) {
            Ok(volumes) => found.extend(volumes.into_iter().map(|volume| {
                let volume = MountableName { device: name.clone(), volume: Some(volume) };
                (volume, fstype.to_owned())
            })),
            Err(e) => tracing::warn!(device = ?name, error = %e, "subvolumes are not listed"),
        }
    }
}

/// The subvolumes of a btrfs filesystem, without the one that is mounted by default.
fn subvolumes_of(devices: &mut Devices, device: &Path) -> Result<Vec<OsString>> {
    let mount = members::mount(devices, device, None, Access::Reading)?.into_root();
    let default = subvolumes::default(&mount).on(device)?;
    let found = subvolumes::list(&mount, subvolumes::TOP).on(device)?;
    Ok(found.into_iter().filter(|s| s.id != default).map(|s| s.path).collect())
}
