// SPDX-License-Identifier: Apache-2.0
//! Making archives.

use crate::glob::Pattern;
use crate::tar::extra;
use crate::tar::header::{
    BLOCK, DEVMAJOR, DEVMINOR, GID, GNAME, Header, LINKNAME, MAX_OCTAL_7, MAX_OCTAL_11, MODE,
    MTIME, NAME, PREFIX, SIZE, UID, UNAME,
};
use crate::tar::names::Names;
use crate::tar::{ACLS, Attributes, SELINUX};
use crate::tree::{Step, Walk};
use crate::xattr;
use guest_error::{Context, Result, from_io};
use rustix::fs::{FileType, Mode, OFlags, Stat, Timespec};
use rustix::io::Errno as Raw;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;
/// Archives are padded to whole records of this size, as everybody does.
const RECORD: u64 = 10_240;

/// What goes into an archive, and how.
#[derive(Debug, Default)]
pub struct Options {
    /// Owners as numbers only.
    pub numeric_owner: bool,
    /// Names that are left out, with everything below them.
    pub excludes: Vec<Pattern>,
    /// What goes in besides contents.
    pub attributes: Attributes,
}

/// Writes an archive of a directory: itself as `./` and all below it.
pub fn write(dir: OwnedFd, options: &Options, out: &mut dyn Write) -> Result<()> {
    let (users, groups) =
        if options.numeric_owner { Default::default() } else { (Names::users(), Names::groups()) };
    let buffer = vec![0; PIECE].into_boxed_slice();
    let mut archive =
        Archive { out, options, users, groups, links: HashMap::new(), written: 0, buffer };
    archive.tree(&dir)?;
    // Two empty blocks end it.
    archive.put(&[0; 2 * BLOCK])?;
    let rest = archive.written.next_multiple_of(RECORD) - archive.written;
    archive.zeroes(rest)
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    options: &'a Options,
    users: Names,
    groups: Names,
    /// Names under which files of several names went in first.
    links: HashMap<(u64, u64), Vec<u8>>,
    written: u64,
    buffer: Box<[u8]>,
}

impl Archive<'_> {
    fn tree(&mut self, top: &OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(top).on("./")?;
        self.member(b"./", &stat, top.as_fd(), OsStr::new("."), None)?;
        let mut walk = Walk::new(top).on("./")?;
        loop {
            let step = walk.step();
            let mut path = b"./".to_vec();
            path.extend_from_slice(walk.path());
            match step.on(OsStr::from_bytes(&path))? {
                None => return Ok(()),
                Some(Step::Left) => continue,
                Some(Step::Found) => {}
            }
            if !self.options.excludes.iter().any(|p| p.matches_member(&path)) {
                self.entry(path, &mut walk)?;
            }
        }
    }

    /// Puts in what the walk has found; a directory is entered.
    fn entry(&mut self, mut path: Vec<u8>, walk: &mut Walk) -> Result<()> {
        let shown = OsStr::from_bytes(&path).to_owned();
        let stat = match walk.stat() {
            // Removed meanwhile.
            Err(Raw::NOENT) => return Ok(()),
            stat => stat.on(&shown)?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                walk.enter().on(&shown)?;
                path.push(b'/');
                let dir = walk.dir().on(&shown)?;
                self.member(&path, &stat, dir, OsStr::new("."), None)
            }
            FileType::RegularFile => {
                let key = (stat.st_dev, stat.st_ino);
                if stat.st_nlink > 1
                    && let Some(first) = self.links.get(&key)
                {
                    let first = first.clone();
                    return self.link(&path, &stat, &first);
                }
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let fd = walk.open(flags).on(&shown)?;
                let stat = rustix::fs::fstat(&fd).on(&shown)?;
                self.member(&path, &stat, walk.dir().on(&shown)?, walk.name(), Some(&fd))?;
                if stat.st_nlink > 1 {
                    self.links.insert(key, path);
                }
                Ok(())
            }
            FileType::Socket | FileType::Unknown => {
                tracing::warn!(path = ?shown, "socket left out of the archive");
                Ok(())
            }
            _ => self.member(&path, &stat, walk.dir().on(&shown)?, walk.name(), None),
        }
    }

    /// A file that is in the archive already under another name.
    fn link(&mut self, path: &[u8], stat: &Stat, first: &[u8]) -> Result<()> {
        let mut pax = Vec::new();
        let mut header = Header::new(b'1');
        set_name(&mut header, &mut pax, path);
        set_link(&mut header, &mut pax, first);
        self.set_meta(&mut header, &mut pax, stat, 0);
        self.headers(header, &pax, path)
    }

    /// One member, with its content if it is a file.
    fn member(
        &mut self,
        path: &[u8],
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        content: Option<&OwnedFd>,
    ) -> Result<()> {
        let shown = OsStr::from_bytes(path);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut pax = Vec::new();
        let mut header = Header::new(match kind {
            FileType::Directory => b'5',
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Fifo => b'6',
            _ => b'0',
        });
        set_name(&mut header, &mut pax, path);
        if kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).on(shown)?;
            set_link(&mut header, &mut pax, target.as_bytes());
        }
        if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            header.set_number(DEVMAJOR, rustix::fs::major(stat.st_rdev).into());
            header.set_number(DEVMINOR, rustix::fs::minor(stat.st_rdev).into());
        }
        let size = if content.is_some() { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        self.set_meta(&mut header, &mut pax, stat, size);
        if self.is_extended() {
            let wanted = self.options.attributes;
            match content {
                Some(fd) => attributes(&mut pax, fd.as_fd(), wanted).on(shown)?,
                None => {
                    // Links, nodes and FIFOs as well: nothing is opened but their place.
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).on(shown)?;
                    attributes(&mut pax, fd.as_fd(), wanted).on(shown)?;
                }
            }
        }
        self.headers(header, &pax, path)?;
        if let Some(fd) = content {
            self.content(fd, size, shown)?;
        }
        Ok(())
    }

    /// Whether members have pax headers in any case: then these say, too, what a plain header has no room for.
    fn is_extended(&self) -> bool {
        let Attributes { xattrs, selinux, acls } = self.options.attributes;
        xattrs || selinux || acls
    }

    fn set_meta(&self, header: &mut Header, pax: &mut Vec<u8>, stat: &Stat, size: u64) {
        header.set_number(MODE, u64::from(stat.st_mode & 0o7777));
        for (field, key, value, max) in [
            (UID, "uid", u64::from(stat.st_uid), MAX_OCTAL_7),
            (GID, "gid", u64::from(stat.st_gid), MAX_OCTAL_7),
            (SIZE, "size", size, MAX_OCTAL_11),
        ] {
            match value {
                value if value <= max => header.set_number(field, value),
                _ => record(pax, key, value.to_string().as_bytes()),
            }
        }
        let time = modified(stat);
        let seconds = u64::try_from(time.tv_sec).ok().filter(|s| *s <= MAX_OCTAL_11);
        if let Some(seconds) = seconds {
            header.set_number(MTIME, seconds);
        }
        // The header has whole seconds.
        if seconds.is_none() || (self.is_extended() && time.tv_nsec != 0) {
            record(pax, "mtime", extra::decimal(time).as_bytes());
        }
        header.set_text(UNAME, self.users.name(stat.st_uid));
        header.set_text(GNAME, self.groups.name(stat.st_gid));
    }

    /// Writes a header, before it what does not fit into it.
    fn headers(&mut self, mut header: Header, pax: &[u8], path: &[u8]) -> Result<()> {
        if !pax.is_empty() {
            let mut extended = Header::new(b'x');
            let base = path.rsplit(|&b| b == b'/').find(|c| !c.is_empty()).unwrap_or(b"x");
            let mut name = b"./PaxHeaders/".to_vec();
            name.extend_from_slice(&base[..base.len().min(80)]);
            extended.set_text(NAME, &name);
            extended.set_number(MODE, 0o644);
            extended.set_number(SIZE, pax.len() as u64);
            extended.finish();
            self.put(&extended.0)?;
            self.put(pax)?;
            self.pad(pax.len() as u64)?;
        }
        header.finish();
        self.put(&header.0)
    }

    /// A file's content, as long as its header says: one that shrinks in the meantime is filled up with zeroes.
    fn content(&mut self, fd: &OwnedFd, size: u64, shown: &OsStr) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            match rustix::io::read(fd, &mut buffer[..want]) {
                Ok(0) => {
                    tracing::warn!(path = ?shown, "file shrank while it was read");
                    self.zeroes(left)?;
                    break;
                }
                Ok(n) => {
                    self.put(&buffer[..n])?;
                    left -= n as u64;
                }
                Err(Raw::INTR) if !crate::interrupt::requested() => {}
                Err(e) => return Err(e).on(shown),
            }
        }
        self.buffer = buffer;
        self.pad(size)
    }

    fn pad(&mut self, len: u64) -> Result<()> {
        self.zeroes(len.next_multiple_of(BLOCK as u64) - len)
    }

    fn zeroes(&mut self, mut n: u64) -> Result<()> {
        while n > 0 {
            let piece = n.min(BLOCK as u64);
            self.put(&[0; BLOCK][..usize::try_from(piece).unwrap_or(BLOCK)])?;
            n -= piece;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| from_io(e, "archive"))
    }
}

#[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)] // As wide as this machine's are.
fn modified(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as i64 }
}

/// A member's name: whole, in two parts, or in a pax header.
fn set_name(header: &mut Header, pax: &mut Vec<u8>, name: &[u8]) {
    if name.len() <= NAME.len() {
        return header.set_text(NAME, name);
    }
    // The slash that parts it is in neither part.
    let first = name.len() - NAME.len() - 1;
    let slash = (first.max(1)..name.len() - 1).find(|&i| name[i] == b'/');
    match slash.filter(|&i| i <= PREFIX.len()) {
        Some(i) => {
            header.set_text(PREFIX, &name[..i]);
            header.set_text(NAME, &name[i + 1..]);
        }
        None => {
            header.set_text(NAME, name);
            record(pax, "path", name);
        }
    }
}

fn set_link(header: &mut Header, pax: &mut Vec<u8>, target: &[u8]) {
    header.set_text(LINKNAME, target);
    if target.len() > LINKNAME.len() {
        record(pax, "linkpath", target);
    }
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(pax: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    pax.extend_from_slice(format!("{len} {key}=").as_bytes());
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// Extended attributes that are wanted.
fn attributes(pax: &mut Vec<u8>, fd: BorrowedFd<'_>, wanted: Attributes) -> rustix::io::Result<()> {
    let found = match xattr::all(fd) {
        Err(Raw::OPNOTSUPP) => return Ok(()),
        found => found?,
    };
    for (name, value) in found {
        if let Some((_, key)) = ACLS.iter().find(|(attribute, _)| name == *attribute) {
            if wanted.acls {
                record(pax, key, crate::acl::to_text(&value).ok_or(Raw::INVAL)?.as_bytes());
            }
        } else if name == SELINUX {
            if wanted.selinux {
                record(pax, "RHT.security.selinux", &value);
            }
        } else if wanted.xattrs
            && let Some(name) = name.to_str()
        {
            record(pax, &format!("SCHILY.xattr.{name}"), &value);
        }
    }
    Ok(())
}
