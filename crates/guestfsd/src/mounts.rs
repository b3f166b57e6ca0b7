// SPDX-License-Identifier: Apache-2.0
//! What is mounted: the kernel's own table, and unmounting.

use crate::scratch::Scratch;
use guest_error::{Context, Errno, Error, Result, shown};
use guest_fs::mntent::unescape;
use guest_fs::paths::Sysroot;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use teardown::watched;

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Number of the mount.
    pub id: u64,
    /// The directory of the filesystem that is mounted: `/`, or a subvolume.
    pub root: OsString,
    /// Where, on this machine.
    pub at: PathBuf,
    /// Type of the filesystem.
    pub fstype: OsString,
    /// What is mounted: a device, as a rule.
    pub source: OsString,
}

/// The variable that says that device nodes of guests must not work.
pub(crate) const NODEV: &str = "GUESTFSD_NODEV";

/// Options for every mount(8), whatever the client asks for. Where there is no VM around the daemon
/// (guestfs-novm, a listener), a device node in a guest's filesystem would be one of the host's devices.
pub(crate) fn enforced() -> &'static [&'static str] {
    if std::env::var_os(NODEV).is_some() { &["-o", "nodev"] } else { &[] }
}

/// Everything that is mounted, in the order in which it was.
pub(crate) fn all() -> Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo").on("/proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// What is mounted on the sysroot and below, in the order in which it was.
pub(crate) fn below(sysroot: &Sysroot) -> Result<Vec<Mount>> {
    Ok(all()?.into_iter().filter(|m| m.at.starts_with(sysroot.path())).collect())
}

/// The table's lines; one that makes no sense is left out.
fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let root = unescape(fields.nth(2)?);
    let at = unescape(fields.next()?).into();
    let mut fields = fields.skip_while(|f| *f != b"-").skip(1);
    Some(Mount { id, root, at, fstype: unescape(fields.next()?), source: unescape(fields.next()?) })
}

/// Unmounts everything on the sysroot and below, the last mounted first; what is busy is detached, so
/// that it goes when its last user does.
pub(crate) fn unmount_all(sysroot: &Sysroot) -> Result<()> {
    let mut first_error = Ok(());
    for mount in below(sysroot)?.iter().rev() {
        let what = format!("unmounting {} ({})", mount.at.display(), shown(&mount.source));
        let mut done = watched(&what, || unmount(&mount.at, UnmountFlags::NOFOLLOW));
        if done == Err(rustix::io::Errno::BUSY) {
            tracing::warn!(path = ?mount.at, "busy: detached");
            done = unmount(&mount.at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
        first_error = first_error.and(done.on(sysroot.client_path(&mount.at)));
    }
    first_error
}

/// The error where the kernel does not mount a filesystem beside another one of the same UUID.
pub(crate) fn duplicate_uuid(uuid: Option<&OsStr>) -> Error {
    let uuid = uuid.map(|uuid| format!(" {}", shown(uuid))).unwrap_or_default();
    let text = format!(
        "duplicate UUID: another filesystem with the UUID{uuid} is mounted on this machine, and the kernel mounts \
         only one of them at a time; end what uses the other, or give this one a UUID of its own (btrfstune -u)"
    );
    Error::new(Errno::EEXIST, text)
}

/// A filesystem that is mounted where nobody else can see it, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Detached {
    root: OwnedFd,
}

impl Detached {
    /// Mounts a device with these flags and the filesystem's own options.
    pub(crate) fn mount(
        device: &Path,
        fstype: &str,
        flags: MountFlags,
        options: Option<&CStr>,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let dir = scratch.path();
        // Its programs and device nodes are not needed.
        let never = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        let mount = |flags| rustix::mount::mount(device, dir, fstype, never | flags, options);
        // Where it is mounted for writing already, some filesystems cannot be mounted otherwise.
        let mounted = match mount(flags) {
            Err(rustix::io::Errno::BUSY) => mount(flags - MountFlags::RDONLY),
            done => done,
        };
        if mounted == Err(rustix::io::Errno::EXIST) {
            return Err(duplicate_uuid(None).within(device));
        }
        let root = mounted.and_then(|()| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(dir, flags, Mode::empty());
            // From now on the descriptor holds it, and nothing else.
            unmount(dir, UnmountFlags::DETACH).and(root)
        });
        Ok(Self { root: root.on(device)? })
    }

    /// Its root, for programs.
    pub(crate) fn path(&self) -> PathBuf {
        guest_fs::paths::proc_path(self.root.as_fd())
    }

    /// Its root, which goes on holding it.
    pub(crate) fn into_root(self) -> OwnedFd {
        self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::StatVfsMountFlags;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::process::Command;

    #[test]
    fn a_line_of_mountinfo_is_read_with_and_without_optional_fields() {
        let with =
            b"36 35 98:0 /sub /sysroot/a\\040b rw,noatime master:1 shared:2 - btrfs /dev/sda1 rw";
        let mount = parse_line(with).unwrap();
        assert_eq!(mount.at, Path::new("/sysroot/a b"));
        assert_eq!((mount.id, mount.root.as_os_str()), (36, OsStr::new("/sub")));
        assert_eq!(
            (mount.fstype.as_os_str(), mount.source.as_os_str()),
            (OsStr::new("btrfs"), OsStr::new("/dev/sda1"))
        );
        assert!(parse_line(b"36 35 98:0 / /x rw - ext4 /dev/sda1 rw").is_some());
    }

    #[test]
    fn nonsense_in_mountinfo_is_left_out() {
        for line in [&b""[..], b"x", b"1 2 3:4 / /x rw", b"1 2 3:4 / /x rw - ext4"] {
            assert_eq!(parse_line(line), None);
        }
    }

    /// An image on a loop device.
    struct Loop(PathBuf);

    impl Drop for Loop {
        fn drop(&mut self) {
            Command::new("/usr/sbin/losetup").arg("--detach").arg(&self.0).status().ok();
        }
    }

    fn run(command: &mut Command) -> String {
        let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(
            out.status.success(),
            "{command:?}: {out:?} (needs root for loop devices, e2fsprogs and mount)"
        );
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn on_a_detached_mount_device_nodes_and_programs_do_not_work() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(8 << 20).unwrap();
        run(Command::new("/usr/sbin/mke2fs").args(["-q", "-t", "ext4"]).arg(image.path()));
        // Harmless if they work: the null device, and a program that does nothing.
        let script = ["mknod node c 1 3", "write /bin/true program", "sif program mode 0104755"];
        for line in script {
            run(Command::new("/usr/sbin/debugfs").args(["-w", "-R", line]).arg(image.path()));
        }
        let losetup =
            run(Command::new("/usr/sbin/losetup").args(["-f", "--show"]).arg(image.path()));
        let device = Loop(losetup.trim().into());
        let mount = Detached::mount(&device.0, "ext4", MountFlags::RDONLY, None).unwrap();
        let (node, program) = (mount.path().join("node"), mount.path().join("program"));
        assert!(std::fs::metadata(&node).unwrap().file_type().is_char_device());
        let denied = Some(std::io::ErrorKind::PermissionDenied);
        assert_eq!(std::fs::File::open(&node).err().map(|e| e.kind()), denied);
        assert_eq!(std::fs::metadata(&program).unwrap().mode() & 0o7777, 0o4755);
        assert_eq!(Command::new(&program).status().err().map(|e| e.kind()), denied);
        let flags = rustix::fs::fstatvfs(&mount.root).unwrap().f_flag;
        assert!(flags.contains(StatVfsMountFlags::NOSUID | StatVfsMountFlags::RDONLY));
        let name = device.0.as_os_str();
        assert!(all().unwrap().iter().all(|mount| mount.source != name), "seen by nobody");
    }
}
