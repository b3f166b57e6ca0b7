//! Where an archive's members go: made by name in directories that are resolved inside the sysroot.

use crate::error::{Context, Result};
use crate::paths::Entry;
use crate::tar::extract::{Extractor, Meta, inside, invalid};
use crate::tar::header::{DEVMAJOR, DEVMINOR, Header};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno as Raw;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A directory that was made, and what is set when nothing more is made in it.
pub(super) struct Made {
    fd: OwnedFd,
    /// Its member's path, ending in a slash unless it is empty.
    path: Vec<u8>,
    mode: Mode,
    times: Timestamps,
    shown: OsString,
}

impl Made {
    pub(super) fn complete(self) -> Result<()> {
        rustix::fs::fchmod(&self.fd, self.mode).on(&self.shown)?;
        rustix::fs::futimens(&self.fd, &self.times).on(&self.shown)
    }
}

impl Extractor<'_> {
    /// Sets what a file is, its content being complete.
    pub(super) fn complete(&self, file: &impl AsFd, meta: &Meta) -> Result<()> {
        let shown = &meta.shown;
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::fchown(file, Some(uid), Some(gid)).on(shown)?;
        rustix::fs::fchmod(file, meta.mode).on(shown)?;
        for (name, value) in &meta.xattrs {
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()).on(shown)?;
        }
        rustix::fs::futimens(file, &meta.times).on(shown)
    }

    /// The directory that a member is in, and its name there. Directories that are missing are made.
    fn place(&mut self, path: &[u8]) -> Result<(&OwnedFd, OsString)> {
        let end = path.iter().rposition(|&b| b != b'/').map_or(0, |i| i + 1);
        let begin = path[..end].iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        let (above, name) = (&path[..begin], &path[begin..end]);
        if self.last.as_ref().is_none_or(|(path, _)| path != above) {
            let fd = self.open_above(above)?;
            self.last = Some((above.to_vec(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok((fd, OsStr::from_bytes(name).to_owned())),
            None => Err(invalid("member without a place")),
        }
    }

    fn open_above(&self, above: &[u8]) -> Result<OwnedFd> {
        let full = [&self.base[..], above].concat();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = |path: &[u8]| self.root.open(OsStr::from_bytes(path), flags, Mode::empty());
        match open(&full) {
            Err(Raw::NOENT) => {}
            opened => return opened.on(OsStr::from_bytes(above)),
        }
        // From the top down, those that are missing.
        for (i, _) in above.iter().enumerate().filter(|(_, b)| **b == b'/') {
            let part = &full[..self.base.len() + i];
            let Entry { dir, name } =
                self.root.entry(OsStr::from_bytes(part)).on(OsStr::from_bytes(above))?;
            match rustix::fs::mkdirat(&dir, &*name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Raw::EXIST) => {}
                Err(e) => return Err(e).on(OsStr::from_bytes(above)),
            }
        }
        open(&full).on(OsStr::from_bytes(above))
    }

    /// Does something that needs the name to be free: if it is not, once more after what is there was removed.
    fn make<T>(
        &mut self,
        path: &[u8],
        shown: &OsStr,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let (dir, name) = self.place(path)?;
        match make(dir, &name) {
            Err(Raw::EXIST | Raw::LOOP) => {}
            made => return made.on(shown),
        }
        match rustix::fs::unlinkat(dir, &*name, AtFlags::empty()) {
            Err(Raw::ISDIR | Raw::PERM) => {
                rustix::fs::unlinkat(dir, &*name, AtFlags::REMOVEDIR).on(shown)?
            }
            removed => removed.on(shown)?,
        }
        let made = make(dir, &name).on(shown);
        // It may have been a directory on the way to the last member.
        self.last = None;
        made
    }

    pub(super) fn file(&mut self, path: &[u8], shown: &OsStr) -> Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody else's until it has its owner.
        let private = Mode::from_raw_mode(0o600);
        self.make(path, shown, |dir, name| rustix::fs::openat(dir, name, flags, private))
            .map(File::from)
    }

    pub(super) fn directory(&mut self, path: &[u8], meta: &Meta) -> Result<()> {
        let fd = if path.iter().all(|&b| b == b'/') {
            self.open_above(b"")?
        } else {
            let (dir, name) = self.place(path)?;
            match rustix::fs::mkdirat(dir, &*name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Raw::EXIST) => {}
                Err(e) => return Err(e).on(&meta.shown),
            }
            let stat = rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW).on(&meta.shown)?;
            let is_directory = |mode| FileType::from_raw_mode(mode).is_dir();
            if !is_directory(stat.st_mode) {
                let full = [&self.base[..], path].concat();
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let led_to = self.root.open(OsStr::from_bytes(&full), flags, Mode::empty());
                if self.options.keep_directory_links && led_to.is_ok() {
                    return Ok(());
                }
                let (dir, name) = self.place(path)?;
                rustix::fs::unlinkat(dir, &*name, AtFlags::empty()).on(&meta.shown)?;
                rustix::fs::mkdirat(dir, &*name, Mode::from_raw_mode(0o700)).on(&meta.shown)?;
                self.last = None;
            }
            let (dir, name) = self.place(path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, &*name, flags, Mode::empty()).on(&meta.shown)?
        };
        // O_PATH descriptors take no changes: the base directory is opened anew to be changed.
        let fd = rustix::fs::openat(
            &fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .on(&meta.shown)?;
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::fchown(&fd, Some(uid), Some(gid)).on(&meta.shown)?;
        for (name, value) in &meta.xattrs {
            rustix::fs::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty())
                .on(&meta.shown)?;
        }
        self.later(fd, path, meta)
    }

    /// Remembers a directory for the end. Descriptors are few: one that the archive has left, or else the one of
    /// longest ago, is closed, and what was to be set is set now, mode first.
    fn later(&mut self, fd: OwnedFd, path: &[u8], meta: &Meta) -> Result<()> {
        const OPEN: usize = 256;
        if self.directories.len() == OPEN {
            let left = self.directories.iter().position(|d| !path.starts_with(&d.path));
            self.directories.remove(left.unwrap_or(0)).complete()?;
        }
        let mut path = path.to_vec();
        if path.last().is_some_and(|b| *b != b'/') {
            path.push(b'/');
        }
        let (mode, times, shown) = (meta.mode, meta.times.clone(), meta.shown.clone());
        self.directories.push(Made { fd, path, mode, times, shown });
        Ok(())
    }

    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8], shown: &OsStr) -> Result<()> {
        let full = [&self.base[..], inside(target)].concat();
        let to = self.root.entry(OsStr::from_bytes(&full)).on(OsStr::from_bytes(target))?;
        let (dir, name) = self.place(path)?;
        // Twice the same name: removing it would lose the file.
        if let (Ok(a), Ok(b)) =
            (to.lstat(), rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW))
            && (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
        {
            return Ok(());
        }
        self.make(path, shown, |dir, name| {
            rustix::fs::linkat(&to.dir, &*to.name, dir, name, AtFlags::empty())
        })
    }

    pub(super) fn symbolic_link(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<()> {
        let shown = meta.shown.clone();
        self.make(path, &shown, |dir, name| rustix::fs::symlinkat(target, dir, name))?;
        self.set_by_name(path, meta, false)?;
        // A directory that was reached through another name may be reached through this one now.
        self.last = None;
        Ok(())
    }

    pub(super) fn node(
        &mut self,
        path: &[u8],
        kind: u8,
        header: &Header,
        meta: &Meta,
    ) -> Result<()> {
        let kind = match kind {
            b'3' => FileType::CharacterDevice,
            b'4' => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let part =
            |field| u32::try_from(header.number(field).unwrap_or(0)).map_err(|_| invalid("device"));
        let device = match kind {
            FileType::Fifo => 0,
            _ => rustix::fs::makedev(part(DEVMAJOR)?, part(DEVMINOR)?),
        };
        let shown = meta.shown.clone();
        self.make(path, &shown, |dir, name| {
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        self.set_by_name(path, meta, true)
    }

    /// Sets what a link, a node or a FIFO is, which cannot be opened.
    fn set_by_name(&mut self, path: &[u8], meta: &Meta, mode: bool) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(dir, &*name, Some(uid), Some(gid), nofollow).on(&meta.shown)?;
        if mode {
            // Just made by us, and no link.
            rustix::fs::chmodat(dir, &*name, meta.mode, AtFlags::empty()).on(&meta.shown)?;
        }
        rustix::fs::utimensat(dir, &*name, &meta.times, nofollow).on(&meta.shown)
    }
}
