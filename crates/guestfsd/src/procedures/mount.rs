// SPDX-License-Identifier: Apache-2.0
//! Mounting, unmounting, and what is mounted.

use crate::devices::Device;
use crate::error::{Context, Error, Result};
use crate::loops::Attached;
use crate::mountable::{DevOrPath, Mountable, MountableName};
use crate::mounts::{self, Mount, Twin};
use crate::paths::{GuestPath, proc_path};
use crate::session::Session;
use crate::tool::Tool;
use guestfs_api::{Errno, options};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Mounts with default options.
pub(crate) fn mount(s: &mut Session, mountable: Mountable, mountpoint: &OsStr) -> Result<()> {
    mount_with(s, None, None, &mountable, mountpoint)
}

/// Mounts to be read only.
pub(crate) fn mount_ro(s: &mut Session, mountable: Mountable, mountpoint: &OsStr) -> Result<()> {
    mount_with(s, Some(OsStr::new("ro")), None, &mountable, mountpoint)
}

/// Mounts with these options.
pub(crate) fn mount_options(
    s: &mut Session,
    options: &OsStr,
    mountable: Mountable,
    mountpoint: &OsStr,
) -> Result<()> {
    mount_with(s, Some(options), None, &mountable, mountpoint)
}

/// Mounts with these options, as this type of filesystem.
pub(crate) fn mount_vfs(
    s: &mut Session,
    options: &OsStr,
    vfstype: &OsStr,
    mountable: Mountable,
    mountpoint: &OsStr,
) -> Result<()> {
    crate::reach::check_filesystem(s, vfstype)?;
    mount_with(s, Some(options), Some(vfstype), &mountable, mountpoint)
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
        let at = mount_target(s, mountpoint.as_os_str())?;
        let attached = Attached::new(&broker, &image, read_only).map_err(|e| e.within(file))?;
        // Should it be unmounted, it is gone before the next call that names devices.
        s.udev().changed();
        return run_mount(s, None, None, attached.device(), &at).map_err(|e| e.within(file));
    }
    let image = s.open(file, OFlags::PATH)?;
    let at = mount_target(s, mountpoint.as_os_str())?;
    run_mount(s, Some(OsStr::new("loop")), None, &proc_path(image.as_fd()), &at)
        .map_err(|e| e.within(file))
}

fn mount_with(
    s: &mut Session,
    options: Option<&OsStr>,
    fstype: Option<&OsStr>,
    what: &Mountable,
    mountpoint: &OsStr,
) -> Result<()> {
    let at = mount_target(s, mountpoint)?;
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
    run_mount(s, all.as_deref(), fstype, what.device.path(), &at).map_err(|e| e.within(what))
}

/// The directory to mount on. The first one may be the sysroot only.
fn mount_target(s: &Session, mountpoint: &OsStr) -> Result<OwnedFd> {
    let root = s.root()?;
    let path = GuestPath::new("mountpoint", mountpoint)?;
    let is_root = path.bytes().iter().all(|&b| b == b'/');
    if !s.serves_machine() && !is_root && !root.is_mount()? && !is_made_mountpoint(s, path)? {
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

fn run_mount(
    s: &mut Session,
    options: Option<&OsStr>,
    fstype: Option<&OsStr>,
    source: &Path,
    at: &OwnedFd,
) -> Result<()> {
    let mount = |more: &[&str]| {
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
    let mounted = mount(&[]);
    s.release_root();
    let failed = match mounted?.success() {
        Ok(_) => return Ok(()),
        Err(e) => e,
    };
    let contents = crate::probe::contents(source, source.as_os_str()).ok().flatten();
    let contents = contents.unwrap_or_default();
    match Twin::of(contents.fstype()) {
        Some(Twin::MountedWith(option)) if mount(&["-o", option])?.code == 0 => {
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
            crate::paths::path_of(&fd).on(path)?
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
    if s.serves_machine() {
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
    let path = crate::paths::path_of(&at).on(mountpoint)?;
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
            let at = mounts::client_path(sysroot, &m.at);
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
