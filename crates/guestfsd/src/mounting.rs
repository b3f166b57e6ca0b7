// SPDX-License-Identifier: Apache-2.0
//! Mounting in the sysroot.

use crate::btrfs;
use crate::contents;
use crate::drivers::{self, Twin};
use crate::mountable::Mountable;
use crate::mounts;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use rustix::fs::{Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Mounts what a client has named, where it has said.
pub(crate) fn mount(
    s: &mut Session,
    options: Option<&OsStr>,
    fstype: Option<&OsStr>,
    what: &Mountable,
    mountpoint: &OsStr,
) -> Result<()> {
    let at = target(s, mountpoint)?;
    let mut all = options.filter(|o| !o.is_empty()).map(OsStr::to_owned);
    if let Some(volume) = &what.volume {
        let mut with = all.map_or_else(OsString::new, |mut o| {
            o.push(",");
            o
        });
        with.push("subvol=");
        with.push(volume);
        all = Some(with);
    }
    run(s, all.as_deref(), fstype, what.device.path(), &at).map_err(|e| e.within(what))
}

/// The directory to mount on. The first one may be the sysroot only.
pub(crate) fn target(s: &Session, mountpoint: &OsStr) -> Result<OwnedFd> {
    let root = s.root()?;
    let path = GuestPath::new("mountpoint", mountpoint)?;
    let is_root = path.bytes().iter().all(|&b| b == b'/');
    if !s.config().serves_machine()
        && !is_root
        && !root.is_mount()?
        && !is_made_mountpoint(s, path)?
    {
        let why = "you must mount something on / first";
        return Err(Error::argument("mountpoint", mountpoint, why));
    }
    let at = root.open(mountpoint, OFlags::PATH, Mode::empty()).on(mountpoint)?;
    let stat = rustix::fs::fstat(&at).on(mountpoint)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Ok(at);
    }
    Err(Error::new(Errno::ENOTDIR, "mount point is not a directory").within(mountpoint))
}

/// Whether `mkmountpoint` made this directory, or another client of the sysroot did.
fn is_made_mountpoint(s: &Session, path: GuestPath<'_>) -> Result<bool> {
    Ok(s.root()?.open(path.as_os_str(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).is_ok())
}

/// Runs mount(8); if another filesystem of the same UUID is in the way, as its kind wants it.
pub(crate) fn run(
    s: &mut Session,
    options: Option<&OsStr>,
    fstype: Option<&OsStr>,
    source: &Path,
    at: &OwnedFd,
) -> Result<()> {
    let attempt = |more: &[&str]| {
        // The program, not the system call: it finds out the type and knows helpers such as ntfs-3g.
        let mut tool = Tool::new("mount").args(more);
        if let Some(options) = options.filter(|o| !o.is_empty()) {
            tool = tool.arg("-o").arg(options);
        }
        if let Some(fstype) = fstype.filter(|t| !t.is_empty()) {
            tool = tool.arg("-t").arg(fstype);
        }
        // The descriptor says where, whatever the guest's directories become meanwhile.
        let target = proc_path(at.as_fd());
        tool.args(mounts::enforced()).arg("--").arg(source).arg(target).run()
    };
    btrfs::members::register(s.settled_devices(), source);
    let mounted = attempt(&[]);
    s.release_root();
    let failed = match mounted?.success() {
        Ok(_) => return Ok(()),
        Err(e) => e,
    };
    let contents = contents::of_path(source, source.as_os_str()).ok().flatten();
    let contents = contents.unwrap_or_default();
    match drivers::of(contents.fstype()).and_then(|driver| driver.twin) {
        Some(Twin::MountedWith(option)) if attempt(&["-o", option])?.code == 0 => {
            tracing::info!(?source, option, "mounted beside a filesystem of the same UUID");
            Ok(())
        }
        // The one error of the kernel's that has this reason, in the words of mount(8).
        Some(Twin::Refused) if failed.message().contains(&Errno::EEXIST.describe()) => {
            Err(mounts::duplicate_uuid(contents.uuid()).within("mount"))
        }
        _ => Err(failed),
    }
}
