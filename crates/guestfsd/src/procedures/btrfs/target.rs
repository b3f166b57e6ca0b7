// SPDX-License-Identifier: Apache-2.0
//! What a call is about: a file or directory that is on a btrfs, or a whole filesystem; and the program `btrfs`.

use crate::btrfs::filesystem_uuid;
use crate::btrfs::members::{self, Access};
use crate::mountable::MountableOrPath;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Error, Result};
use guest_fs::paths::GuestPath;
use rustix::fs::OFlags;
use std::fs::File;
use std::os::fd::OwnedFd;

/// Opens a file or directory of the guest that is on a btrfs.
pub(super) fn open(s: &Session, path: GuestPath<'_>) -> Result<File> {
    let file = s.open(path, OFlags::RDONLY)?;
    // Others do not know this ioctl, nor any that follows.
    match filesystem_uuid(&file) {
        Ok(_) => Ok(file),
        Err(_) => Err(Error::invalid("not on a btrfs filesystem").within(path)),
    }
}

/// Opens a filesystem: where it is mounted, or else mounted for this call only.
pub(super) fn filesystem(
    s: &mut Session,
    fs: &MountableOrPath<'_>,
    access: Access,
) -> Result<OwnedFd> {
    match fs {
        MountableOrPath::Path(path) => open(s, *path).map(OwnedFd::from),
        MountableOrPath::Mountable(m) => {
            let (device, volume) = (m.device.path(), m.volume.as_deref());
            let mounted = members::mount(s.settled_devices(), device, volume, access);
            mounted.map(|mount| mount.into_root()).map_err(|e| e.within(m))
        }
    }
}

/// The program `btrfs`, with these words of its command.
pub(super) fn btrfs(words: &[&str]) -> Tool {
    Tool::new("btrfs").args(words)
}
