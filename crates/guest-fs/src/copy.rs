// SPDX-License-Identifier: Apache-2.0
//! Copies of files and trees of the guest, made by descriptor: as cp(1) makes them, but no link of the guest leads
//! out of it, wherever it lies in source or target.

pub(crate) mod attributes;
mod contents;
mod fault;

use crate::paths::{Entry, Root, Sysroot, path_of};
use crate::tree::{Step, Walk, Way};
use attributes::times;
pub use fault::Names;
use fault::{At, Copied, Fault, Side};
use guest_error::{Errno, Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno as Raw;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A name, opened for its place only.
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// For reading, without waiting if it is no longer a file.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Where names of files that are copied are looked up, and how they are copied.
pub struct Copier<'s> {
    root: &'s Root,
    sysroot: &'s Sysroot,
    names: Names,
    /// Owners, modes, times, links and attributes too.
    preserve: bool,
    /// Path in the target of each file with several names that has been copied.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// The first error: the rest is copied anyway.
    failed: Option<Error>,
}

/// Directories of the target that are being filled.
struct Target {
    /// Where paths of links begin.
    top: OwnedFd,
    way: Way,
    levels: Vec<Level>,
}

/// One of them.
struct Level {
    /// Of the directory that is copied.
    stat: Stat,
    /// It was made, and is not one that was there.
    made: bool,
}

impl<'s> Copier<'s> {
    /// Copies in this sysroot.
    pub fn new(root: &'s Root, sysroot: &'s Sysroot, names: Names, preserve: bool) -> Self {
        Self { root, sysroot, names, preserve, links: HashMap::new(), failed: None }
    }

    /// Copies what is at `from`, with everything below it, to `to`.
    pub fn tree(mut self, from: &Entry, to: &Entry) -> Result<()> {
        let done = self.tree_or_fault(from, to).map_err(|fault| self.names.name(fault, b""));
        done.and(self.failed.map_or(Ok(()), Err))
    }

    fn tree_or_fault(&mut self, from: &Entry, to: &Entry) -> Copied<()> {
        let stat = from.lstat().at(Side::Source)?;
        let (name, target) = (from.name.as_os_str(), to.name.as_os_str());
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            let to = to.dir.as_fd();
            return self.leaf(from.dir.as_fd(), name, &stat, to, target, target.as_bytes());
        }
        self.refuse_into_itself(&stat, to)?;
        let source = rustix::fs::openat(&from.dir, name, READ | OFlags::DIRECTORY, Mode::empty());
        let mut walk = Walk::new(&source.at(Side::Source)?).at(Side::Source)?;
        let (top, level) = self.directory(to.dir.as_fd(), target, stat).at(Side::Target)?;
        let way = Way::new(rustix::io::fcntl_dupfd_cloexec(&top, 0).at(Side::Target)?);
        let mut copy = Target { top, way, levels: vec![level] };
        while let Some(step) = walk.step().at(Side::Source)? {
            let path = walk.path().to_vec();
            let done = match step {
                Step::Left => {
                    let done = match walk.dir().at(Side::Source) {
                        Ok(above) => self.leave(&mut copy, above, walk.name()),
                        Err(fault) => Err(fault),
                    };
                    copy.way.up().at(Side::Target)?;
                    done
                }
                Step::Found => self.found(&mut walk, &mut copy),
            };
            if let Err(fault) = done {
                let e = self.names.name(fault, &path);
                self.failed.get_or_insert(e);
            }
            if crate::interrupt::requested() {
                return Err(Fault::new(Side::Both, Errno::EINTR, "the daemon was told to end"));
            }
        }
        self.leave(&mut copy, from.dir.as_fd(), name)
    }

    fn found(&mut self, walk: &mut Walk, copy: &mut Target) -> Copied<()> {
        let target = copy.way.here().at(Side::Target)?;
        let stat = walk.stat().at(Side::Source)?;
        let name = walk.name().to_owned();
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let (next, level) = self.directory(target, &name, stat).at(Side::Target)?;
            walk.enter().at(Side::Source)?;
            copy.way.down(next, |_, _| true);
            copy.levels.push(level);
            return Ok(());
        }
        let path = walk.path().to_vec();
        let several = self.preserve && stat.st_nlink > 1;
        if several && self.link(&stat, copy.top.as_fd(), target, &name).at(Side::Target)? {
            return Ok(());
        }
        self.leaf(walk.dir().at(Side::Source)?, &name, &stat, target, &name, &path)
    }

    /// A directory is complete: now its own attributes.
    fn leave(&mut self, copy: &mut Target, above: BorrowedFd<'_>, name: &OsStr) -> Copied<()> {
        let Some(level) = copy.levels.pop() else { return Ok(()) };
        let fd = copy.way.here().at(Side::Target)?;
        if self.preserve {
            let source = rustix::fs::openat(above, name, PLACE, Mode::empty()).at(Side::Source)?;
            attributes::copy(source.as_fd(), fd, &level.stat)?;
            return rustix::fs::futimens(fd, &times(&level.stat)).at(Side::Target);
        }
        if level.made {
            let mode = Mode::from_raw_mode(level.stat.st_mode & 0o777 & !umask());
            rustix::fs::fchmod(fd, mode).at(Side::Target)?;
        }
        Ok(())
    }

    /// Makes a directory, or takes the one that is there.
    fn directory(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stat: Stat,
    ) -> rustix::io::Result<(OwnedFd, Level)> {
        // Until it is complete, only for us.
        let made = match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Raw::EXIST) => false,
            Err(e) => return Err(e),
        };
        match rustix::fs::openat(dir, name, READ | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok((fd, Level { stat, made })),
            // Never through a link.
            Err(Raw::LOOP) => Err(Raw::NOTDIR),
            Err(e) => Err(e),
        }
    }

    /// Copies anything but a directory.
    fn leaf(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        to: BorrowedFd<'_>,
        target: &OsStr,
        path: &[u8],
    ) -> Copied<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.preserve && stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        if kind.is_file() {
            let source = rustix::fs::openat(from, name, READ, Mode::empty()).at(Side::Source)?;
            return self.open_file(&File::from(source), to, target);
        }
        self.refuse_same(stat, to, target)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        match kind {
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(from, name, Vec::new()).at(Side::Source)?;
                replacing(to, target, || rustix::fs::symlinkat(&text, to, target))
                    .at(Side::Target)?;
            }
            kind => {
                let make = || rustix::fs::mknodat(to, target, kind, mode, stat.st_rdev);
                replacing(to, target, make).at(Side::Target)?;
            }
        }
        if self.preserve {
            let source = rustix::fs::openat(from, name, PLACE, Mode::empty()).at(Side::Source)?;
            let copy = rustix::fs::openat(to, target, PLACE, Mode::empty()).at(Side::Target)?;
            attributes::copy(source.as_fd(), copy.as_fd(), stat)?;
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(to, target, &times(stat), nofollow).at(Side::Target)?;
        }
        Ok(())
    }

    /// Copies a file that is open, or what is left to read of a device.
    pub fn file(&self, source: &File, to: BorrowedFd<'_>, target: &OsStr) -> Result<()> {
        self.open_file(source, to, target).map_err(|fault| self.names.name(fault, b""))
    }

    fn open_file(&self, source: &File, to: BorrowedFd<'_>, target: &OsStr) -> Copied<()> {
        let stat = rustix::fs::fstat(source).at(Side::Source)?;
        let copy = self.create(&stat, to, target)?;
        contents::copy(source, &copy, &stat)?;
        if self.preserve {
            attributes::copy(source.as_fd(), copy.as_fd(), &stat)?;
            rustix::fs::futimens(&copy, &times(&stat)).at(Side::Target)?;
        }
        Ok(())
    }

    /// Opens the target: one that is made, or what is there, through a link if it is one.
    fn create(&self, stat: &Stat, to: BorrowedFd<'_>, target: &OsStr) -> Copied<File> {
        let bits = if self.preserve { 0o600 } else { stat.st_mode & 0o777 };
        let write = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let new = write | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        match rustix::fs::openat(to, target, new, Mode::from_raw_mode(bits)) {
            Ok(fd) => return Ok(File::from(fd)),
            Err(Raw::EXIST) => {}
            Err(e) => return Err(e).at(Side::Target),
        }
        self.refuse_same(stat, to, target)?;
        let copy = match rustix::fs::openat(to, target, write | OFlags::NOFOLLOW, Mode::empty()) {
            // Where the link leads inside the sysroot; what is not there is not made.
            Err(Raw::LOOP) => {
                let here = path_of(to).at(Side::Target)?;
                let mut path = self.sysroot.client_path(&here);
                path.push("/");
                path.push(target);
                self.root.open(&path, write, Mode::empty()).at(Side::Target)?
            }
            copy => copy.at(Side::Target)?,
        };
        let there = rustix::fs::fstat(&copy).at(Side::Target)?;
        if same(stat, &there) {
            return Err(same_file());
        }
        if FileType::from_raw_mode(there.st_mode).is_file() {
            rustix::fs::ftruncate(&copy, 0).at(Side::Target)?;
        }
        Ok(File::from(copy))
    }

    /// A file that has been copied under another name becomes a link to that copy.
    fn link(
        &self,
        stat: &Stat,
        top: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        target: &OsStr,
    ) -> rustix::io::Result<bool> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else { return Ok(false) };
        // Component by component: nothing in the target may lead elsewhere.
        let mut dir = rustix::io::fcntl_dupfd_cloexec(top, 0)?;
        let mut components = first.split(|&b| b == b'/').peekable();
        while let Some(name) = components.next() {
            if components.peek().is_none() {
                let make = || rustix::fs::linkat(&dir, name, to, target, AtFlags::empty());
                return replacing(to, target, make).map(|()| true);
            }
            dir = rustix::fs::openat(&dir, name, PLACE | OFlags::DIRECTORY, Mode::empty())?;
        }
        Ok(false)
    }

    fn refuse_same(&self, stat: &Stat, to: BorrowedFd<'_>, target: &OsStr) -> Copied<()> {
        match rustix::fs::statat(to, target, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if same(stat, &there) => Err(same_file()),
            Ok(there) if FileType::from_raw_mode(there.st_mode).is_dir() => {
                let why = "a directory is not overwritten with a file";
                Err(Fault::new(Side::Target, Errno::EISDIR, why))
            }
            _ => Ok(()),
        }
    }

    /// A directory is not copied into itself: that would have no end.
    fn refuse_into_itself(&self, stat: &Stat, to: &Entry) -> Copied<()> {
        let top = rustix::fs::fstat(self.root).at(Side::Target)?;
        let mut dir = rustix::io::fcntl_dupfd_cloexec(&to.dir, 0).at(Side::Target)?;
        loop {
            let here = rustix::fs::fstat(&dir).at(Side::Target)?;
            if same(stat, &here) {
                let why = "a directory cannot be copied into itself";
                return Err(Fault::new(Side::Both, Errno::EINVAL, why));
            }
            let flags = PLACE | OFlags::DIRECTORY;
            let above = rustix::fs::openat(&dir, "..", flags, Mode::empty()).at(Side::Target)?;
            if same(&here, &top) || same(&here, &rustix::fs::fstat(&above).at(Side::Target)?) {
                return Ok(());
            }
            dir = above;
        }
    }
}

fn same(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

fn same_file() -> Fault {
    Fault::new(Side::Both, Errno::EINVAL, "source and destination are the same file")
}

fn umask() -> u32 {
    let mask = rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::umask(mask);
    mask.bits()
}

/// Makes a name; anything but a directory that has it is removed first.
fn replacing(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    make: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match make() {
        Err(Raw::EXIST) => {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            make()
        }
        done => done,
    }
}
