// SPDX-License-Identifier: Apache-2.0
//! /dev: a few character devices, and (by [`super::view`] and [`super::loops`]) the client's disks and what is
//! attached for them. No other device of the host's.

use crate::error::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// For whom a /dev is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The daemon and the host's programs that it runs.
    Daemon,
    /// Everybody, in a kernel of the session's own, which may use all loop devices.
    Everybody,
    /// Programs of the guest.
    Guest,
}

/// Devices that are the same everywhere.
const CHARACTER: &[(&str, u32, u32, u32)] = &[
    ("null", 0o666, 1, 3),
    ("zero", 0o666, 1, 5),
    ("full", 0o666, 1, 7),
    ("random", 0o666, 1, 8),
    ("urandom", 0o666, 1, 9),
    ("tty", 0o666, 5, 0),
];
/// The kernel's log.
const KMSG: (&str, u32, u32, u32) = ("kmsg", 0o600, 1, 11);
/// Devices whose numbers, or being there at all, depend on the kernel; for the daemon.
const FROM_HOST: &[&str] = &["fuse", "btrfs-control", "mapper/control"];
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "fd/0"),
    ("stdout", "fd/1"),
    ("stderr", "fd/2"),
    ("ptmx", "pts/ptmx"),
];
const DIRECTORIES: &[&str] = &["pts", "shm", "disk", "mapper"];
/// Bytes of files in /dev, which are none.
const SIZE: &CStr = c"mode=755,size=64k,nr_inodes=16384";

/// Makes /dev at this directory, which is empty.
pub(crate) fn make(dev: &Path, audience: Audience) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("guestfs-novm", dev, "tmpfs", flags, SIZE).on(dev.display())?;
    for dir in DIRECTORIES {
        std::fs::create_dir(dev.join(dir)).on(dir)?;
    }
    let log = (audience != Audience::Guest).then_some(&KMSG);
    for &(name, mode, major, minor) in CHARACTER.iter().chain(log) {
        node(&dev.join(name), FileType::CharacterDevice, mode, makedev(major, minor))?;
    }
    if audience != Audience::Guest {
        for name in FROM_HOST {
            if let Ok(found) = std::fs::metadata(Path::new("/dev").join(name)) {
                node(&dev.join(name), FileType::CharacterDevice, 0o660, found.rdev())?;
            }
        }
    }
    if audience == Audience::Everybody {
        for entry in std::fs::read_dir("/dev").on("/dev")?.flatten() {
            let name = entry.file_name();
            if name.as_bytes().starts_with(b"loop") {
                let found = entry.metadata().on("/dev")?;
                let kind = FileType::from_raw_mode(found.mode());
                node(&dev.join(name), kind, 0o660, found.rdev())?;
            }
        }
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).on(name)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", dev.join("pts"), "devpts", flags, c"newinstance,ptmxmode=0666,mode=620")
        .on("/dev/pts")?;
    mount("shm", dev.join("shm"), "tmpfs", flags | MountFlags::NODEV, c"mode=1777").on("/dev/shm")
}

/// Makes a node with exactly this mode.
pub(crate) fn node(path: &Path, kind: FileType, mode: u32, device: u64) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match mknodat(CWD, path, kind, mode, device) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).on(path.display()),
    }
    rustix::fs::chmod(path, mode).on(path.display())
}
