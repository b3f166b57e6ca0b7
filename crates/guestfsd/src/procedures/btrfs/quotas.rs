// SPDX-License-Identifier: Apache-2.0
//! Quotas of subvolumes, and groups of them (qgroups).

use super::target::{filesystem, open};
use crate::btrfs::members::Access;
use crate::btrfs::qgroups::{self, QgroupId};
use crate::btrfs::quotas;
use crate::mountable::MountableOrPath;
use crate::procedures::numbers::not_negative;
use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::structs::Btrfsqgroup;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Time between looking whether all has been counted.
const PERIOD: Duration = Duration::from_millis(5);

/// Enables or disables quotas.
pub(crate) fn btrfs_quota_enable(
    s: &mut Session,
    fs: MountableOrPath<'_>,
    enable: bool,
) -> Result<()> {
    let file = filesystem(s, &fs, Access::Writing)?;
    quotas::enable(&file, enable).on(&fs)
}

/// Counts again what each qgroup uses. All has been counted when this ends.
pub(crate) fn btrfs_quota_rescan(s: &mut Session, fs: MountableOrPath<'_>) -> Result<()> {
    let file = filesystem(s, &fs, Access::Writing)?;
    // Enabling quotas has started the same.
    wait(&file, fs.as_ref())?;
    quotas::start_rescan(&file).on(&fs)?;
    wait(&file, fs.as_ref())
}

fn wait(file: impl AsFd, name: &OsStr) -> Result<()> {
    while quotas::is_rescanning(&file).on(name)? {
        if guest_fs::interrupt::requested() {
            return Err(Error::new(Errno::EINTR, "the daemon was told to end"));
        }
        std::thread::sleep(PERIOD);
    }
    Ok(())
}

/// Limits the bytes that a subvolume may refer to.
pub(crate) fn btrfs_qgroup_limit(
    s: &mut Session,
    subvolume: GuestPath<'_>,
    size: i64,
) -> Result<()> {
    let size = not_negative("size", size)?;
    quotas::limit_subvolume(open(s, subvolume)?, size).on(subvolume)
}

/// Makes a qgroup.
pub(crate) fn btrfs_qgroup_create(
    s: &mut Session,
    qgroupid: &OsStr,
    subvolume: GuestPath<'_>,
) -> Result<()> {
    let id = QgroupId::parse("qgroupid", qgroupid)?;
    quotas::create_qgroup(open(s, subvolume)?, id.0, true).on(subvolume)
}

/// Destroys one.
pub(crate) fn btrfs_qgroup_destroy(
    s: &mut Session,
    qgroupid: &OsStr,
    subvolume: GuestPath<'_>,
) -> Result<()> {
    let id = QgroupId::parse("qgroupid", qgroupid)?;
    quotas::create_qgroup(open(s, subvolume)?, id.0, false).on(subvolume)
}

/// All qgroups of a filesystem, and what they use.
pub(crate) fn btrfs_qgroup_show(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<Btrfsqgroup>> {
    let found = match qgroups::list(open(s, path)?) {
        Err(rustix::io::Errno::NOENT) => {
            return Err(Error::new(Errno::ENOENT, "quotas are not enabled").within(path));
        }
        found => found.on(path)?,
    };
    let all = found.into_iter().map(|usage| Btrfsqgroup {
        btrfsqgroup_id: usage.id.to_string().into(),
        btrfsqgroup_rfer: usage.referenced,
        btrfsqgroup_excl: usage.exclusive,
    });
    Ok(all.collect())
}

/// Makes a qgroup a member of another.
pub(crate) fn btrfs_qgroup_assign(
    s: &mut Session,
    src: &OsStr,
    dst: &OsStr,
    path: GuestPath<'_>,
) -> Result<()> {
    assign(s, [src, dst], path, true)
}

/// Ends that.
pub(crate) fn btrfs_qgroup_remove(
    s: &mut Session,
    src: &OsStr,
    dst: &OsStr,
    path: GuestPath<'_>,
) -> Result<()> {
    assign(s, [src, dst], path, false)
}

fn assign(s: &Session, [src, dst]: [&OsStr; 2], path: GuestPath<'_>, assign: bool) -> Result<()> {
    let (src, dst) = (QgroupId::parse("src", src)?, QgroupId::parse("dst", dst)?);
    let file = open(s, path)?;
    if quotas::assign_qgroup(&file, src.0, dst.0, assign).on(path)? {
        // Unless they are being counted already.
        match quotas::start_rescan(&file) {
            Err(rustix::io::Errno::INPROGRESS) => {}
            started => started.on(path)?,
        }
    }
    Ok(())
}
