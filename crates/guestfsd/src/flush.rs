// SPDX-License-Identifier: Apache-2.0
//! Getting what was written onto the disks, and remembering when that failed.
//!
//! The kernel reports a failed write once. After that the pages are clean, and the next sync succeeds although
//! the data is lost. All flushing is therefore done here: a filesystem or device that has failed once keeps
//! failing for the rest of the session.

use crate::error::{Context, Error, Result};
use crate::mounts::{self, Mount};
use crate::session::Session;
use guestfs_api::Errno;
use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags, fstat, fsync, syncfs};
use rustix::io::Errno as Raw;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What has failed: the first error of each device, or filesystem without one, by its number.
#[derive(Debug, Default)]
pub(crate) struct Failed(BTreeMap<u64, Error>);

impl Failed {
    /// Takes note of how a flush ended, and yields how this one and all before it did.
    fn note(
        &mut self,
        number: u64,
        name: impl AsRef<OsStr>,
        flushed: rustix::io::Result<()>,
    ) -> Result<()> {
        if let Err(e) = flushed {
            self.0.entry(number).or_insert_with(|| {
                let errno = Errno::from_raw(e.raw_os_error());
                let why = "writing to the disk has failed in this session: what was written may be \
                           lost, and a later sync does not bring it back";
                Error::new(errno, format!("{}: {why}", errno.describe())).within(name)
            });
        }
        self.0.get(&number).map_or(Ok(()), |e| Err(e.clone()))
    }

    /// How all flushes of the session have ended.
    fn any(&self) -> Result<()> {
        self.0.values().next().map_or(Ok(()), |e| Err(e.clone()))
    }
}

/// Errors of what has nothing to flush, or is gone.
fn is_nothing(e: Raw) -> bool {
    [Raw::INVAL, Raw::NODEV, Raw::NOMEDIUM, Raw::NXIO, Raw::OPNOTSUPP, Raw::ROFS].contains(&e)
}

impl Session {
    /// Flushes a file or device.
    pub(crate) fn fsync(&mut self, file: &File, name: impl AsRef<OsStr>) -> Result<()> {
        let number = number_of(file).on(&name)?;
        self.failed_flushes().note(number, name, fsync(file))
    }

    /// Flushes the filesystem that this file is on.
    pub(crate) fn syncfs(&mut self, file: &File, name: impl AsRef<OsStr>) -> Result<()> {
        let number = fstat(file).on(&name)?.st_dev;
        self.failed_flushes().note(number, name, syncfs(file))
    }

    /// Flushes what is mounted in the sysroot there, and in directories below.
    pub(crate) fn flush_mounts(&mut self, at: &Path) -> Result<()> {
        // Some of the machine's own filesystems may never answer: they are left to sync(2).
        if self.serves_machine() {
            return Ok(());
        }
        let mut flushed = Ok(());
        for mount in mounts::below(self.sysroot())?.iter().filter(|m| m.at.starts_with(at)) {
            flushed = flushed.and(self.flush_mount(mount));
        }
        flushed
    }

    fn flush_mount(&mut self, mount: &Mount) -> Result<()> {
        let name = self.client_name(Path::new(&mount.source));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&mount.at, flags, Mode::empty());
        let root = File::from(root.map_err(|e| lost(e, &name))?);
        if rustix::fs::fstatvfs(&root).on(&name)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(());
        }
        self.syncfs(&root, name)
    }

    /// Flushes everything that the session can have written to.
    pub(crate) fn flush_all(&mut self) -> Result<()> {
        let mut flushed = self.flush_mounts(Path::new("/"));
        if !self.serves_machine() {
            for device in self.flushable() {
                flushed = flushed.and(self.flush_device(&device));
            }
        }
        // Everything else. sync(2) reports no errors.
        rustix::fs::sync();
        // Data of a filesystem that was unmounted since is lost as well.
        flushed.and(self.failed_flushes().any())
    }

    fn flushable(&mut self) -> Vec<PathBuf> {
        let mut found = crate::procedures::list_devices(self).unwrap_or_default();
        found.extend(crate::procedures::list_partitions(self).unwrap_or_default());
        found.extend(crate::procedures::list_md_devices(self).unwrap_or_default());
        found.extend(crate::dm::all().into_iter().map(|map| map.path()));
        found
    }

    fn flush_device(&mut self, path: &Path) -> Result<()> {
        let name = self.client_name(path);
        // One that is gone has nothing to be flushed.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(device) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(()) };
        let device = File::from(device);
        let number = number_of(&device).on(&name)?;
        let flushed = match fsync(&device) {
            Err(e) if is_nothing(e) => Ok(()),
            flushed => flushed,
        };
        self.failed_flushes().note(number, name, flushed)
    }
}

/// The error of a filesystem whose root cannot be opened: it may have shut itself down.
fn lost(e: Raw, name: &OsStr) -> Error {
    let errno = Errno::from_raw(e.raw_os_error());
    Error::new(errno, format!("{}: cannot be synced", errno.describe())).within(name)
}

/// The number of a device, or of the one that a file is on.
fn number_of(file: &File) -> rustix::io::Result<u64> {
    let stat = fstat(file)?;
    let is_device = FileType::from_raw_mode(stat.st_mode).is_block_device();
    Ok(if is_device { stat.st_rdev } else { stat.st_dev })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_once_fails_for_ever_and_nothing_else_does() {
        let mut failed = Failed::default();
        failed.note(1, "/dev/sda", Ok(())).unwrap();
        let e = failed.note(1, "/dev/sda", Err(Raw::IO)).unwrap_err();
        assert!(e.message().starts_with("/dev/sda: Input/output error: "), "{e}");
        failed.note(1, "/dev/sda", Err(Raw::NOSPC)).unwrap_err();
        assert_eq!(failed.note(1, "/dev/sda", Ok(())).unwrap_err(), e);
        failed.note(2, "/dev/sdb", Ok(())).unwrap();
    }
}
