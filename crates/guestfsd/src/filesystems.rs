// SPDX-License-Identifier: Apache-2.0
//! Which filesystems there are, and where the one is that is looked for.

use crate::contents;
use crate::devices::Devices;
use crate::listing::{arrays, partitions, partitions_of};
use crate::mounts::Detached;
use crate::tool::Tool;
use guest_error::{Errno, Error, Result};
use probe::contents::Contents;
use probe::mountable::MountableName;
use probe::partition_table::Entry;
use probe::{device_mapper, partition};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
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
pub(crate) fn all(devices: &mut Devices) -> Result<Vec<(MountableName, String)>> {
    let disks = devices.list();
    let mut found = Found::default();
    for disk in disks.iter().filter(|d| partitions_of(d).is_empty()) {
        add(&mut found, disk.clone(), disk);
    }
    for path in partitions(devices)? {
        if may_hold_filesystem(&path) {
            add(&mut found, path.clone(), &path);
        }
    }
    for array in arrays()?.iter().filter(|a| partitions_of(a).is_empty()) {
        add(&mut found, array.clone(), array);
    }
    // What is in encrypted devices that are open, and the like.
    for map in device_mapper::all().iter().filter(|map| !map.uuid.starts_with("LVM-")) {
        add(&mut found, map.path(), &map.path());
    }
    let volumes = device_mapper::volumes();
    for (volume, path) in &volumes {
        add(&mut found, volume.path(), path);
    }
    // Where none is active, the kernel does not know of any.
    if volumes.is_empty() && found.physical_volumes {
        let inactive = volumes_of_lvm().unwrap_or_default();
        found.all.extend(inactive.into_iter().map(|v| (v.into(), UNKNOWN.to_owned())));
    }
    Ok(found.all)
}

const UNKNOWN: &str = "unknown";

/// What has been found so far.
#[derive(Default)]
struct Found {
    all: Vec<(MountableName, String)>,
    /// Whether there are some of LVM among what was passed over.
    physical_volumes: bool,
}

fn may_hold_filesystem(partition: &Path) -> bool {
    let entry = partition::of_device(partition)
        .and_then(|(disk, number)| partition::entry(&disk, number).ok().flatten());
    entry.is_none_or(|e| e.may_hold_filesystem())
}

/// Adds what is on a device, unless it is part of something larger or has to be unlocked first.
fn add(found: &mut Found, name: PathBuf, path: &Path) {
    // A device that cannot be read holds nothing that is known.
    let contents = contents::of_path(path, name.as_os_str()).ok().flatten().unwrap_or_default();
    found.physical_volumes |= contents.fstype() == "LVM2_member";
    if matches!(contents.usage(), "raid" | "crypto") {
        return;
    }
    let fstype = match contents.fstype() {
        "" => UNKNOWN,
        known => known,
    };
    found.all.push((name.clone().into(), fstype.to_owned()));
    if fstype == "btrfs" {
        match subvolumes(path) {
            Ok(volumes) => found.all.extend(volumes.into_iter().map(|volume| {
                let volume = MountableName { device: name.clone(), volume: Some(volume) };
                (volume, fstype.to_owned())
            })),
            Err(e) => tracing::warn!(device = ?name, error = %e, "subvolumes are not listed"),
        }
    }
}

/// The subvolumes of a btrfs filesystem, without the one that is mounted by default.
fn subvolumes(device: &Path) -> Result<Vec<OsString>> {
    let mount = Detached::new(device, "btrfs")?;
    let ask = |what: &str| Tool::new("btrfs").args(["subvolume", what]).arg(mount.path()).output();
    let default = id(&ask("get-default")?);
    let list = ask("list")?;
    let lines = list.split(|&b| b == b'\n');
    Ok(lines.filter(|line| id(line) != default).filter_map(path).collect())
}

/// The number in `ID 256 gen 7 top level 5 path root`.
fn id(line: &[u8]) -> Option<u64> {
    let text = line.strip_prefix(b"ID ")?;
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// The path in it.
fn path(line: &[u8]) -> Option<OsString> {
    const MARK: &[u8] = b" path ";
    let at = line.windows(MARK.len()).position(|w| w == MARK)?;
    Some(OsStr::from_bytes(&line[at + MARK.len()..]).to_owned())
}

/// All volumes that people see, active or not.
fn volumes_of_lvm() -> Result<Vec<PathBuf>> {
    let select = "lv_role=public && lv_skip_activation!=yes";
    let columns = ["--noheadings", "--separator", "/", "-o", "vg_name,lv_name", "-S"];
    let tool = Tool::new("lvm").arg("lvs").args(columns);
    let output = tool.arg(select).output().map_err(|e| e.within("lvs"))?;
    let mut found: Vec<PathBuf> = String::from_utf8_lossy(&output)
        .split_whitespace()
        .map(|name| PathBuf::from("/dev").join(name))
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subvolume_is_read_from_its_line() {
        let line = b"ID 257 gen 7 top level 5 path dir/a path b";
        assert_eq!((id(line), path(line)), (Some(257), Some("dir/a path b".into())));
        assert_eq!(id(b"ID 5 (FS_TREE)\n"), Some(5));
        assert_eq!((id(b"x"), path(b"ID 1 path")), (None, None));
    }
}
