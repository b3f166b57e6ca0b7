// SPDX-License-Identifier: Apache-2.0
//! Copies of mounts: what is at one path of the host, shown read-only at another.

use crate::error::{Context, Result};
use crate::sys;
use rustix::fd::OwnedFd;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::io;
use std::path::Path;

/// A copy of the mount at a path, read-only, that is nowhere yet.
pub(super) fn tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let copy = open_tree(CWD, path, flags).on(path.display())?;
    match sys::make_read_only(&copy) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            Err(io::Error::other("mount_setattr(2) is not there: Linux 5.12 or later is needed"))
        }
        done => done,
    }
    .on(path.display())?;
    Ok(copy)
}

/// Puts a copy of a mount somewhere.
pub(super) fn place(copy: &OwnedFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(copy, "", CWD, target, flags).on(target.display())
}
