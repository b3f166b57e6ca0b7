// SPDX-License-Identifier: Apache-2.0
//! What a copy gets besides its content: owner, mode, times and extended attributes.

use super::fault::{At, Copied, Fault, Side};
use crate::paths::proc_path;
use crate::xattr;
use guest_error::shown;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno as Raw;
use std::os::fd::BorrowedFd;

/// Access control lists: what a file has inherited goes where the copied one has none.
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Gives a copy its owner, extended attributes and mode; what goes wrong does not keep the rest from it.
pub(crate) fn copy(source: BorrowedFd<'_>, copy: BorrowedFd<'_>, stat: &Stat) -> Copied<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let owned = rustix::fs::chownat(copy, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH);
    // Capabilities go when the owner changes, so they are set after that.
    let kept = extended_attributes(source, copy);
    if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmod(proc_path(copy), mode).at(Side::Target)?;
    }
    owned.at(Side::Target).and(kept)
}

/// Gives a copy its extended attributes. Those of a kind that its filesystem does not have are left out; one that there
/// is no room for, or that cannot be read, is an error.
fn extended_attributes(source: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Copied<()> {
    let names = match xattr::names(source) {
        Err(Raw::OPNOTSUPP) => Vec::new(),
        names => names.at(Side::Source)?,
    };
    for acl in ACLS.iter().filter(|acl| !names.iter().any(|n| n == *acl)) {
        xattr::remove(copy, acl).ok();
    }
    let mut done = Ok(());
    for name in &names {
        let this = match xattr::get(source, name) {
            // Removed meanwhile.
            Err(Raw::NODATA) => Ok(()),
            Err(e) => Err(e).at(Side::Source),
            Ok(value) => match xattr::set(copy, name, &value) {
                Err(Raw::OPNOTSUPP | Raw::PERM | Raw::INVAL) => Ok(()),
                set => set.at(Side::Target),
            },
        };
        let named = this.map_err(|fault| {
            let what = format!("extended attribute {}", shown(name));
            Fault { error: fault.error.within(what), ..fault }
        });
        done = done.and(named);
    }
    done
}

/// When a file was read and changed last.
#[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)] // As wide as this machine's are.
pub(super) fn times(stat: &Stat) -> Timestamps {
    let time = |sec, nsec| Timespec { tv_sec: sec, tv_nsec: nsec };
    Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    }
}
