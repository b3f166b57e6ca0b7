// SPDX-License-Identifier: Apache-2.0
//! Where an archive's members go: made by name in directories that are resolved inside the sysroot.

use crate::paths::{Entry, Root};
use crate::tar::complete::{Owners, complete, owner, set_xattrs};
use crate::tar::directories::Directories;
use crate::tar::fault::{Failures, invalid};
use crate::tar::header::{DEVMAJOR, DEVMINOR, Header};
use crate::tar::member::{Meta, inside};
use guest_error::{Context, Result};
use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno as Raw;
use rustix::process::{getegid, geteuid};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The mode of what is nobody else's yet.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A directory that members are made in.
struct Open {
    /// As the archive has it.
    path: Vec<u8>,
    fd: OwnedFd,
    gid: u32,
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
    directories: Directories,
    /// Links that may lead out of the directory, by what stands in their places until the end.
    links: HashMap<(u64, u64), Link>,
    /// The directory in which the last member was made.
    last: Option<Open>,
    /// Members that failed.
    pub(super) failures: Failures,
    owners: Owners,
    /// Whom new files belong to, unless their directory says otherwise.
    creator: (u32, u32),
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
            directories: Directories::default(),
            links: HashMap::new(),
            last: None,
            failures: Failures::default(),
            owners: Owners::default(),
            creator: (geteuid().as_raw(), getegid().as_raw()),
        }
    }

    /// No member follows, `ended` being why: sets what was left to the end, and yields the first error.
    pub(super) fn finish(mut self, ended: Result<()>) -> Result<()> {
        let linked = self.make_links();
        ended.and(linked)?;
        self.directories.finish(&mut self.failures)?;
        self.failures.result()
    }

    /// Sets what a file is, its content being complete.
    pub(super) fn complete(&mut self, file: &File, meta: &Meta) -> Result<()> {
        self.failures.defer(complete(file, meta, &self.owners))
    }

    /// The directory that a member is in, and its name there. Directories that are missing are made.
    fn place(&mut self, path: &[u8]) -> Result<(&OwnedFd, OsString)> {
        let end = path.iter().rposition(|&b| b != b'/').map_or(0, |i| i + 1);
        let begin = path[..end].iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        let (above, name) = (&path[..begin], &path[begin..end]);
        if self.last.as_ref().is_none_or(|last| last.path != above) {
            let fd = self.open_above(above)?;
            let gid = rustix::fs::fstat(&fd).on(OsStr::from_bytes(above))?.st_gid;
            self.last = Some(Open { path: above.to_vec(), fd, gid });
        }
        match &self.last {
            Some(last) => Ok((&last.fd, OsStr::from_bytes(name).to_owned())),
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

    pub(super) fn file(&mut self, path: &[u8], meta: &Meta) -> Result<File> {
        let mode = self.first_mode(path, meta)?;
        self.new_file(path, &meta.shown, mode)
    }

    /// The mode that a file is made with: the permissions that it is to have if it is its owner's from the
    /// beginning; otherwise it is nobody else's until it has its owner.
    fn first_mode(&mut self, path: &[u8], meta: &Meta) -> Result<Mode> {
        // Access control lists may take back what the mode gives.
        if (meta.uid, meta.gid) != self.creator || !meta.xattrs.is_empty() {
            return Ok(PRIVATE);
        }
        self.place(path)?;
        // Its group is its creator's or, by a flag or a mount option, its directory's.
        let is_group = self.last.as_ref().is_some_and(|last| last.gid == meta.gid);
        Ok(if is_group { meta.mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO) } else { PRIVATE })
    }

    fn new_file(&mut self, path: &[u8], shown: &OsStr, mode: Mode) -> Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.make(path, shown, |dir, name| rustix::fs::openat(dir, name, flags, mode))
            .map(File::from)
    }

    pub(super) fn directory(&mut self, path: &[u8], meta: &Meta) -> Result<()> {
        let fd = if path.iter().all(|&b| b == b'/') {
            // Its group may change.
            self.last = None;
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
        let (owner, mode) = match rustix::fs::fchown(&fd, uid, gid) {
            // It may have been there before, and protected.
            Err(Raw::PERM) if is_protected(&fd) => (Err(Raw::PERM).on(&meta.shown), meta.mode),
            done => self.owners.set(done, meta),
        };
        let xattrs = set_xattrs(fd.as_fd(), meta);
        self.directories.add(fd, path, mode, meta, &mut self.failures)?;
        owner.and(xattrs)
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
            let file = self.new_file(path, &meta.shown, PRIVATE)?;
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
        let (owner, mode) = self.owners.set(done, meta);
        owner?;
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

/// Whether a flag of the inode keeps everybody from changing it.
fn is_protected(fd: &OwnedFd) -> bool {
    let flags = IFlags::IMMUTABLE | IFlags::APPEND;
    rustix::fs::ioctl_getflags(fd).is_ok_and(|set| set.intersects(flags))
}
