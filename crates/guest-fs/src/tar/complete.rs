// SPDX-License-Identifier: Apache-2.0
//! What a file that has been made is given: its content, owner, mode, attributes and times.

use crate::tar::member::Meta;
use crate::xattr;
use guest_error::{Context, Result};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno as Raw;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// Whom a member is to belong to.
pub(super) fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

/// Owners, on a filesystem that may have none.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Set when it turned out to have none.
    absent: Cell<bool>,
}

impl Owners {
    /// What came of setting a member's owner, and the mode that it gets: if it is not permitted, though nothing
    /// protects the file, the filesystem has no owners (FAT), and goes without. What would run as its owner must
    /// not run as another.
    pub(super) fn set(&self, done: rustix::io::Result<()>, meta: &Meta) -> (Result<()>, Mode) {
        let as_nobody = meta.mode - (Mode::SUID | Mode::SGID);
        match done {
            Ok(()) if !self.absent.get() => (Ok(()), meta.mode),
            Ok(()) => (Ok(()), as_nobody),
            Err(Raw::PERM) => {
                if !self.absent.replace(true) {
                    tracing::warn!("the filesystem has no owners");
                }
                (Ok(()), as_nobody)
            }
            done => (done.on(&meta.shown), as_nobody),
        }
    }
}

/// Sets what a file is, its content being complete. What it is already is not set again: on a journalling
/// filesystem, that costs about as much as a small file's content.
pub(super) fn complete(file: &File, meta: &Meta, owners: &Owners) -> Result<()> {
    let shown = &meta.shown;
    let there = rustix::fs::fstat(file).on(shown)?;
    let is_owned = (there.st_uid, there.st_gid) == (meta.uid, meta.gid);
    let (uid, gid) = owner(meta);
    let set = if is_owned { Ok(()) } else { rustix::fs::fchown(file, uid, gid) };
    let (owner, wanted) = owners.set(set, meta);
    // A new owner may have cleared bits.
    let mode = if is_owned && Mode::from_raw_mode(there.st_mode) == wanted {
        Ok(())
    } else {
        rustix::fs::fchmod(file, wanted).on(shown)
    };
    let xattrs = set_xattrs(file.as_fd(), meta);
    let times = rustix::fs::futimens(file, &meta.times).on(shown);
    owner.and(mode).and(xattrs).and(times)
}

/// Sets attributes; a filesystem that has none (FAT) goes without, as it does without owners.
pub(super) fn set_xattrs(fd: BorrowedFd<'_>, meta: &Meta) -> Result<()> {
    for (name, value) in &meta.xattrs {
        match xattr::set(fd, OsStr::from_bytes(name), value) {
            Err(Raw::OPNOTSUPP) => tracing::warn!(file = ?meta.shown, ?name, "attribute left out"),
            done => done.on(&meta.shown)?,
        }
    }
    Ok(())
}

/// Writes all of these bytes.
pub(super) fn write_all(file: &File, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Raw::IO),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Raw::INTR) if !crate::interrupt::requested() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Attributes;
    use crate::tar::extra::Extra;
    use crate::tar::header::{BLOCK, Header};
    use crate::tar::member::Common;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    #[test]
    fn a_file_gets_its_mode_and_owner_whatever_it_had_before() {
        let common = Common::new(Attributes::default());
        let mut meta = common.meta(&Header([0; BLOCK]), &Extra::default(), b"file").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let is_root = rustix::process::geteuid().is_root();
        let own = std::fs::metadata(dir.path()).unwrap();
        let owners = [(own.uid(), own.gid()), (own.uid(), 5678), (1234, own.gid()), (1234, 5678)];
        for made in [0o600, 0o644, 0o444, 0] {
            for mode in [0o600, 0o644, 0o444, 0, 0o4755, 0o2711, 0o1777] {
                // Others than root cannot give files away: they go without.
                for (uid, gid) in &owners[..if is_root { 4 } else { 1 }] {
                    let mut options = File::options();
                    options.write(true).create_new(true).mode(made);
                    let file = options.open(&path).unwrap();
                    (meta.uid, meta.gid, meta.mode) = (*uid, *gid, Mode::from_raw_mode(mode));
                    complete(&file, &meta, &Owners::default()).unwrap();
                    let got = file.metadata().unwrap();
                    let got = (got.uid(), got.gid(), got.mode() & 0o7777);
                    assert_eq!(got, (*uid, *gid, mode), "{made:o}");
                    std::fs::remove_file(&path).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_would_run_as_its_owner_does_not_where_there_are_no_owners() {
        let common = Common::new(Attributes::default());
        let mut meta = common.meta(&Header([0; BLOCK]), &Extra::default(), b"file").unwrap();
        meta.mode = Mode::from_raw_mode(0o6755);
        let owners = Owners::default();
        let of = |done| {
            let (done, mode) = owners.set(done, &meta);
            (done.is_ok(), mode.as_raw_mode())
        };
        assert_eq!(of(Ok(())), (true, 0o6755));
        assert_eq!(of(Err(Raw::INVAL)), (false, 0o755));
        assert_eq!(of(Ok(())), (true, 0o6755));
        assert_eq!(of(Err(Raw::PERM)), (true, 0o755));
        // FAT takes its mount's owner, but no such modes.
        assert_eq!(of(Ok(())), (true, 0o755));
    }
}
