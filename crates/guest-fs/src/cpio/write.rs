// SPDX-License-Identifier: Apache-2.0
//! Making archives.

use crate::cpio::{ALIGN, FIELDS, MAGIC_CRC, MAGIC_NEWC, TRAILER};
use crate::tree::{Step, Walk};
use guest_error::{Context, Errno, Error, Result, from_io};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno as Raw;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;
/// Archives are padded to whole blocks of this size, as everybody does.
const BLOCK: usize = 512;

/// Formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Without checksums.
    Newc,
    /// With checksums.
    Crc,
}

/// Writes an archive of a directory: itself as `.` and all below it.
pub fn write(dir: OwnedFd, format: Format, out: &mut dyn Write) -> Result<()> {
    let buffer = vec![0; PIECE].into_boxed_slice();
    let mut archive = Archive { out, format, written: 0, files: HashMap::new(), next: 1, buffer };
    archive.tree(&dir)?;
    archive.header(TRAILER, &Header { links: 1, ..Header::default() })?;
    archive.pad(BLOCK as u64)
}

/// What is in a header, less what is computed.
#[derive(Debug, Default)]
struct Header {
    ino: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
    check: u32,
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    format: Format,
    written: u64,
    /// Numbers of files of several names that are in the archive already. New numbers are given: those of the
    /// filesystem may be longer than a header's field.
    files: HashMap<(u64, u64), u32>,
    next: u32,
    buffer: Box<[u8]>,
}

impl Archive<'_> {
    fn tree(&mut self, top: &OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(top).on(".")?;
        self.member(b".", &stat, top.as_fd(), OsStr::new("."))?;
        let mut walk = Walk::new(top).on(".")?;
        loop {
            let step = walk.step();
            let shown = OsStr::from_bytes(walk.path()).to_owned();
            match step.on(&shown)? {
                None => return Ok(()),
                Some(Step::Left) => continue,
                Some(Step::Found) => {}
            }
            let stat = match walk.stat() {
                // Removed meanwhile.
                Err(Raw::NOENT) => continue,
                stat => stat.on(&shown)?,
            };
            self.member(walk.path(), &stat, walk.dir().on(&shown)?, walk.name())?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                walk.enter().on(&shown)?;
            }
        }
    }

    /// One member with its content, unless that is in the archive under another name.
    fn member(
        &mut self,
        path: &[u8],
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        let shown = OsStr::from_bytes(path);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let key = (stat.st_dev, stat.st_ino);
        let several = stat.st_nlink > 1 && !kind.is_dir();
        let known = self.files.get(&key).copied().filter(|_| several);
        let ino = known.unwrap_or(self.next);
        if known.is_none() {
            self.next = self.next.wrapping_add(1).max(1);
            if several {
                self.files.insert(key, ino);
            }
        }
        let special = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let mut header = Header {
            ino,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            // A header has no room for times before 1970 and after 2106.
            mtime: u32::try_from(stat.st_mtime.max(0)).unwrap_or(u32::MAX),
            device: match special {
                true => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
                false => (0, 0),
            },
            ..Header::default()
        };
        let limit = |len: u64| {
            let text = "is 4 GiB or longer, which this format has no room for";
            u32::try_from(len).map_err(|_| Error::new(Errno::EFBIG, text).within(shown))
        };
        match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).on(shown)?;
                header.size = limit(target.as_bytes().len() as u64)?;
                header.check = self.checked(target.as_bytes());
                self.header(path, &header)?;
                self.put(target.as_bytes())?;
                self.pad(ALIGN)
            }
            FileType::RegularFile if known.is_none() => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).on(shown)?;
                let size = u64::try_from(rustix::fs::fstat(&fd).on(shown)?.st_size).unwrap_or(0);
                header.size = limit(size)?;
                if self.format == Format::Crc {
                    let mut sum = 0u32;
                    self.each_piece(&fd, size, shown, &mut |_, bytes| {
                        sum = sum.wrapping_add(checksum(bytes));
                        Ok(())
                    })?;
                    header.check = sum;
                }
                self.header(path, &header)?;
                self.each_piece(&fd, size, shown, &mut |archive, bytes| archive.put(bytes))?;
                self.pad(ALIGN)
            }
            _ => self.header(path, &header),
        }
    }

    fn header(&mut self, path: &[u8], h: &Header) -> Result<()> {
        let magic = if self.format == Format::Crc { MAGIC_CRC } else { MAGIC_NEWC };
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let (major, minor) = h.device;
        let fields: [u32; FIELDS] = [
            h.ino, h.mode, h.uid, h.gid, h.links, h.mtime, h.size, 0, 0, major, minor, name,
            h.check,
        ];
        let mut text = magic.to_vec();
        for field in fields {
            write!(text, "{field:08X}").on("archive")?;
        }
        text.extend_from_slice(path);
        text.push(0);
        self.put(&text)?;
        self.pad(ALIGN)
    }

    /// Hands on this many bytes of a file from its beginning; one that shrinks in the meantime is filled up with
    /// zeroes.
    fn each_piece(
        &mut self,
        fd: &OwnedFd,
        size: u64,
        shown: &OsStr,
        sink: &mut dyn FnMut(&mut Self, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = 0;
        while done < size {
            let want = usize::try_from(size - done).unwrap_or(PIECE).min(PIECE);
            let n = match rustix::io::pread(fd, &mut buffer[..want], done) {
                Ok(0) => {
                    buffer[..want].fill(0);
                    want
                }
                Err(Raw::INTR) if !crate::interrupt::requested() => continue,
                n => n.on(shown)?,
            };
            sink(self, &buffer[..n])?;
            done += n as u64;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn checked(&self, bytes: &[u8]) -> u32 {
        if self.format == Format::Crc { checksum(bytes) } else { 0 }
    }

    fn pad(&mut self, to: u64) -> Result<()> {
        let n = self.written.next_multiple_of(to) - self.written;
        self.put(&[0; BLOCK][..usize::try_from(n).unwrap_or(0)])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| from_io(e, "archive"))
    }
}

/// The sum of all bytes: what the crc format has for a checksum.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, &b| sum.wrapping_add(b.into()))
}
