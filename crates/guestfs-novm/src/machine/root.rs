// SPDX-License-Identifier: Apache-2.0
//! The root directory: a tmpfs with the host's programs, libraries and their configuration, read-only.
//!
//! Nothing else of the host's files is there: no /home, /root, /var, /srv, /boot, and no device that
//! they are on. After [`Root::enter`] the host's root is out of reach.

use super::dev::{self, Audience};
use super::mounts::{place, tree};
use super::{Kernel, confine};
use crate::error::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Directories of the host that programs and what they need are in.
const FROM_HOST: &[&str] =
    &["bin", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "sbin", "usr"];
/// Directories of our own, and their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o755),
    ("sys", 0o555),
    ("sysroot", 0o755),
    ("tmp", 0o1777),
    ("tmp/lvm", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];
/// Files of /proc that concern the whole host: not to be written by the guest's programs.
const HOSTS: &[&str] = &["proc/sys", "proc/sysrq-trigger", "proc/irq", "proc/bus", "proc/fs"];
/// ... except what a procedure of the daemon writes.
const WRITABLE: &[&str] = &["proc/sys/vm/drop_caches"];
/// Where a directory for the new root may be found.
const PLACES: &[&str] = &["/tmp", "/run", "/mnt", "/var/tmp"];
/// Where the daemon is in the new root.
pub(crate) const DAEMON: &str = "/guestfsd";
/// Where the real mdadm is in the new root.
pub(super) const MDADM: &str = "/mdadm";
/// Where mdadm may be; there, it is this program ([`super::mdadm`]).
const MDADM_PLACES: &[&str] = &["usr/sbin/mdadm", "sbin/mdadm", "usr/local/sbin/mdadm"];
/// Where udevadm may be; there, it is this program.
const UDEVADM_PLACES: &[&str] =
    &["usr/bin/udevadm", "bin/udevadm", "usr/sbin/udevadm", "sbin/udevadm"];
/// LVM looks at devices itself, for there is no udev.
const LVM_CONF: &str = "devices {\n\tobtain_device_list_from_udev = 0\n\
                        \texternal_device_info_source = \"none\"\n}\n\
                        activation {\n\tudev_sync = 0\n\tudev_rules = 0\n\tmonitoring = 0\n}\n\
                        global {\n\tuse_lvmpolld = 0\n}\n";

/// A root that was made but not yet entered.
#[derive(Debug)]
pub(crate) struct Root {
    at: PathBuf,
}

impl Root {
    /// Makes a root in this mount namespace, which has to be the caller's own.
    pub(crate) fn make(daemon: &Path, kernel: Kernel) -> Result<Self> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .on("a private mount namespace")?;
        // Both may be below the directory that is about to be covered.
        let own = std::env::current_exe().on("this program")?;
        let daemon = tree(daemon, false)?;
        let (as_mdadm, as_udevadm) = (tree(&own, false)?, tree(&own, false)?);
        let at = PLACES.iter().map(Path::new).find(|p| p.is_dir()).unwrap_or("/".as_ref());
        let root = Self { at: at.to_owned() };
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("guestfs-novm", at, "tmpfs", flags, c"mode=755").on(at.display())?;
        for &(name, mode) in DIRECTORIES {
            let dir = root.path(name);
            std::fs::create_dir(&dir).on(name)?;
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).on(name)?;
        }
        symlink("../run", root.path("var/run")).on("/var/run")?;
        symlink("../run/lock", root.path("var/lock")).on("/var/lock")?;
        for name in FROM_HOST {
            root.take(name)?;
        }
        root.file(DAEMON, &daemon)?;
        if let Some(target) = root.find(MDADM_PLACES) {
            root.file(MDADM, &tree(&target, false)?)?;
            place(&as_mdadm, &target)?;
        }
        if let Some(target) = root.find(UDEVADM_PLACES) {
            place(&as_udevadm, &target)?;
        }
        std::fs::write(root.path("tmp/lvm/lvm.conf"), LVM_CONF).on("lvm.conf")?;
        root.kernel_files()?;
        let dev = root.path("dev");
        match kernel {
            Kernel::Hosts => {
                dev::make(&dev, Audience::Daemon)?;
                confine::make_dev(&root.at)?;
            }
            Kernel::Own => dev::make(&dev, Audience::Everybody)?,
        }
        Ok(root)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name.trim_start_matches('/'))
    }

    /// The first of these that is there.
    fn find(&self, names: &[&str]) -> Option<PathBuf> {
        names.iter().map(|name| self.path(name)).find(|path| path.exists())
    }

    /// Shows a directory of the host, or the symbolic link that is in its place.
    fn take(&self, name: &str) -> Result<()> {
        let source = Path::new("/").join(name);
        match std::fs::symlink_metadata(&source) {
            Err(_) => Ok(()),
            Ok(found) if found.is_symlink() => {
                let target = std::fs::read_link(&source).on(source.display())?;
                symlink(target, self.path(name)).on(name)
            }
            Ok(found) if found.is_dir() => {
                let copy = tree(&source, true)?;
                let target = self.path(name);
                std::fs::create_dir(&target).on(name)?;
                place(&copy, &target)
            }
            Ok(_) => Ok(()),
        }
    }

    /// Shows a file of the host under this name.
    fn file(&self, name: &str, source: &OwnedFd) -> Result<()> {
        let target = self.path(name);
        std::fs::write(&target, "").on(name)?;
        place(source, &target)
    }

    /// Shows a directory of the host under another name, which need not be there yet.
    pub(crate) fn show_at(&self, source: &Path, name: &str) -> Result<()> {
        let copy = tree(source, true)?;
        let target = self.path(name);
        if !target.is_dir() {
            self.make_in_read_only(name)?;
        }
        place(&copy, &target)
    }

    /// Makes a directory in one that is read-only: that becomes one of links to what was in it.
    fn make_in_read_only(&self, name: &str) -> Result<()> {
        let (parent, own) = name.rsplit_once('/').unwrap_or((".", name));
        let covered = self.path(parent);
        let aside = format!("/.{}", parent.replace('/', "-"));
        let kept = self.path(&aside);
        std::fs::create_dir(&kept).on(&aside)?;
        place(&tree(&covered, true)?, &kept)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("guestfs-novm", &covered, "tmpfs", flags, c"mode=755").on(parent)?;
        for entry in std::fs::read_dir(&kept).on(&aside)?.flatten() {
            let target = Path::new(&aside).join(entry.file_name());
            symlink(target, covered.join(entry.file_name())).on(parent)?;
        }
        std::fs::create_dir(covered.join(own)).on(name)
    }

    /// /proc and /sys.
    fn kernel_files(&self) -> Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", self.path("proc"), "proc", flags, None).on("/proc")?;
        for name in HOSTS {
            let path = self.path(name);
            if path.exists() {
                mount_bind(&path, &path).on(name)?;
                mount_remount(&path, MountFlags::BIND | MountFlags::RDONLY | flags, "").on(name)?;
            }
        }
        for name in WRITABLE {
            let path = self.path(name);
            if path.exists() {
                mount_bind(&path, &path).on(name)?;
                mount_remount(&path, MountFlags::BIND | flags, "").on(name)?;
            }
        }
        // A bind mount: a new one would need a network namespace of our own.
        let sys = self.path("sys");
        mount_bind("/sys", &sys).on("/sys")?;
        mount_remount(&sys, MountFlags::BIND | MountFlags::RDONLY | flags, "").on("/sys")?;
        // md devices are set up through theirs.
        let block = self.path("sys/devices/virtual/block");
        if block.exists() {
            mount_bind(&block, &block).on("/sys/devices/virtual/block")?;
            mount_remount(&block, MountFlags::BIND | flags, "").on("/sys/devices/virtual/block")?;
        }
        Ok(())
    }

    /// Makes it this process's root; the one before is gone.
    pub(crate) fn enter(self) -> Result<()> {
        std::env::set_current_dir(&self.at).on(self.at.display())?;
        // The old root comes to lie on the new one, from where it is taken off.
        rustix::process::pivot_root(".", ".").on("pivot_root")?;
        unmount(".", UnmountFlags::DETACH).on("the host's root")?;
        std::env::set_current_dir("/").on("/")
    }
}
