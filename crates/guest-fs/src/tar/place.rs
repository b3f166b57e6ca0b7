// SPDX-License-Identifier: Apache-2.0
//! Where an archive's members go: made by name in directories that are resolved inside the sysroot.

use crate::paths::{Entry, Root};
use crate::tar::fault::{Failures, invalid};
use crate::tar::header::{DEVMAJOR, DEVMINOR, Header};
use crate::tar::member::{Meta, inside};
use crate::xattr;
use guest_error::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno as Raw;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A directory that was made, and what is set when nothing more is made in it.
struct Made {
    fd: OwnedFd,
    /// Its member's path, ending in a slash unless it is empty.
    path: Vec<u8>,
    mode: Mode,
    times: Timestamps,
    shown: OsString,
}

impl Made {
    fn complete(self) -> Result<()> {
        let mode = rustix::fs::fchmod(&self.fd, self.mode).on(&self.shown);
        mode.and(rustix::fs::futimens(&self.fd, &self.times).on(&self.shown))
    }
}

/// A symbolic link that is made at the end.
struct Link {
    /// Names that it is to have, one unless the archive has hard links to it.
    paths: Vec<Vec<u8>>,
    target: Vec<u8>,
    meta: Meta,
}

/// Makes members in a directory.
pub(super) struct Placer<'r> {
    root: &'r Root,
    /// Path of the directory in the guest, ending in a slash.
    base: Vec<u8>,
    keep_directory_links: bool,
    /// Directories whose modes and times are to be set at the end.
    directories: Vec<Made>,
    /// Links that may lead out of the directory, by what stands in their places until the end.
    links: HashMap<(u64, u64), Link>,
    /// The directory in which the last member was made, with its path.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Members that failed.
    pub(super) failures: Failures,
    /// Cleared when the filesystem turns out to have no owners.
    has_owners: bool,
}

impl<'r> Placer<'r> {
    /// Makes them in this directory of the guest.
    pub(super) fn new(root: &'r Root, directory: &[u8], keep_directory_links: bool) -> Self {
        let mut base = directory.to_vec();
        base.push(b'/');
        Self {
            root,
            base,
            keep_directory_links,
            directories: Vec::new(),
            links: HashMap::new(),
            last: None,
            failures: Failures::default(),
            has_owners: true,
        }
    }

    /// No member follows, `ended` being why: sets what was left to the end, and yields the first error.
    pub(super) fn finish(mut self, ended: Result<()>) -> Result<()> {
        let linked = self.make_links();
        ended.and(linked)?;
        // Those inside first: setting times does not change what is above.
        while let Some(directory) = self.directories.pop() {
            self.failures.defer(directory.complete())?;
        }
        self.failures.result()
    }

    /// Sets what a file is, its content being complete.
    pub(super) fn complete(&mut self, file: &impl AsFd, meta: &Meta) -> Result<()> {
        let shown = &meta.shown;
        let (uid, gid) = owner(meta);
        let owner = self.owner_set(rustix::fs::fchown(file, uid, gid), meta);
        let mode = rustix::fs::fchmod(file, self.mode(meta)).on(shown);
        let xattrs = set_xattrs(file.as_fd(), meta);
        let times = rustix::fs::futimens(file, &meta.times).on(shown);
        self.failures.defer(owner.and(mode).and(xattrs).and(times))
    }

    /// What came of setting an owner: if it is not permitted, though nothing protects the file, the filesystem has
    /// no owners (FAT), and goes without.
    fn owner_set(&mut self, done: rustix::io::Result<()>, meta: &Meta) -> Result<()> {
        match done {
            Err(Raw::PERM) => {
                if std::mem::replace(&mut self.has_owners, false) {
                    tracing::warn!("the filesystem has no owners");
                }
                Ok(())
            }
            done => done.on(&meta.shown),
        }
    }

    /// The mode that it gets. What would run as an owner must not run as another.
    fn mode(&self, meta: &Meta) -> Mode {
        let as_owner = Mode::SUID | Mode::SGID;
        if self.has_owners { meta.mode } else { meta.mode - as_owner }
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

    /// Does something that needs the name to be free: if it is not, again after what is there was removed.
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
        let there = rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW).on(shown)?;
        match rustix::fs::unlinkat(dir, &*name, AtFlags::empty()) {
            Err(Raw::ISDIR | Raw::PERM) => {
                rustix::fs::unlinkat(dir, &*name, AtFlags::REMOVEDIR).on(shown)?
            }
            removed => removed.on(shown)?,
        }
        let made = make(dir, &name).on(shown);
        self.replaced(&there);
        made
    }

    /// Something that was there has been removed.
    fn replaced(&mut self, stat: &Stat) {
        // It may have been a directory on the way to the last member.
        self.last = None;
        // If it stood for a link under its last name, its number may be another file's now.
        if stat.st_nlink < 2 {
            self.links.remove(&(stat.st_dev, stat.st_ino));
        }
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
                if self.keep_directory_links && led_to.is_ok() {
                    return Ok(());
                }
                let (dir, name) = self.place(path)?;
                rustix::fs::unlinkat(dir, &*name, AtFlags::empty()).on(&meta.shown)?;
                rustix::fs::mkdirat(dir, &*name, Mode::from_raw_mode(0o700)).on(&meta.shown)?;
                self.replaced(&stat);
            }
            let (dir, name) = self.place(path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, &*name, flags, Mode::empty()).on(&meta.shown)?
        };
        // O_PATH descriptors take no changes: the base directory is opened again to be changed.
        let fd = rustix::fs::openat(
            &fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .on(&meta.shown)?;
        let (uid, gid) = owner(meta);
        let owner = match rustix::fs::fchown(&fd, uid, gid) {
            // It may have been there before, and protected.
            Err(Raw::PERM) if is_protected(&fd) => Err(Raw::PERM).on(&meta.shown),
            done => self.owner_set(done, meta),
        };
        let xattrs = set_xattrs(fd.as_fd(), meta);
        self.later(fd, path, meta)?;
        owner.and(xattrs)
    }

    /// Remembers a directory for the end. Descriptors are few: one that the archive has left, or else the one of
    /// longest ago, is closed, and what was to be set is set now, mode first.
    fn later(&mut self, fd: OwnedFd, path: &[u8], meta: &Meta) -> Result<()> {
        const OPEN: usize = 256;
        if self.directories.len() == OPEN {
            let left = self.directories.iter().position(|d| !path.starts_with(&d.path));
            let completed = self.directories.remove(left.unwrap_or(0)).complete();
            self.failures.defer(completed)?;
        }
        let mut path = path.to_vec();
        if path.last().is_some_and(|b| *b != b'/') {
            path.push(b'/');
        }
        let (mode, times, shown) = (self.mode(meta), meta.times.clone(), meta.shown.clone());
        self.directories.push(Made { fd, path, mode, times, shown });
        Ok(())
    }

    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8], shown: &OsStr) -> Result<()> {
        let full = [&self.base[..], inside(target)].concat();
        let to = self.root.entry(OsStr::from_bytes(&full)).on(OsStr::from_bytes(target))?;
        let stat = to.lstat().on(OsStr::from_bytes(target))?;
        let file = (stat.st_dev, stat.st_ino);
        let (dir, name) = self.place(path)?;
        // Twice the same name: removing it would lose the file.
        if let Ok(there) = rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == file
        {
            return Ok(());
        }
        self.make(path, shown, |dir, name| {
            rustix::fs::linkat(&to.dir, &*to.name, dir, name, AtFlags::empty())
        })?;
        if let Some(link) = self.links.get_mut(&file) {
            link.paths.push(path.to_vec());
        }
        Ok(())
    }

    pub(super) fn symbolic_link(&mut self, path: &[u8], target: &[u8], meta: Meta) -> Result<()> {
        let leads_out = target.first() == Some(&b'/')
            || target.split(|&b| b == b'/').any(|component| component == b"..");
        if leads_out {
            let file = self.file(path, &meta.shown)?;
            let stat = rustix::fs::fstat(&file).on(&meta.shown)?;
            let link = Link { paths: vec![path.to_vec()], target: target.to_vec(), meta };
            self.links.insert((stat.st_dev, stat.st_ino), link);
            return Ok(());
        }
        self.make(path, &meta.shown, |dir, name| rustix::fs::symlinkat(target, dir, name))?;
        // A directory that was reached through another name may be reached through this one now.
        self.last = None;
        self.set_by_name(path, &meta, false)
    }

    /// Makes the links that were left to the end, in the places that are still theirs.
    fn make_links(&mut self) -> Result<()> {
        let mut done = Ok(());
        for (file, link) in std::mem::take(&mut self.links) {
            let made = self.make_link(file, &link);
            done = done.and(self.failures.defer(made));
        }
        done
    }

    fn make_link(&mut self, file: (u64, u64), link: &Link) -> Result<()> {
        let shown = &link.meta.shown;
        let mut first: Option<Entry> = None;
        for path in &link.paths {
            // An earlier link may lead elsewhere now.
            self.last = None;
            let (dir, name) = self.place(path)?;
            match rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if (there.st_dev, there.st_ino) == file => {}
                _ => continue,
            }
            let above = rustix::fs::statat(dir, c".", AtFlags::empty()).on(shown)?;
            rustix::fs::unlinkat(dir, &*name, AtFlags::empty()).on(shown)?;
            match &first {
                None => rustix::fs::symlinkat(&*link.target, dir, &*name).on(shown)?,
                Some(to) => {
                    rustix::fs::linkat(&to.dir, &*to.name, dir, &*name, AtFlags::empty())
                        .on(shown)?;
                }
            }
            // The directory may have its times already.
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec {
                    tv_sec: above.st_mtime,
                    tv_nsec: above.st_mtime_nsec.cast_signed(),
                },
            };
            rustix::fs::utimensat(dir, c".", &times, AtFlags::empty()).on(shown)?;
            if first.is_none() {
                let dir = rustix::io::fcntl_dupfd_cloexec(dir, 0).on(shown)?;
                first = Some(Entry { dir, name });
                self.set_by_name(path, &link.meta, false)?;
            }
        }
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
    fn set_by_name(&mut self, path: &[u8], meta: &Meta, has_mode: bool) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = owner(meta);
        let done = rustix::fs::chownat(dir, &*name, uid, gid, nofollow);
        self.owner_set(done, meta)?;
        let mode = self.mode(meta);
        let (dir, _) = self.place(path)?;
        if has_mode {
            // Just made by us, and no link.
            rustix::fs::chmodat(dir, &*name, mode, AtFlags::empty()).on(&meta.shown)?;
        }
        if !meta.xattrs.is_empty() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, &*name, flags, Mode::empty()).on(&meta.shown)?;
            set_xattrs(fd.as_fd(), meta)?;
        }
        rustix::fs::utimensat(dir, &*name, &meta.times, nofollow).on(&meta.shown)
    }
}

/// Whom a member is to belong to.
fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

/// Whether a flag of the inode keeps everybody from changing it.
fn is_protected(fd: &OwnedFd) -> bool {
    let flags = IFlags::IMMUTABLE | IFlags::APPEND;
    rustix::fs::ioctl_getflags(fd).is_ok_and(|set| set.intersects(flags))
}

/// Sets attributes; a filesystem that has none (FAT) goes without, as it does without owners.
fn set_xattrs(fd: BorrowedFd<'_>, meta: &Meta) -> Result<()> {
    for (name, value) in &meta.xattrs {
        match xattr::set(fd, OsStr::from_bytes(name), value) {
            Err(Raw::OPNOTSUPP) => tracing::warn!(file = ?meta.shown, ?name, "attribute left out"),
            done => done.on(&meta.shown)?,
        }
    }
    Ok(())
}
