// SPDX-License-Identifier: Apache-2.0
//! Getting what was written onto the disks, and remembering when that failed.
//!
//! The kernel reports a failed write once. After that the pages are clean, and the next sync succeeds although
//! the data is lost. All flushing is therefore done here: a filesystem or device that has failed once keeps
//! failing for the rest of the session.

use crate::block;
use crate::devices::Devices;
use crate::listing;
use crate::mounts::{self, Mount};
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::Sysroot;
use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags, fstat, fsync, syncfs};
use rustix::io::Errno as Raw;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

/// Flushing; kept is what has failed: the first error of each device, or filesystem without one, by its number.
#[derive(Debug, Default)]
pub(crate) struct Flushes(BTreeMap<u64, Error>);

impl Flushes {
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

    /// Flushes a file or device.
    pub(crate) fn fsync(&mut self, file: &File, name: impl AsRef<OsStr>) -> Result<()> {
        let number = number_of(file).on(&name)?;
        self.note(number, name, fsync(file))
    }

    /// Flushes the filesystem that this file is on.
    pub(crate) fn syncfs(&mut self, file: &File, name: impl AsRef<OsStr>) -> Result<()> {
        let number = fstat(file).on(&name)?.st_dev;
        self.note(number, name, syncfs(file))
    }

    /// Flushes what is mounted in the sysroot there, and in directories below.
    pub(crate) fn mounts(
        &mut self,
        sysroot: &Sysroot,
        devices: &mut Devices,
        at: &Path,
    ) -> Result<()> {
        let mut flushed = Ok(());
        for mount in mounts::below(sysroot)?.iter().filter(|m| m.at.starts_with(at)) {
            let name = devices.to_client(Path::new(&mount.source));
            flushed = flushed.and(self.mount(mount, name));
        }
        flushed
    }

    fn mount(&mut self, mount: &Mount, name: OsString) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&mount.at, flags, Mode::empty());
        let root = File::from(root.map_err(|e| lost(e, &name))?);
        if rustix::fs::fstatvfs(&root).on(&name)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(());
        }
        self.syncfs(&root, name)
    }

    /// Flushes all devices, whether anything is mounted from them or not.
    pub(crate) fn devices(&mut self, devices: &mut Devices) -> Result<()> {
        let mut flushed = Ok(());
        for path in listing::all(devices) {
            let name = devices.to_client(&path);
            flushed = flushed.and(self.device(&path, name));
        }
        flushed
    }

    fn device(&mut self, path: &Path, name: OsString) -> Result<()> {
        // One that is gone has nothing to be flushed.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(device) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(()) };
        let device = File::from(device);
        // An array that does not run has no size, and fails whatever is asked of it.
        if block::size(&device).is_ok_and(|size| size == 0) {
            return Ok(());
        }
        let number = number_of(&device).on(&name)?;
        let flushed = match fsync(&device) {
            Err(e) if is_nothing(e) => Ok(()),
            flushed => flushed,
        };
        self.note(number, name, flushed)
    }

    /// How all flushes of the session have ended.
    pub(crate) fn any(&self) -> Result<()> {
        self.0.values().next().map_or(Ok(()), |e| Err(e.clone()))
    }
}

/// Errors of what has nothing to flush, or is gone.
fn is_nothing(e: Raw) -> bool {
    [Raw::INVAL, Raw::NODEV, Raw::NOMEDIUM, Raw::NXIO, Raw::OPNOTSUPP, Raw::ROFS].contains(&e)
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
        let mut failed = Flushes::default();
        failed.note(1, "/dev/sda", Ok(())).unwrap();
        let e = failed.note(1, "/dev/sda", Err(Raw::IO)).unwrap_err();
        assert!(e.message().starts_with("/dev/sda: Input/output error: "), "{e}");
        failed.note(1, "/dev/sda", Err(Raw::NOSPC)).unwrap_err();
        assert_eq!(failed.note(1, "/dev/sda", Ok(())).unwrap_err(), e);
        failed.note(2, "/dev/sdb", Ok(())).unwrap();
    }
}
