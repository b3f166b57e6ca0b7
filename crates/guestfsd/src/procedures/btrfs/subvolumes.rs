// SPDX-License-Identifier: Apache-2.0
//! Subvolumes: made, copied, deleted, listed.

use super::target::{filesystem, open};
use crate::btrfs::members::Access;
use crate::btrfs::qgroups::QgroupId;
use crate::btrfs::{subvolume, subvolumes};
use crate::mountable::MountableOrPath;
use crate::procedures::numbers::not_negative;
use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{Entry, GuestPath};
use guestfs_api::options;
use guestfs_api::structs::Btrfssubvolume;
use rustix::fs::{Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::fs::File;

/// Makes a subvolume.
pub(crate) fn btrfs_subvolume_create(
    s: &mut Session,
    dest: GuestPath<'_>,
    options: &options::BtrfsSubvolumeCreate<'_>,
) -> Result<()> {
    let qgroup = qgroup(options.qgroupid)?;
    let entry = s.entry(dest)?;
    let directory = directory(&entry, dest)?;
    let none: Option<&File> = None;
    subvolume::create(directory, &entry.name, none, false, qgroup).on(dest)
}

/// Makes a snapshot of a subvolume: with the name `dest`, or with its own in the directory `dest`.
pub(crate) fn btrfs_subvolume_snapshot(
    s: &mut Session,
    source: GuestPath<'_>,
    dest: GuestPath<'_>,
    options: &options::BtrfsSubvolumeSnapshot<'_>,
) -> Result<()> {
    let qgroup = qgroup(options.qgroupid)?;
    let original = top_directory(s, source)?;
    let (directory, name) = place(s, source, dest)?;
    let read_only = options.ro == Some(true);
    subvolume::create(directory, &name, Some(&original), read_only, qgroup).on(dest)
}

/// The directory that a snapshot is made in, and its name.
fn place(s: &Session, source: GuestPath<'_>, dest: GuestPath<'_>) -> Result<(File, OsString)> {
    match s.open(dest, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(directory) => Ok((directory, s.entry(source)?.name)),
        Err(e) if [Errno::ENOENT, Errno::ENOTDIR].contains(&e.errno()) => {
            let entry = s.entry(dest)?;
            Ok((directory(&entry, dest)?, entry.name))
        }
        Err(e) => Err(e),
    }
}

fn qgroup(id: Option<&OsStr>) -> Result<Option<u64>> {
    id.map(|id| QgroupId::parse("qgroupid", id).map(|id| id.0)).transpose()
}

/// The directory that something is in.
fn directory(entry: &Entry, path: GuestPath<'_>) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&entry.dir, c".", flags, Mode::empty()).map(File::from).on(path)
}

/// The top directory of a subvolume.
pub(super) fn top_directory(s: &Session, path: GuestPath<'_>) -> Result<File> {
    let file = open(s, path)?;
    if rustix::fs::fstat(&file).on(path)?.st_ino != subvolumes::FIRST {
        return Err(Error::invalid("not a subvolume").within(path));
    }
    Ok(file)
}

/// Deletes a subvolume.
pub(crate) fn btrfs_subvolume_delete(s: &mut Session, subvolume: GuestPath<'_>) -> Result<()> {
    drop(top_directory(s, subvolume)?);
    let entry = s.entry(subvolume)?;
    subvolume::delete(directory(&entry, subvolume)?, &entry.name).on(subvolume)
}

/// All subvolumes of a filesystem.
pub(crate) fn btrfs_subvolume_list(
    s: &mut Session,
    fs: MountableOrPath<'_>,
) -> Result<Vec<Btrfssubvolume>> {
    let file = filesystem(s, &fs, Access::Reading)?;
    let base = subvolume::of(&file).on(&fs)?;
    let found = subvolumes::list(&file, base).on(&fs)?;
    let all = found.into_iter().map(|subvolume| Btrfssubvolume {
        btrfssubvolume_id: subvolume.id,
        btrfssubvolume_top_level_id: subvolume.parent,
        btrfssubvolume_path: subvolume.path,
    });
    Ok(all.collect())
}

/// Sets the subvolume that is mounted if none is named.
pub(crate) fn btrfs_subvolume_set_default(
    s: &mut Session,
    id: i64,
    fs: GuestPath<'_>,
) -> Result<()> {
    let id = not_negative("id", id)?;
    subvolume::set_default(open(s, fs)?, id).on(fs)
}

/// The subvolume that is mounted if none is named.
pub(crate) fn btrfs_subvolume_get_default(s: &mut Session, fs: MountableOrPath<'_>) -> Result<i64> {
    let file = filesystem(s, &fs, Access::Reading)?;
    let id = subvolumes::default(&file).on(&fs)?;
    i64::try_from(id).map_err(|_| Error::new(Errno::EOVERFLOW, "not a subvolume").within(&fs))
}
