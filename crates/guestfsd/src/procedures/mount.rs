// SPDX-License-Identifier: Apache-2.0
//! Mounting, unmounting, and what is mounted.

use crate::devices::Device;
use crate::loops::Attached;
use crate::mountable::{DevOrPath, Mountable};
use crate::mounting;
use crate::mounts::{self, Mount};
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use guestfs_api::options;
use probe::mountable::MountableName;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Mounts with default options.
pub(crate) fn mount(s: &mut Session, mountable: Mountable, mountpoint: &OsStr) -> Result<()> {
    mounting::mount(s, None, None, &mountable, mountpoint)
}

/// Mounts to be read only.
pub(crate) fn mount_ro(s: &mut Session, mountable: Mountable, mountpoint: &OsStr) -> Result<()> {
    mounting::mount(s, Some(OsStr::new("ro")), None, &mountable, mountpoint)
}

/// Mounts with these options.
pub(crate) fn mount_options(
    s: &mut Session,
    options: &OsStr,
    mountable: Mountable,
    mountpoint: &OsStr,
) -> Result<()> {
    mounting::mount(s, Some(options), None, &mountable, mountpoint)
}

/// Mounts with these options, as this type of filesystem.
pub(crate) fn mount_vfs(
    s: &mut Session,
    options: &OsStr,
    vfstype: &OsStr,
    mountable: Mountable,
    mountpoint: &OsStr,
) -> Result<()> {
    crate::reach::check_filesystem(s.config(), vfstype)?;
    mounting::mount(s, Some(options), Some(vfstype), &mountable, mountpoint)
}

/// Mounts a file of the guest as a filesystem.
pub(crate) fn mount_loop(
    s: &mut Session,
    file: GuestPath<'_>,
    mountpoint: GuestPath<'_>,
) -> Result<()> {
    if let Some(broker) = crate::loops::broker() {
        let (image, read_only) = match s.open(file, OFlags::RDWR) {
            Err(e) if e.errno() == Errno::EROFS => (s.open(file, OFlags::RDONLY)?, true),
            opened => (opened?, false),
        };
        let at = mounting::target(s, mountpoint.as_os_str())?;
        let attached = Attached::new(&broker, &image, read_only).map_err(|e| e.within(file))?;
        // Should it be unmounted, it is gone before the next call that names devices.
        s.udev().changed();
        return mounting::run(s, None, None, attached.device(), &at).map_err(|e| e.within(file));
    }
    let image = s.open(file, OFlags::PATH)?;
    let at = mounting::target(s, mountpoint.as_os_str())?;
    mounting::run(s, Some(OsStr::new("loop")), None, &proc_path(image.as_fd()), &at)
        .map_err(|e| e.within(file))
}

/// Unmounts a filesystem, named by its device or by where it is mounted.
pub(crate) fn umount(
    s: &mut Session,
    pathordevice: DevOrPath<'_>,
    options: &options::Umount,
) -> Result<()> {
    let at = match &pathordevice {
        DevOrPath::Device(device) => mounted_at(s, device)?,
        DevOrPath::Path(path) => {
            let fd = s.open(*path, OFlags::PATH)?;
            guest_fs::paths::path_of(&fd).on(path)?
        }
    };
    s.release_root();
    // A loop device goes with the last mount of it.
    s.udev().changed();
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::FORCE, options.force == Some(true));
    flags.set(UnmountFlags::DETACH, options.lazyunmount == Some(true));
    // It is unmounted even if that fails: there is nothing more to be done for it.
    let flushed = match options.force {
        Some(true) => Ok(()),
        _ => s.flush_mounts(&at),
    };
    rustix::mount::unmount(&at, flags).on(&pathordevice).and(flushed)
}

/// The last place in the sysroot where a device was mounted.
fn mounted_at(s: &Session, device: &Device) -> Result<PathBuf> {
    let found = mounts::below(s.sysroot())?
        .into_iter()
        .rfind(|m| is_source(m, device.path()))
        .ok_or_else(|| Error::new(Errno::EINVAL, "not mounted").within(device))?;
    Ok(found.at)
}

fn is_source(mount: &Mount, device: &Path) -> bool {
    let source = Path::new(&mount.source);
    source == device
        || std::fs::canonicalize(source)
            .is_ok_and(|s| std::fs::canonicalize(device).is_ok_and(|d| s == d))
}

/// Unmounts everything.
pub(crate) fn umount_all(s: &mut Session) -> Result<()> {
    if s.config().serves_machine() {
        return Err(Error::not_supported("not where the machine itself is served (-r)"));
    }
    s.unmount_all()
}

/// Mounts again, with other options.
pub(crate) fn remount(
    s: &mut Session,
    mountpoint: GuestPath<'_>,
    options: &options::Remount,
) -> Result<()> {
    let Some(rw) = options.rw else { return Ok(()) };
    let at = s.open(mountpoint, OFlags::PATH)?;
    let how = if rw { "remount,rw" } else { "remount,ro" };
    let path = guest_fs::paths::path_of(&at).on(mountpoint)?;
    drop(at);
    let tool = Tool::new("mount").args(["-o", how]).args(mounts::enforced()).arg("--").arg(path);
    tool.ok().map_err(|e| e.within(mountpoint))
}

/// What is mounted, by device.
pub(crate) fn mounts(s: &mut Session) -> Result<Vec<MountableName>> {
    Ok(mounted(s)?.into_iter().map(|(device, _)| device).collect())
}

/// What is mounted, and where.
pub(crate) fn mountpoints(s: &mut Session) -> Result<Vec<(MountableName, OsString)>> {
    mounted(s)
}

/// Devices mounted in the sysroot and where the guest has them, in the order of mounting.
fn mounted(s: &Session) -> Result<Vec<(MountableName, OsString)>> {
    let sysroot = s.sysroot();
    let devices =
        mounts::below(sysroot)?.into_iter().filter(|m| m.source.as_bytes().starts_with(b"/"));
    Ok(devices
        .map(|m| {
            let at = sysroot.client_path(&m.at);
            // A mount of a subvolume names it in the table.
            let volume = (m.fstype == "btrfs" && m.root != "/")
                .then(|| OsStr::from_bytes(&m.root.as_bytes()[1..]).to_owned());
            (MountableName { device: m.source.into(), volume }, at)
        })
        .collect())
}

/// Makes a directory to mount on before anything is mounted.
pub(crate) fn mkmountpoint(s: &mut Session, exemptpath: &OsStr) -> Result<()> {
    let entry = s.entry(GuestPath::new("exemptpath", exemptpath)?)?;
    rustix::fs::mkdirat(&entry.dir, &*entry.name, Mode::from_raw_mode(0o777)).on(exemptpath)
}

/// Removes such a directory.
pub(crate) fn rmmountpoint(s: &mut Session, exemptpath: &OsStr) -> Result<()> {
    let entry = s.entry(GuestPath::new("exemptpath", exemptpath)?)?;
    rustix::fs::unlinkat(&entry.dir, &*entry.name, rustix::fs::AtFlags::REMOVEDIR).on(exemptpath)
}

/// Makes the lost+found directory of an ext filesystem.
pub(crate) fn mklost_and_found(s: &mut Session, mountpoint: GuestPath<'_>) -> Result<()> {
    let dir = s.open(mountpoint, OFlags::PATH | OFlags::DIRECTORY)?;
    // mklost+found takes no directory: it works where it is run.
    Tool::new("mklost+found")
        .current_dir(proc_path(dir.as_fd()))
        .ok()
        .map_err(|e| e.within(mountpoint))
}
