// SPDX-License-Identifier: Apache-2.0
//! Making, changing and removing files.

use super::numbers::not_negative;
use crate::session::Session;
use guest_error::{Calling, Context, Errno, Error, Result};
use guest_fs::paths::{Entry, GuestPath};
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno as Raw;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Makes a file, or sets its times to now. Anything but a regular file is refused, links too.
pub(crate) fn touch(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let there = match s.entry(path).calling("open")?.lstat() {
        Err(Raw::NOENT) => None,
        stat => Some(FileType::from_raw_mode(stat.on(path)?.st_mode)),
    };
    if there.is_some_and(|kind| !kind.is_file()) {
        let why = "touch can only be used on a regular files"; // as clients know it
        return Err(Error::new(Errno::EINVAL, why).within(path));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW;
    set_now(&s.open(path, flags).calling("open")?, path)
}

fn set_now(file: &File, path: GuestPath<'_>) -> Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now }).on(path)
}

/// Replaces a file's content.
pub(crate) fn internal_write(s: &mut Session, path: GuestPath<'_>, content: &[u8]) -> Result<()> {
    // What is there is written over, and cut afterwards: filesystems give a file's blocks back and look for
    // new ones at a higher price than the writing is.
    let mut file = s.open(path, OFlags::WRONLY | OFlags::CREATE).calling("open")?;
    let written = file.write_all(content).on(path).calling("write");
    let metadata = file.metadata().on(path)?;
    let end = match &written {
        Ok(()) => content.len() as u64,
        Err(_) => file.stream_position().unwrap_or_default(),
    };
    if metadata.is_file() && metadata.len() > end {
        file.set_len(end).on(path)?;
    }
    written
}

/// Appends to a file.
pub(crate) fn internal_write_append(
    s: &mut Session,
    path: GuestPath<'_>,
    content: &[u8],
) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
    let mut file = s.open(path, flags).calling("open")?;
    file.write_all(content).on(path).calling("write")
}

/// Replaces a file's content by the first `size` bytes of `content`, or by all of it if that is 0.
pub(crate) fn write_file(
    s: &mut Session,
    path: GuestPath<'_>,
    content: &OsStr,
    size: i32,
) -> Result<()> {
    let content = content.as_bytes();
    let size = match usize::try_from(size) {
        Ok(0) => content.len(),
        Ok(n) if n <= content.len() => n,
        _ => {
            let why = "size parameter is larger than string content";
            return Err(Error::argument("size", size.to_string(), why));
        }
    };
    internal_write(s, path, &content[..size])
}

/// Removes a file.
pub(crate) fn rm(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let entry = s.entry(path)?;
    rustix::fs::unlinkat(&entry.dir, &*entry.name, AtFlags::empty()).on(path)
}

/// Removes a file, if it is there.
pub(crate) fn rm_f(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let entry = match s.root()?.entry(path.as_os_str()) {
        Err(Raw::NOENT) => return Ok(()),
        entry => entry.on(path)?,
    };
    match rustix::fs::unlinkat(&entry.dir, &*entry.name, AtFlags::empty()) {
        Err(Raw::NOENT) => Ok(()),
        done => done.on(path),
    }
}

/// Removes an empty directory.
pub(crate) fn rmdir(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let entry = s.entry(path)?;
    rustix::fs::unlinkat(&entry.dir, &*entry.name, AtFlags::REMOVEDIR).on(path)
}

/// Makes a directory.
pub(crate) fn mkdir(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    make_dir(&s.entry(path)?, 0o777).on(path)
}

/// Makes a directory with this mode, less the umask.
pub(crate) fn mkdir_mode(s: &mut Session, path: GuestPath<'_>, mode: i32) -> Result<()> {
    make_dir(&s.entry(path)?, permissions(mode)?).on(path)
}

fn make_dir(entry: &Entry, mode: u32) -> rustix::io::Result<()> {
    let name = if entry.name == "." { return Err(Raw::EXIST) } else { &*entry.name };
    rustix::fs::mkdirat(&entry.dir, name, Mode::from_raw_mode(mode))
}

/// Makes a directory and those above it that are not there.
pub(crate) fn mkdir_p(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let bytes = path.bytes();
    let mut end = 0;
    while end < bytes.len() {
        let begin = end + bytes[end..].iter().take_while(|&&b| b == b'/').count();
        end = begin + bytes[begin..].iter().take_while(|&&b| b != b'/').count();
        let prefix = GuestPath::new("path", OsStr::from_bytes(&bytes[..end]))?;
        match make_dir(&s.entry(prefix)?, 0o777) {
            // Also through a link: then it is for the next component to tell whether it is one.
            Ok(()) | Err(Raw::EXIST) => {}
            Err(e) => return Err(e).on(path),
        }
    }
    s.open(path, OFlags::PATH | OFlags::DIRECTORY).map(drop)
}

/// Sets the permissions of what a path leads to.
pub(crate) fn chmod(s: &mut Session, mode: i32, path: GuestPath<'_>) -> Result<()> {
    let mode = Mode::from_raw_mode(permissions(mode)?);
    let file = s.open(path, OFlags::PATH)?;
    // fchmod takes no O_PATH descriptor; its name in /proc leads to it and nowhere else.
    rustix::fs::chmod(guest_fs::paths::proc_path(std::os::fd::AsFd::as_fd(&file)), mode).on(path)
}

/// Sets owner and group of what a path leads to; -1 leaves them.
pub(crate) fn chown(s: &mut Session, owner: i32, group: i32, path: GuestPath<'_>) -> Result<()> {
    let file = s.open(path, OFlags::PATH)?;
    let (uid, gid) = ids(owner, group);
    rustix::fs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH).on(path)
}

/// Sets owner and group of a path's last component itself.
pub(crate) fn lchown(s: &mut Session, owner: i32, group: i32, path: GuestPath<'_>) -> Result<()> {
    let entry = s.entry(path)?;
    let (uid, gid) = ids(owner, group);
    rustix::fs::chownat(&entry.dir, &*entry.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).on(path)
}

/// Numbers above 2³¹ come as negative ones; -1 is none.
fn ids(owner: i32, group: i32) -> (Option<Uid>, Option<Gid>) {
    let id = |n: i32| (n != -1).then_some(n.cast_unsigned());
    (id(owner).map(Uid::from_raw), id(group).map(Gid::from_raw))
}

/// Permissions from a mode; bits of file types and above are ignored.
fn permissions(mode: i32) -> Result<u32> {
    let raw = u32::try_from(mode);
    raw.map(|m| m & 0o7777).map_err(|_| Error::argument("mode", mode.to_string(), "is negative"))
}

/// Makes a node; the mode says of which type.
pub(crate) fn mknod(
    s: &mut Session,
    mode: i32,
    devmajor: i32,
    devminor: i32,
    path: GuestPath<'_>,
) -> Result<()> {
    let raw: u32 = not_negative("mode", mode)?;
    let kind = match raw & libc::S_IFMT {
        0 => FileType::RegularFile,
        kind => FileType::from_raw_mode(kind),
    };
    make_node(s, kind, mode, devmajor, devminor, path)
}

/// Makes a FIFO.
pub(crate) fn mkfifo(s: &mut Session, mode: i32, path: GuestPath<'_>) -> Result<()> {
    make_node(s, FileType::Fifo, mode, 0, 0, path)
}

/// Makes a block device's node.
pub(crate) fn mknod_b(
    s: &mut Session,
    mode: i32,
    devmajor: i32,
    devminor: i32,
    path: GuestPath<'_>,
) -> Result<()> {
    make_node(s, FileType::BlockDevice, mode, devmajor, devminor, path)
}

/// Makes a character device's node.
pub(crate) fn mknod_c(
    s: &mut Session,
    mode: i32,
    devmajor: i32,
    devminor: i32,
    path: GuestPath<'_>,
) -> Result<()> {
    make_node(s, FileType::CharacterDevice, mode, devmajor, devminor, path)
}

fn make_node(
    s: &mut Session,
    kind: FileType,
    mode: i32,
    major: i32,
    minor: i32,
    path: GuestPath<'_>,
) -> Result<()> {
    let (major, minor) = (not_negative("devmajor", major)?, not_negative("devminor", minor)?);
    let device = rustix::fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(permissions(mode)?);
    let entry = s.entry(path)?;
    rustix::fs::mknodat(&entry.dir, &*entry.name, kind, mode, device).on(path)
}

/// Makes a hard link.
pub(crate) fn ln(s: &mut Session, target: &OsStr, linkname: GuestPath<'_>) -> Result<()> {
    link(s, target, linkname)
}

/// Makes a hard link in the place of what is there.
pub(crate) fn ln_f(s: &mut Session, target: &OsStr, linkname: GuestPath<'_>) -> Result<()> {
    rm_f(s, linkname)?;
    link(s, target, linkname)
}

fn link(s: &Session, target: &OsStr, linkname: GuestPath<'_>) -> Result<()> {
    let from = s.entry(GuestPath::new("target", target)?)?;
    let to = s.entry(linkname)?;
    rustix::fs::linkat(&from.dir, &*from.name, &to.dir, &*to.name, AtFlags::empty())
        .on(linkname)
        .map_err(|e| e.within(target))
        .calling("link")
}

/// Makes a symbolic link; in a directory under the target's name, if `linkname` is one.
pub(crate) fn ln_s(s: &mut Session, target: &OsStr, linkname: GuestPath<'_>) -> Result<()> {
    let entry = link_entry(s, target, linkname)?;
    rustix::fs::symlinkat(target, &entry.dir, &*entry.name).on(linkname)
}

/// Makes a symbolic link in the place of what is there.
pub(crate) fn ln_sf(s: &mut Session, target: &OsStr, linkname: GuestPath<'_>) -> Result<()> {
    let entry = link_entry(s, target, linkname)?;
    match rustix::fs::unlinkat(&entry.dir, &*entry.name, AtFlags::empty()) {
        Err(Raw::NOENT) => {}
        done => done.on(linkname)?,
    }
    rustix::fs::symlinkat(target, &entry.dir, &*entry.name).on(linkname)
}

/// Where a symbolic link goes, as ln(1) has it.
fn link_entry(s: &Session, target: &OsStr, linkname: GuestPath<'_>) -> Result<Entry> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let own = target.as_bytes().rsplit(|&b| b == b'/').find(|name| !name.is_empty());
    match (s.open(linkname, flags), own) {
        (Ok(dir), Some(name)) => {
            Ok(Entry { dir: dir.into(), name: OsStr::from_bytes(name).into() })
        }
        _ => s.entry(linkname),
    }
}

/// What a symbolic link says.
pub(crate) fn readlink(s: &mut Session, path: GuestPath<'_>) -> Result<OsString> {
    let entry = s.entry(path)?;
    read_link(&entry.dir, &entry.name).on(path).calling("readlink")
}

/// What the links of these names in a directory say; nothing for what is none.
pub(crate) fn internal_readlinklist(
    s: &mut Session,
    path: GuestPath<'_>,
    names: &[&OsStr],
) -> Result<Vec<OsString>> {
    let dir = s.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok(names.iter().map(|name| read_link(&dir, name).unwrap_or_default()).collect())
}

fn read_link(dir: impl std::os::fd::AsFd, name: &OsStr) -> rustix::io::Result<OsString> {
    let text = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(OsString::from_vec(text.into_bytes()))
}

/// Renames a file or directory.
pub(crate) fn rename(
    s: &mut Session,
    oldpath: GuestPath<'_>,
    newpath: GuestPath<'_>,
) -> Result<()> {
    let from = s.entry(oldpath)?;
    let to = s.entry(newpath)?;
    rustix::fs::renameat_with(&from.dir, &*from.name, &to.dir, &*to.name, RenameFlags::empty())
        .on(newpath)
        .map_err(|e| e.within(oldpath))
        .calling("rename")
}

/// Makes a file empty.
pub(crate) fn truncate(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    truncate_size(s, path, 0)
}

/// Makes a file this long.
pub(crate) fn truncate_size(s: &mut Session, path: GuestPath<'_>, size: i64) -> Result<()> {
    let size = not_negative("size", size)?;
    let file = s.open(path, OFlags::WRONLY).calling("open")?;
    rustix::fs::ftruncate(&file, size).on(path).calling("ftruncate")
}

/// Makes a file of this many bytes that have their place on the disk.
pub(crate) fn fallocate(s: &mut Session, path: GuestPath<'_>, len: i32) -> Result<()> {
    fallocate64(s, path, len.into())
}

/// Makes a file of this many bytes that have their place on the disk.
pub(crate) fn fallocate64(s: &mut Session, path: GuestPath<'_>, len: i64) -> Result<()> {
    let len = not_negative("len", len)?;
    let file = s.open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
        // The filesystem cannot: then it is written.
        Err(Raw::OPNOTSUPP) => {
            std::io::copy(&mut std::io::repeat(0).take(len), &mut &file).map(drop).on(path)
        }
        done => done.on(path),
    }
}

/// Sets times; nanoseconds of -1 mean now, of -2 that the time stays.
pub(crate) fn utimens(
    s: &mut Session,
    path: GuestPath<'_>,
    atsecs: i64,
    atnsecs: i64,
    mtsecs: i64,
    mtnsecs: i64,
) -> Result<()> {
    let time = |tv_sec: i64, nsecs: i64| match nsecs {
        -1 => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        -2 => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        tv_nsec => Timespec { tv_sec, tv_nsec },
    };
    let times =
        Timestamps { last_access: time(atsecs, atnsecs), last_modification: time(mtsecs, mtnsecs) };
    // Not followed, and opened for nothing else: works on links, FIFOs and files of others.
    let entry = s.entry(path)?;
    rustix::fs::utimensat(&entry.dir, &*entry.name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .on(path)
        .calling("utimensat")
}

/// Whether a file has nothing but zeroes in it.
pub(crate) fn is_zero(s: &mut Session, path: GuestPath<'_>) -> Result<bool> {
    let mut file = s.open(path, OFlags::RDONLY)?;
    only_zeroes(&mut file).on(path)
}

/// Whether nothing but zeroes is left to read.
pub(super) fn only_zeroes(file: &mut File) -> std::io::Result<bool> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(true);
        }
        if buffer[..n].iter().any(|&b| b != 0) {
            return Ok(false);
        }
    }
}

/// The umask, and what it was.
pub(crate) fn umask(_: &mut Session, mask: i32) -> Result<i32> {
    let new = u32::try_from(mask).ok().filter(|m| *m <= 0o777).ok_or_else(|| {
        Error::argument(
            "mask",
            format!("{mask:o}"),
            "negative or out of range: expecting 0 to 0777",
        )
    })?;
    let old = rustix::process::umask(Mode::from_raw_mode(new));
    Ok(i32::try_from(old.bits()).unwrap_or_default())
}

/// The umask.
pub(crate) fn get_umask(_: &mut Session) -> Result<i32> {
    let mask = rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::umask(mask);
    Ok(i32::try_from(mask.bits()).unwrap_or_default())
}
