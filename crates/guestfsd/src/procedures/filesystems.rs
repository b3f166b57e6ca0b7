// SPDX-License-Identifier: Apache-2.0
//! Which filesystems there are, and what they are: type, label, UUID.

use crate::mountable::Mountable;
use crate::session::Session;
use crate::{contents, filesystems};
use guest_error::Result;
use probe::mountable::MountableName;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Type of a filesystem; empty where there is none that is known.
pub(crate) fn vfs_type(_: &mut Session, mountable: Mountable) -> Result<String> {
    let found = contents::of_device(&mountable.device)?;
    Ok(found.map(|c| c.fstype().to_owned()).unwrap_or_default())
}

/// Label of a filesystem; empty where there is none.
pub(crate) fn vfs_label(_: &mut Session, mountable: Mountable) -> Result<OsString> {
    let found = contents::of_device(&mountable.device)?;
    Ok(found.and_then(|c| c.label().map(OsStr::to_owned)).unwrap_or_default())
}

/// UUID of a filesystem; empty where there is none.
pub(crate) fn vfs_uuid(_: &mut Session, mountable: Mountable) -> Result<OsString> {
    let found = contents::of_device(&mountable.device)?;
    Ok(found.and_then(|c| c.uuid().map(OsStr::to_owned)).unwrap_or_default())
}

/// The device with the filesystem of this UUID.
pub(crate) fn findfs_uuid(s: &mut Session, uuid: &OsStr) -> Result<PathBuf> {
    filesystems::of_uuid(s.settled_devices(), uuid)
}

/// The device with the filesystem of this label.
pub(crate) fn findfs_label(s: &mut Session, label: &OsStr) -> Result<PathBuf> {
    filesystems::of_label(s.settled_devices(), label)
}

/// The partition of this UUID.
pub(crate) fn findfs_partuuid(s: &mut Session, uuid: &OsStr) -> Result<PathBuf> {
    filesystems::partition_of_uuid(s.settled_devices(), uuid)
}

/// The partition of this name.
pub(crate) fn findfs_partlabel(s: &mut Session, label: &OsStr) -> Result<PathBuf> {
    filesystems::partition_of_label(s.settled_devices(), label)
}

/// Everything that holds a filesystem, or could, and its type: `unknown` where that is not known.
pub(crate) fn list_filesystems(s: &mut Session) -> Result<Vec<(MountableName, String)>> {
    filesystems::all(s)
}
