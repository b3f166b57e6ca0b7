// SPDX-License-Identifier: Apache-2.0
//! Copies of files and trees of the guest, made by descriptor: as cp(1) makes them, but no link of the guest leads
//! out of it, wherever it lies in source or target.

use crate::error::{Error, Result, shown};
use crate::mounts::client_path;
use crate::paths::{Entry, Root, Sysroot, path_of};
use crate::tree::{Step, Walk, Way};
use crate::xattr;
use guestfs_api::Errno;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno as Raw;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
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
/// Access control lists: what a file has inherited goes where the copied one has none.
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// What is copied to where, as the client names it: for errors.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) source: OsString,
    pub(crate) target: OsString,
}

/// On which side something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Target,
    /// The kernel does not say, or it takes two.
    Both,
}

/// What went wrong with one file, whose name is not in the text yet.
#[derive(Debug)]
struct Fault {
    side: Side,
    error: Error,
}

type Copied<T> = std::result::Result<T, Fault>;

impl Fault {
    fn new(side: Side, errno: Errno, text: &str) -> Self {
        Self { side, error: Error::new(errno, text) }
    }
}

/// Says on which side a system call went wrong.
trait At<T> {
    fn at(self, side: Side) -> Copied<T>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, side: Side) -> Copied<T> {
        self.map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error());
            Fault { side, error: Error::new(errno, errno.describe()) }
        })
    }
}

impl Names {
    /// The error that names the file: the path below what is copied, empty for that itself.
    fn name(&self, fault: Fault, path: &[u8]) -> Error {
        let join = |top: &OsStr| {
            let mut whole = top.as_bytes().to_vec();
            if !path.is_empty() {
                while whole.last() == Some(&b'/') {
                    whole.pop();
                }
                whole.push(b'/');
                whole.extend_from_slice(path);
            }
            shown(OsStr::from_bytes(&whole)).into_owned()
        };
        let (source, target) = (join(&self.source), join(&self.target));
        match fault.side {
            Side::Source => fault.error.within(source),
            Side::Target => fault.error.within(target),
            Side::Both => fault.error.within(format!("{source} to {target}")),
        }
    }
}

/// Where names of files that are copied are looked up, and how they are copied.
pub(crate) struct Copier<'s> {
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
    pub(crate) fn new(root: &'s Root, sysroot: &'s Sysroot, names: Names, preserve: bool) -> Self {
        Self { root, sysroot, names, preserve, links: HashMap::new(), failed: None }
    }

    /// Copies what is at `from`, with everything below it, to `to`.
    pub(crate) fn tree(mut self, from: &Entry, to: &Entry) -> Result<()> {
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
            if crate::signals::ending() {
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
            attributes(source.as_fd(), fd, &level.stat)?;
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
            attributes(source.as_fd(), copy.as_fd(), stat)?;
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(to, target, &times(stat), nofollow).at(Side::Target)?;
        }
        Ok(())
    }

    /// Copies a file that is open, or what is left to read of a device.
    pub(crate) fn file(&self, source: &File, to: BorrowedFd<'_>, target: &OsStr) -> Result<()> {
        self.open_file(source, to, target).map_err(|fault| self.names.name(fault, b""))
    }

    fn open_file(&self, source: &File, to: BorrowedFd<'_>, target: &OsStr) -> Copied<()> {
        let stat = rustix::fs::fstat(source).at(Side::Source)?;
        let copy = self.create(&stat, to, target)?;
        contents(source, &copy, &stat)?;
        if self.preserve {
            attributes(source.as_fd(), copy.as_fd(), &stat)?;
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
                let mut path = client_path(self.sysroot, &here);
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

/// Copies content: shared where the filesystem can, otherwise without its holes.
fn contents(source: &File, copy: &File, stat: &Stat) -> Copied<()> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if !FileType::from_raw_mode(stat.st_mode).is_file() || size == 0 {
        // Devices, and files of /proc, which say that they are empty.
        return pump(source, copy, None);
    }
    if rustix::fs::ioctl_ficlone(copy, source).is_ok() {
        return Ok(());
    }
    let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
    let mut at = 0;
    while at < size {
        let end = match sparse.then(|| extent(source, at)) {
            Some(Ok((begin, end))) => {
                at = begin;
                end.min(size)
            }
            // Nothing but a hole is left.
            Some(Err(Raw::NXIO)) => break,
            _ => size,
        };
        if at >= end {
            break;
        }
        range(source, copy, at, end)?;
        at = end;
    }
    // A file that has shrunk meanwhile has not become longer for that.
    match rustix::fs::fstat(copy).at(Side::Target)?.st_size {
        len if sparse && u64::try_from(len).unwrap_or(0) < size => {
            rustix::fs::ftruncate(copy, size).at(Side::Target)
        }
        _ => Ok(()),
    }
}

/// The data from an offset on: where they begin and end.
fn extent(file: &File, at: u64) -> rustix::io::Result<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let begin = seek(file, SeekFrom::Data(at))?;
    Ok((begin, seek(file, SeekFrom::Hole(begin))?))
}

/// Copies a range, in the kernel where it can.
fn range(source: &File, copy: &File, begin: u64, end: u64) -> Copied<()> {
    /// Few enough at once that a request to end is noticed soon.
    const PIECE: u64 = 64 << 20;
    let (mut from, mut to) = (begin, begin);
    while from < end {
        let want = usize::try_from((end - from).min(PIECE)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), copy, Some(&mut to), want) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Raw::INTR) => {}
            Err(Raw::XDEV | Raw::INVAL | Raw::OPNOTSUPP | Raw::NOSYS | Raw::PERM) => {
                use rustix::fs::{SeekFrom, seek};
                seek(source, SeekFrom::Start(from)).at(Side::Source)?;
                seek(copy, SeekFrom::Start(to)).at(Side::Target)?;
                return pump(source, copy, Some(end - from));
            }
            // Only what is written needs room.
            Err(e @ (Raw::NOSPC | Raw::DQUOT | Raw::FBIG)) => return Err(e).at(Side::Target),
            Err(e) => return Err(e).at(Side::Both),
        }
        if crate::signals::ending() {
            return Err(Raw::INTR).at(Side::Both);
        }
    }
    Ok(())
}

/// Copies by reading and writing, to the end or so many bytes.
fn pump(source: &File, copy: &File, limit: Option<u64>) -> Copied<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = match rustix::io::read(source, &mut buffer[..want]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(Raw::INTR) if !crate::signals::ending() => continue,
            Err(e) => return Err(e).at(Side::Source),
        };
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            match rustix::io::write(copy, rest) {
                Ok(n) => rest = &rest[n..],
                Err(Raw::INTR) if !crate::signals::ending() => {}
                Err(e) => return Err(e).at(Side::Target),
            }
        }
        left -= n as u64;
    }
    Ok(())
}

/// Gives a copy its owner, extended attributes and mode; what goes wrong does not keep the rest from it.
fn attributes(source: BorrowedFd<'_>, copy: BorrowedFd<'_>, stat: &Stat) -> Copied<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let owned = rustix::fs::chownat(copy, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH);
    // Capabilities go when the owner changes, so they are set after that.
    let kept = extended_attributes(source, copy);
    if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmod(crate::paths::proc_path(copy), mode).at(Side::Target)?;
    }
    owned.at(Side::Target).and(kept)
}

/// Gives a copy its extended attributes. Those of a kind that its filesystem does not have are left out; one that there
/// is no room for, or that cannot be read, is an error.
fn extended_attributes(source: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Copied<()> {
    let names = match xattr::names(source) {
        Err(Raw::OPNOTSUPP) => Vec::new(),
        names => names.at(Side::Source)?,
    };
    for acl in ACLS.iter().filter(|acl| !names.iter().any(|n| n == *acl)) {
        xattr::remove(copy, acl).ok();
    }
    let mut done = Ok(());
    for name in &names {
        let this = match xattr::get(source, name) {
            // Removed meanwhile.
            Err(Raw::NODATA) => Ok(()),
            Err(e) => Err(e).at(Side::Source),
            Ok(value) => match xattr::set(copy, name, &value) {
                Err(Raw::OPNOTSUPP | Raw::PERM | Raw::INVAL) => Ok(()),
                set => set.at(Side::Target),
            },
        };
        let named = this.map_err(|fault| {
            let what = format!("extended attribute {}", shown(name));
            Fault { error: fault.error.within(what), ..fault }
        });
        done = done.and(named);
    }
    done
}

#[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)] // As wide as this machine's are.
fn times(stat: &Stat) -> Timestamps {
    let time = |sec, nsec| Timespec { tv_sec: sec, tv_nsec: nsec };
    Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    }
}
