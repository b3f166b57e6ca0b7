// SPDX-License-Identifier: Apache-2.0
//! What programs of the guest (the calls `command`, `sh` and others) see of this machine where its kernel is
//! the host's: directories that the daemon shows them in place of /dev, /proc and /sys.
//!
//! - /dev has character devices that are harmless, and nodes of the client's disks. It is read-only to
//!   them: nobody makes, links or renames a node there. All else that they can write to is mounted `nodev`.
//! - /proc and /sys are read-only as a whole, which includes /proc/sys, /proc/sysrq-trigger and the
//!   attributes of the host's other devices.
//!
//! The daemon takes from them, besides, the capabilities that would undo that, the way out of the guest's
//! root directory, and the host's keys (`guestfsd/src/tool/guest.rs`).

use super::dev::{self, Audience};
use super::mounts::{place, tree};
use crate::error::{Context, Result};
use rustix::mount::{MountFlags, mount_bind_recursive, mount_remount};
use std::fs;
use std::path::Path;

/// Where the directories are; the daemon is told by the variable.
pub(super) const VARIABLE: (&str, &str) = ("GUESTFSD_CONFINE", "/run/guest");
/// Where process 1 writes what is in their /dev.
pub(super) const DEV: &str = "/run/guest-dev";

/// Makes their /dev, below a root that is not yet entered.
pub(super) fn make_dev(root: &Path) -> Result<()> {
    let dev = root.join(DEV.trim_start_matches('/'));
    fs::create_dir(&dev).on(DEV)?;
    dev::make(&dev, Audience::Guest)
}

/// Makes the directories, once all is there that they show. Of what is mounted later they show nothing.
pub(super) fn make() -> Result<()> {
    let dir = Path::new(VARIABLE.1);
    for name in ["dev", "proc", "sys"] {
        fs::create_dir_all(dir.join(name)).on(name)?;
    }
    let dev = dir.join("dev");
    mount_bind_recursive(DEV, &dev).on(dev.display())?;
    // Only the directory itself: not pts and shm.
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_remount(&dev, flags, "").on(dev.display())?;
    for name in ["proc", "sys"] {
        place(&tree(&Path::new("/").join(name), true)?, &dir.join(name))?;
    }
    Ok(())
}
