// SPDX-License-Identifier: Apache-2.0
//! Space: how much filesystems have, how much files take, and clearing what is free.

use crate::mounts;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::Progress;
use crate::trim;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use guest_fs::tree::{Step, Walk};
use guestfs_api::options;
use guestfs_api::structs::Statvfs;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno as Raw;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Zeroes that are written at once; what no longer fits is tried in halves, down to a sector.
const PIECE: usize = 1 << 20;
const SECTOR: usize = 512;
/// A flag of statfs(2) that statvfs(3) does not know.
const ST_VALID: u64 = 0x20;
/// Most files that free space is filled with, on filesystems whose files are small.
const MAX_FILES: usize = 512;

/// What a filesystem says of itself.
pub(crate) fn statvfs(s: &mut Session, path: GuestPath<'_>) -> Result<Statvfs> {
    let file = s.open(path, OFlags::PATH)?;
    let found = rustix::fs::fstatvfs(&file).on(path)?;
    let number = u64::cast_signed;
    // Some filesystems, XFS and FAT among them, are known by the number of their device, which is the client's.
    let device = rustix::fs::fstat(&file).on(path)?.st_dev;
    let fsid = match found.f_fsid == device {
        true => s.devices().number_to_client(device),
        false => found.f_fsid,
    };
    // The kernel's own note that the other flags count.
    let flags = found.f_flag.bits() & !ST_VALID;
    Ok(Statvfs {
        bsize: number(found.f_bsize),
        frsize: number(found.f_frsize),
        blocks: number(found.f_blocks),
        bfree: number(found.f_bfree),
        bavail: number(found.f_bavail),
        files: number(found.f_files),
        ffree: number(found.f_ffree),
        favail: number(found.f_favail),
        fsid: number(fsid),
        flag: number(flags),
        namemax: number(found.f_namemax),
    })
}

/// What df says of what the session has mounted.
pub(crate) fn df(s: &mut Session) -> Result<Vec<u8>> {
    df_with(s, &[])
}

/// The same in numbers for people.
pub(crate) fn df_h(s: &mut Session) -> Result<Vec<u8>> {
    df_with(s, &["-h"])
}

fn df_with(s: &mut Session, options: &[&str]) -> Result<Vec<u8>> {
    s.need_root()?;
    // Left to itself, df asks every filesystem of the machine, and fails for one that does not answer.
    let places = device_mounts(s)?;
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let text = Tool::new("df").args(options).arg("--").args(places).output()?;
    let mut translated = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        let end = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
        let (device, rest) = line.split_at(end);
        if !device.starts_with(b"/dev/") {
            translated.extend_from_slice(line);
            continue;
        }
        let name = s.client_name(Path::new(OsStr::from_bytes(device)));
        translated.extend_from_slice(name.as_bytes());
        // The next column begins where it did.
        let spaces = rest.iter().take_while(|&&b| b == b' ').count();
        let column = (device.len() + spaces).saturating_sub(name.len()).max(1);
        translated.resize(translated.len() + column, b' ');
        translated.extend_from_slice(&rest[spaces..]);
    }
    Ok(translated)
}

/// Where devices are mounted that the client's files are on, each place once.
fn device_mounts(s: &Session) -> Result<Vec<PathBuf>> {
    let mut places: Vec<PathBuf> = Vec::new();
    for mount in mounts::below(s.sysroot())? {
        let is_fuse = mount.fstype == "fuse" || mount.fstype.as_bytes().starts_with(b"fuse.");
        let is_device = mount.source.as_bytes().starts_with(b"/") && !is_fuse;
        if is_device && !places.contains(&mount.at) {
            places.push(mount.at);
        }
    }
    Ok(places)
}

/// KiB that a file takes, or a directory with all below it. A file of several names counts once.
pub(crate) fn du(s: &mut Session, path: GuestPath<'_>, progress: &mut Progress<'_>) -> Result<i64> {
    let entry = s.entry(path)?;
    let stat = entry.lstat().on(path)?;
    let mut usage = Usage { progress, sectors: 0, counted: HashSet::new() };
    usage.count(&stat);
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&entry.dir, &*entry.name, flags, Mode::empty()).on(path)?;
        usage.tree(&dir, path)?;
    }
    usage.progress.pulse_end();
    i64::try_from(usage.sectors.div_ceil(2))
        .map_err(|_| Error::new(Errno::EOVERFLOW, "takes more than a number can say").within(path))
}

struct Usage<'a, 'p> {
    progress: &'a mut Progress<'p>,
    /// Of 512 bytes each.
    sectors: u64,
    /// Files of several names that have been counted.
    counted: HashSet<(u64, u64)>,
}

impl Usage<'_, '_> {
    fn count(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        if stat.st_nlink > 1 && !directory && !self.counted.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.sectors = self.sectors.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0));
    }

    fn tree(&mut self, dir: &OwnedFd, shown: GuestPath<'_>) -> Result<()> {
        let mut walk = Walk::new(dir).on(shown)?;
        loop {
            let done = match walk.step() {
                Ok(None) => return Ok(()),
                Ok(Some(Step::Left)) => Ok(()),
                Ok(Some(Step::Found)) => match self.found(&mut walk) {
                    // Removed or replaced meanwhile.
                    Err(Raw::NOENT | Raw::NOTDIR | Raw::LOOP) => Ok(()),
                    done => done,
                },
                Err(e) => Err(e),
            };
            done.on(OsStr::from_bytes(walk.path())).map_err(|e| e.within(shown))?;
            if guest_fs::interrupt::requested() {
                return Err(Error::new(Errno::EINTR, "the daemon was told to end"));
            }
            self.progress.pulse();
        }
    }

    fn found(&mut self, walk: &mut Walk) -> rustix::io::Result<()> {
        let stat = walk.stat()?;
        self.count(&stat);
        if FileType::from_raw_mode(stat.st_mode).is_dir() { walk.enter() } else { Ok(()) }
    }
}

/// Writes patterns over a file and removes it. A link is followed: what it leads to is removed.
pub(crate) fn scrub_file(s: &mut Session, file: GuestPath<'_>) -> Result<()> {
    let target = s.open(file, OFlags::PATH)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&target).on(file)?.st_mode);
    if !kind.is_file() {
        return Err(Error::argument("file", file, "is no regular file"));
    }
    let path = proc_path(target.as_fd());
    Tool::new("scrub").arg(path).ok().map_err(|e| e.within(file))?;
    let entry = s.root()?.entry_of(s.sysroot(), &target).on(file)?;
    rustix::fs::unlinkat(&entry.dir, &*entry.name, AtFlags::empty()).on(file)
}

/// Fills a filesystem with files in a directory that is made for it, writes patterns over them and removes all
/// that.
pub(crate) fn scrub_freespace(s: &mut Session, dir: GuestPath<'_>) -> Result<()> {
    let entry = s.entry(dir)?;
    if entry.lstat().is_ok() {
        return Err(Error::new(Errno::EEXIST, "dir: exists: it is to be made").within(dir));
    }
    let path = proc_path(entry.dir.as_fd()).join(&entry.name);
    let done = Tool::new("scrub").arg("-X").arg(path).ok();
    if done.is_err() {
        remove_flat(&entry.dir, &entry.name);
    }
    done.map_err(|e| e.within(dir))
}

/// Removes what a program that failed has left: a directory with files.
fn remove_flat(above: &OwnedFd, name: &OsStr) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(above, name, flags, Mode::empty()) else { return };
    for entry in Dir::read_from(&fd).into_iter().flatten().flatten() {
        // `.` and `..` are no files.
        rustix::fs::unlinkat(&fd, entry.file_name(), AtFlags::empty()).ok();
    }
    rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR).ok();
}

/// Fills what is free with zeroes, and frees it again.
pub(crate) fn zero_free_space(
    s: &mut Session,
    directory: GuestPath<'_>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let dir = s.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
    // What was removed a moment ago is free once that is on the disk.
    s.flushes().syncfs(&dir, directory)?;
    let space = rustix::fs::fstatvfs(&dir).on(directory)?;
    let total = space.f_bavail.saturating_mul(space.f_frsize).max(1);
    // Files without names: they are gone however this ends. All of them stay open, and full, until the end.
    let mut files = vec![nameless(&dir).on(directory)?];
    let zeroes = vec![0; PIECE];
    let (mut done, mut len) = (0u64, PIECE);
    while let Some(file) = files.last() {
        if guest_fs::interrupt::requested() {
            return Err(Error::new(Errno::EINTR, "the daemon was told to end"));
        }
        match rustix::io::write(file, &zeroes[..len]) {
            Ok(n) => done += n as u64,
            Err(Raw::NOSPC | Raw::DQUOT) if len > SECTOR => len /= 2,
            Err(Raw::NOSPC | Raw::DQUOT) => break,
            Err(Raw::FBIG) if files.len() < MAX_FILES => match nameless(&dir) {
                // Not even an inode is left.
                Err(Raw::NOSPC | Raw::DQUOT) => break,
                file => files.push(file.on(directory)?),
            },
            Err(Raw::INTR) => {}
            Err(e) => return Err(e).on(directory),
        }
        progress.at(done.min(total - 1), total);
    }
    // What was not written back would never reach the disk.
    for file in &files {
        match rustix::fs::fsync(file) {
            Err(Raw::NOSPC | Raw::DQUOT) => {}
            done => done.on(directory)?,
        }
    }
    progress.at(total, total);
    Ok(())
}

/// A file in a directory that has no name, or none for long.
fn nameless(dir: &File) -> rustix::io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o600);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, ".", flags | OFlags::TMPFILE, mode) {
        Err(Raw::OPNOTSUPP | Raw::ISDIR | Raw::INVAL) => {}
        made => return made,
    }
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    // Names that nobody has; 8.3 for the sake of FAT.
    for n in 0.. {
        let name = format!("zero{n:04}.tmp");
        match rustix::fs::openat(dir, &name, flags, mode) {
            Err(Raw::EXIST) if n < 9999 => {}
            made => {
                let made = made?;
                rustix::fs::unlinkat(dir, &name, AtFlags::empty())?;
                return Ok(made);
            }
        }
    }
    Err(Raw::EXIST)
}

/// Has the filesystem tell its disk what is free.
pub(crate) fn fstrim(
    s: &mut Session,
    mountpoint: GuestPath<'_>,
    options: &options::Fstrim,
) -> Result<()> {
    let at_least = |name: &str, value: Option<i64>, least: i64, default: u64| match value {
        None => Ok(default),
        Some(v) if v >= least => Ok(v.cast_unsigned()),
        Some(v) => Err(Error::argument(name, v.to_string(), "is too small")),
    };
    let start = at_least("offset", options.offset, 0, 0)?;
    let len = at_least("length", options.length, 1, u64::MAX)?;
    let minlen = at_least("minimumfreeextent", options.minimumfreeextent, 1, 0)?;
    let dir = s.open(mountpoint, OFlags::RDONLY | OFlags::DIRECTORY)?;
    // What was freed a moment ago counts as free once it is on the disk.
    s.flushes().syncfs(&dir, mountpoint)?;
    match trim::free_extents(&dir, start, len, minlen) {
        Err(Raw::OPNOTSUPP | Raw::NOTTY) => Err(Error::not_supported(
            "this filesystem, or the disk below it, does not support trimming",
        )
        .within(mountpoint)),
        trimmed => trimmed.map(drop).on(mountpoint),
    }
}
