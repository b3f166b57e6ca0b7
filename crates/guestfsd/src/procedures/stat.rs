// SPDX-License-Identifier: Apache-2.0
//! What files are: the stat family. The number of the device that a file is on is the client's, as its name is.

use crate::devices::Devices;
use crate::session::Session;
use guest_error::{Context, Result};
use guest_fs::paths::{GuestPath, Root};
use guestfs_api::{options, structs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno as Raw;
use std::ffi::OsStr;

/// Whether there is something of this name: a link too, wherever it leads.
pub(crate) fn exists(s: &mut Session, path: GuestPath<'_>) -> Result<bool> {
    Ok(stat_if_there(s, path, false)?.is_some())
}

/// Whether it is a regular file.
pub(crate) fn is_file(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::IsFile,
) -> Result<bool> {
    is(s, path, options.followsymlinks, FileType::RegularFile)
}

/// Whether it is a directory.
pub(crate) fn is_dir(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::IsDir,
) -> Result<bool> {
    is(s, path, options.followsymlinks, FileType::Directory)
}

/// Whether it is a character device.
pub(crate) fn is_chardev(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::IsChardev,
) -> Result<bool> {
    is(s, path, options.followsymlinks, FileType::CharacterDevice)
}

/// Whether it is a block device.
pub(crate) fn is_blockdev(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::IsBlockdev,
) -> Result<bool> {
    is(s, path, options.followsymlinks, FileType::BlockDevice)
}

/// Whether it is a FIFO.
pub(crate) fn is_fifo(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::IsFifo,
) -> Result<bool> {
    is(s, path, options.followsymlinks, FileType::Fifo)
}

/// Whether it is a socket.
pub(crate) fn is_socket(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::IsSocket,
) -> Result<bool> {
    is(s, path, options.followsymlinks, FileType::Socket)
}

/// Whether it is a symbolic link.
pub(crate) fn is_symlink(s: &mut Session, path: GuestPath<'_>) -> Result<bool> {
    is(s, path, Some(false), FileType::Symlink)
}

fn is(s: &Session, path: GuestPath<'_>, follow: Option<bool>, kind: FileType) -> Result<bool> {
    let stat = stat_if_there(s, path, follow == Some(true))?;
    Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind))
}

fn stat_if_there(s: &Session, path: GuestPath<'_>, follow: bool) -> Result<Option<Stat>> {
    match stat_of(s.root()?, path, follow) {
        Ok(stat) => Ok(Some(stat)),
        Err(Raw::NOENT | Raw::NOTDIR) => Ok(None),
        Err(e) => Err(e).on(path),
    }
}

fn stat_of(root: &Root, path: GuestPath<'_>, follow: bool) -> rustix::io::Result<Stat> {
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    rustix::fs::fstat(root.open(path.as_os_str(), flags, Mode::empty())?)
}

/// Its size in bytes, followed.
pub(crate) fn filesize(s: &mut Session, file: GuestPath<'_>) -> Result<i64> {
    Ok(stat_of(s.root()?, file, true).on(file)?.st_size)
}

/// All that `stat` says, followed.
pub(crate) fn statns(s: &mut Session, path: GuestPath<'_>) -> Result<structs::Statns> {
    let stat = stat_of(s.root()?, path, true).on(path)?;
    Ok(to_statns(s.devices(), &stat))
}

/// All that `lstat` says, not followed.
pub(crate) fn lstatns(s: &mut Session, path: GuestPath<'_>) -> Result<structs::Statns> {
    let stat = stat_of(s.root()?, path, false).on(path)?;
    Ok(to_statns(s.devices(), &stat))
}

/// What `lstat` says of each name in a directory; of one that is not there, an inode of -1.
pub(crate) fn internal_lstatnslist(
    s: &mut Session,
    path: GuestPath<'_>,
    names: &[&OsStr],
) -> Result<Vec<structs::Statns>> {
    let dir = s.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok(names
        .iter()
        .map(|name| match rustix::fs::statat(&dir, *name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => to_statns(s.devices(), &stat),
            Err(_) => structs::Statns { st_ino: -1, ..Default::default() },
        })
        .collect())
}

// The protocol's numbers are all signed; the kernel's are what they are on this machine.
#[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast, clippy::cast_lossless)]
fn to_statns(devices: &mut Devices, s: &Stat) -> structs::Statns {
    structs::Statns {
        st_dev: devices.number_to_client(s.st_dev as u64) as i64,
        st_ino: s.st_ino as i64,
        st_mode: s.st_mode as i64,
        st_nlink: s.st_nlink as i64,
        st_uid: s.st_uid as i64,
        st_gid: s.st_gid as i64,
        st_rdev: s.st_rdev as i64,
        st_size: s.st_size as i64,
        st_blksize: s.st_blksize as i64,
        st_blocks: s.st_blocks as i64,
        st_atime_sec: s.st_atime as i64,
        st_atime_nsec: s.st_atime_nsec as i64,
        st_mtime_sec: s.st_mtime as i64,
        st_mtime_nsec: s.st_mtime_nsec as i64,
        st_ctime_sec: s.st_ctime as i64,
        st_ctime_nsec: s.st_ctime_nsec as i64,
        ..Default::default()
    }
}
