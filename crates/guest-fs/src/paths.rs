// SPDX-License-Identifier: Apache-2.0
//! Paths of the guest, resolved inside the sysroot by descriptor.
//!
//! No symbolic link of the guest leads out of the sysroot, wherever it points: `openat2` with
//! `RESOLVE_IN_ROOT` sees to that in the kernel; where that is not to be had (before Linux 5.6, or
//! under a seccomp filter), a walk that opens one component at a time does the same. Links of
//! /proc to files of processes ("magic links") are never followed.

use crate::tree::Way;
use guest_error::{Context, Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno as Raw;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// An absolute path in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPath<'a>(&'a OsStr);

impl<'a> GuestPath<'a> {
    /// The path, if it is absolute; `name` is the argument's.
    pub fn new(name: &str, path: &'a OsStr) -> Result<Self> {
        if path.as_bytes().first() != Some(&b'/') {
            return Err(Error::argument(name, path, "path must start with a / character"));
        }
        Ok(Self(path))
    }

    /// As the client gave it.
    pub fn as_os_str(&self) -> &'a OsStr {
        self.0
    }

    /// As bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl AsRef<OsStr> for GuestPath<'_> {
    fn as_ref(&self) -> &OsStr {
        self.0
    }
}

/// The directory that guests' filesystems are mounted on.
#[derive(Clone, Debug)]
pub struct Sysroot {
    path: PathBuf,
}

/// Times that a resolution which raced with a rename is tried again.
const RETRIES: usize = 32;
/// Symbolic links that one path may lead through (as in the kernel).
const MAX_LINKS: usize = 40;

/// Set when `openat2` was found not to be there.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

impl Sysroot {
    /// The sysroot at this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path on this machine. Never to be joined with a guest's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path of this machine below the sysroot as the guest has it.
    pub fn client_path(&self, path: &Path) -> OsString {
        match path.strip_prefix(&self.path) {
            Ok(inside) => {
                let mut out = b"/".to_vec();
                out.extend_from_slice(inside.as_os_str().as_bytes());
                OsString::from_vec(out)
            }
            Err(_) => OsStr::new(path).to_owned(),
        }
    }

    /// Opens the sysroot itself.
    pub fn open(&self) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&self.path, flags, Mode::empty()).on(&self.path)?;
        Ok(Root { fd })
    }
}

/// The sysroot, open. It keeps what is mounted there busy.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// A name in a directory: what is to be made, removed, renamed or looked at without following it.
#[derive(Debug)]
pub struct Entry {
    /// The directory, open for nothing but its name (`O_PATH`).
    pub dir: OwnedFd,
    /// The last component; `.` for the sysroot itself.
    pub name: OsString,
}

impl Root {
    /// Whether something is mounted there.
    pub fn is_mount(&self) -> Result<bool> {
        const MOUNT_ROOT: u64 = libc::STATX_ATTR_MOUNT_ROOT as u64;
        let sysroot = statx(self.fd.as_fd(), StatxFlags::empty()).on("/")?;
        if sysroot.stx_attributes_mask.bits() & MOUNT_ROOT != 0 {
            return Ok(sysroot.stx_attributes.bits() & MOUNT_ROOT != 0);
        }
        // Before Linux 5.8: another device than the directory that it is in.
        let above = rustix::fs::statat(&self.fd, "..", AtFlags::empty()).on("/")?;
        let here = rustix::fs::fstat(&self.fd).on("/")?;
        Ok(above.st_dev != here.st_dev || above.st_ino == here.st_ino)
    }

    /// Opens a path; its last component is followed unless `flags` have `NOFOLLOW`.
    pub fn open(&self, path: &OsStr, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        // openat2 refuses what makes no sense: with O_PATH, nothing is opened that could be a terminal.
        let notty = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NOCTTY };
        let flags = flags | OFlags::CLOEXEC | notty;
        let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
        if !NO_OPENAT2.load(Ordering::Relaxed) {
            let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            for _ in 0..RETRIES {
                match rustix::fs::openat2(&self.fd, path, flags, mode, how) {
                    Err(Raw::AGAIN) => {}
                    Err(Raw::NOSYS | Raw::PERM) if !openat2_works(self.fd.as_fd()) => break,
                    done => return done,
                }
            }
        }
        walk(self.fd.as_fd(), path, flags, mode)
    }

    /// The directory that a path's last component is in. Symbolic links on the way are followed, the
    /// last component is not looked at.
    pub fn entry(&self, path: &OsStr) -> rustix::io::Result<Entry> {
        let bytes = path.as_bytes();
        let end = bytes.iter().rposition(|&b| b != b'/').map_or(0, |i| i + 1);
        let begin = bytes[..end].iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let (dir, name) = match &bytes[begin..end] {
            b"" | b"." => (OsStr::from_bytes(&bytes[..end]), OsStr::new(".")),
            // The entry would be outside of the directory that it is looked up in.
            b".." => (OsStr::from_bytes(&bytes[..end]), OsStr::new(".")),
            name => (OsStr::from_bytes(&bytes[..begin]), OsStr::from_bytes(name)),
        };
        let dir = if dir.is_empty() { OsStr::new("/") } else { dir };
        Ok(Entry { dir: self.open(dir, flags, Mode::empty())?, name: name.to_owned() })
    }

    /// The directory and name that a file has which was opened in this sysroot; none if the name has gone.
    pub fn entry_of(&self, sysroot: &Sysroot, file: impl AsFd) -> rustix::io::Result<Entry> {
        let path = path_of(file.as_fd())?;
        let inside = path.strip_prefix(sysroot.path()).map_err(|_| Raw::NOENT)?;
        let entry = self.entry(Path::new("/").join(inside).as_os_str())?;
        let (named, opened) = (entry.lstat()?, rustix::fs::fstat(file)?);
        match (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) {
            true => Ok(entry),
            false => Err(Raw::NOENT),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `statx` of a descriptor itself.
fn statx(fd: BorrowedFd<'_>, mask: StatxFlags) -> rustix::io::Result<rustix::fs::Statx> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, mask)
}

/// Whether it is the path, and not `openat2` as such, that is refused.
fn openat2_works(root: BorrowedFd<'_>) -> bool {
    let works = rustix::fs::openat2(
        root,
        ".",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .is_ok();
    NO_OPENAT2.store(!works, Ordering::Relaxed);
    works
}

/// What `openat2` does, one component at a time.
fn walk(
    root: BorrowedFd<'_>,
    path: &OsStr,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Directories from the root down to where we are: `..` goes back along them.
    let from_root = || rustix::io::fcntl_dupfd_cloexec(root, 0).map(Way::new);
    let mut way = from_root()?;
    let mut todo: Vec<Vec<u8>> = Vec::new();
    push(&mut todo, path.as_bytes());
    let must_be_directory = path.as_bytes().last() == Some(&b'/');
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let here = way.here()?;
        match name.as_slice() {
            b"." => continue,
            b".." => {
                if !way.is_at_top() {
                    way.up()?;
                }
                continue;
            }
            _ => {}
        }
        let last = todo.is_empty();
        let found = rustix::fs::openat(here, name.as_slice(), step, Mode::empty());
        let kind = match &found {
            Ok(fd) => rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode),
            Err(Raw::NOENT) if last && flags.contains(OFlags::CREATE) => {
                let flags = flags | OFlags::NOFOLLOW;
                return rustix::fs::openat(here, name.as_slice(), flags, mode);
            }
            Err(e) => return Err(*e),
        };
        let fd = found?;
        if kind.is_symlink() && !(last && flags.contains(OFlags::NOFOLLOW) && !must_be_directory) {
            links += 1;
            let excl = OFlags::CREATE | OFlags::EXCL;
            if links > MAX_LINKS || (last && flags.contains(excl)) {
                return Err(if links > MAX_LINKS { Raw::LOOP } else { Raw::EXIST });
            }
            // A link of procfs to a process's file shows text that is not its target.
            if rustix::fs::fstatfs(&fd)?.f_type == 0x9fa0 && magic(&fd) {
                return Err(Raw::LOOP);
            }
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
            if target.first() == Some(&b'/') {
                way = from_root()?;
            }
            push(&mut todo, &target);
            continue;
        }
        if last && !flags.contains(OFlags::PATH) {
            let flags = flags | OFlags::NOFOLLOW;
            let flags = if must_be_directory { flags | OFlags::DIRECTORY } else { flags };
            return rustix::fs::openat(here, name.as_slice(), flags, mode);
        }
        if (!last || must_be_directory || flags.contains(OFlags::DIRECTORY)) && !kind.is_dir() {
            return Err(Raw::NOTDIR);
        }
        way.down(fd, |_, _| true);
    }
    let end = way.end()?;
    if flags.contains(OFlags::PATH) {
        return Ok(end);
    }
    // The path ended in `.`, `..` or `/`: it is a directory.
    rustix::fs::openat(&end, ".", flags, mode)
}

/// Whether a link of procfs is one to a process's own file.
fn magic(link: &OwnedFd) -> bool {
    // Their size is never the length of their text, and that of real ones (`self`, `mounts`) is
    // not looked at by anyone: refuse all but the well-known ones.
    match rustix::fs::readlinkat(link, "", Vec::new()) {
        Ok(text) => {
            let text = text.into_bytes();
            text.first() == Some(&b'/') || text.contains(&b'[') || text.contains(&b':')
        }
        Err(_) => true,
    }
}

/// Puts a path's components on the stack, first on top.
fn push(todo: &mut Vec<Vec<u8>>, path: &[u8]) {
    let components = path.split(|&b| b == b'/').filter(|c| !c.is_empty());
    let begin = todo.len();
    todo.extend(components.map(<[u8]>::to_vec));
    todo[begin..].reverse();
}

impl Entry {
    /// What is there, not followed.
    pub fn lstat(&self) -> rustix::io::Result<rustix::fs::Stat> {
        rustix::fs::statat(&self.dir, &*self.name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// The path that a descriptor has, as the kernel knows it.
pub fn path_of(fd: impl AsFd) -> rustix::io::Result<PathBuf> {
    let link = proc_path(fd.as_fd());
    let text = rustix::fs::readlink(link, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(text.into_bytes())))
}

/// A path by which programs that we start can open a descriptor of ours: of the path that was
/// resolved, whatever the guest puts in its place meanwhile.
pub fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_sysroot_are_the_guests() {
        let sysroot = Sysroot::new("/sysroot");
        assert_eq!(sysroot.client_path(Path::new("/sysroot")), "/");
        assert_eq!(sysroot.client_path(Path::new("/sysroot/a/b")), "/a/b");
    }

    #[test]
    fn without_openat2_a_path_leads_down_and_up_again_and_never_above_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("d/".repeat(100))).unwrap();
        std::fs::write(dir.path().join("d/d/file"), "").unwrap();
        let path = |up: usize, end: &str| {
            OsString::from(format!("{}{}{end}", "d/".repeat(100), "../".repeat(up)))
        };
        let find = |path: &OsStr| {
            let found = walk(root.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::fstat(found).map(|stat| stat.st_ino)
        };
        assert_eq!(find(&path(98, "file")), find(OsStr::new("d/d/file")));
        assert_eq!(find(&path(300, "")), find(OsStr::new(".")));
        assert_eq!(find(&path(99, "file")), Err(Raw::NOENT));
    }
}
