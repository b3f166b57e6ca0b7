// SPDX-License-Identifier: Apache-2.0
//! btrfs: subvolumes, quotas, devices, and what keeps a filesystem in order.
//!
//! What the kernel can be asked or told by an ioctl is not left to a program. The program `btrfs` does what takes long,
//! so that it can be killed, and `mkfs.btrfs`, `btrfstune` and `btrfs-image` what is done to filesystems that are not
//! mounted.

mod devices;
mod offline;
mod quotas;
mod show;
mod subvolumes;
mod upkeep;

pub(crate) use devices::*;
pub(crate) use offline::*;
pub(crate) use quotas::*;
pub(crate) use show::*;
pub(crate) use subvolumes::*;
pub(crate) use upkeep::*;

use crate::btrfs::members::{self, Access};
use crate::mountable::MountableOrPath;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use rustix::fs::OFlags;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// What `statfs` says of a btrfs.
const SUPER_MAGIC: i64 = 0x9123_683e;

/// Opens a file or directory of the guest that is on a btrfs.
fn open(s: &Session, path: GuestPath<'_>) -> Result<File> {
    let file = s.open(path, OFlags::RDONLY)?;
    match i64::try_from(rustix::fs::fstatfs(&file).on(path)?.f_type) {
        Ok(SUPER_MAGIC) => Ok(file),
        _ => Err(Error::invalid("not on a btrfs filesystem").within(path)),
    }
}

/// Opens a filesystem: where it is mounted, or else mounted for this call only.
fn filesystem(s: &mut Session, fs: &MountableOrPath<'_>, access: Access) -> Result<OwnedFd> {
    match fs {
        MountableOrPath::Path(path) => open(s, *path).map(OwnedFd::from),
        MountableOrPath::Mountable(m) => {
            let (device, volume) = (m.device.path(), m.volume.as_deref());
            let mounted = members::mount(s.settled_devices(), device, volume, access);
            mounted.map(|mount| mount.into_root()).map_err(|e| e.within(m))
        }
    }
}

/// A file or directory that is open, as an argument of a program.
fn argument(file: &File) -> std::path::PathBuf {
    proc_path(file.as_fd())
}

/// The program `btrfs`, with these words of its command.
fn btrfs(words: &[&str]) -> Tool {
    Tool::new("btrfs").args(words)
}
