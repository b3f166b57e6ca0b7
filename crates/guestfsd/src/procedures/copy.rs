// SPDX-License-Identifier: Apache-2.0
//! Copies between files of the guest and devices: `dd`, `copy_size` and the four `copy_*_to_*`, and attributes
//! from one file to another.
//!
//! A file that the copy goes to is made if it is not there, and emptied unless the copy is to be appended or it
//! is the very file that is copied from. If the copy fails, a file that was made for it is removed.

use super::numbers::not_negative;
use super::transfer::{open, refuse_directory, size_of};
use crate::devices::Device;
use crate::mountable::DevOrPath;
use crate::session::Session;
use crate::transfer::Progress;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use guest_fs::xattr;
use guestfs_api::options;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno as Raw;
use std::fs::File;
use std::os::fd::AsFd;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Bytes that the kernel is asked to copy at once, so that progress can be told.
const KERNEL_PIECE: usize = 64 << 20;
/// Blocks of so many zeroes are left out of sparse copies.
const BLOCK: usize = 4096;
static ZEROES: [u8; BLOCK] = [0; BLOCK];

/// What is copied and where to.
#[derive(Debug, Default)]
struct Part {
    from: u64,
    to: u64,
    /// Exactly so much, or else all there is.
    len: Option<u64>,
    sparse: bool,
    append: bool,
}

impl Part {
    fn new(
        from: Option<i64>,
        to: Option<i64>,
        len: Option<i64>,
        sparse: Option<bool>,
        append: Option<bool>,
    ) -> Result<Self> {
        Ok(Self {
            from: not_negative("srcoffset", from.unwrap_or(0))?,
            to: not_negative("destoffset", to.unwrap_or(0))?,
            len: len.map(|len| not_negative("size", len)).transpose()?,
            sparse: sparse == Some(true),
            append: append == Some(true),
        })
    }
}

macro_rules! part {
    ($o:expr) => {
        Part::new($o.srcoffset, $o.destoffset, $o.size, $o.sparse, $o.append)
    };
}

/// Copies a whole file or device.
pub(crate) fn dd(s: &mut Session, src: DevOrPath<'_>, dest: DevOrPath<'_>) -> Result<()> {
    copy(s, &src, &dest, Part::default(), None)
}

/// Copies exactly `size` bytes.
pub(crate) fn copy_size(
    s: &mut Session,
    src: DevOrPath<'_>,
    dest: DevOrPath<'_>,
    size: i64,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let part = Part { len: Some(not_negative("size", size)?), ..Part::default() };
    copy(s, &src, &dest, part, Some(progress))
}

/// Copies (part of) a device to a device.
pub(crate) fn copy_device_to_device(
    s: &mut Session,
    src: Device,
    dest: Device,
    options: &options::CopyDeviceToDevice,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let (src, dest) = (DevOrPath::Device(src), DevOrPath::Device(dest));
    copy(s, &src, &dest, part!(options)?, Some(progress))
}

/// Copies (part of) a device to a file.
pub(crate) fn copy_device_to_file(
    s: &mut Session,
    src: Device,
    dest: GuestPath<'_>,
    options: &options::CopyDeviceToFile,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let (src, dest) = (DevOrPath::Device(src), DevOrPath::Path(dest));
    copy(s, &src, &dest, part!(options)?, Some(progress))
}

/// Copies (part of) a file to a device.
pub(crate) fn copy_file_to_device(
    s: &mut Session,
    src: GuestPath<'_>,
    dest: Device,
    options: &options::CopyFileToDevice,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let (src, dest) = (DevOrPath::Path(src), DevOrPath::Device(dest));
    copy(s, &src, &dest, part!(options)?, Some(progress))
}

/// Copies (part of) a file to a file.
pub(crate) fn copy_file_to_file(
    s: &mut Session,
    src: GuestPath<'_>,
    dest: GuestPath<'_>,
    options: &options::CopyFileToFile,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let (src, dest) = (DevOrPath::Path(src), DevOrPath::Path(dest));
    copy(s, &src, &dest, part!(options)?, Some(progress))
}

fn copy(
    s: &mut Session,
    src: &DevOrPath<'_>,
    dest: &DevOrPath<'_>,
    mut part: Part,
    progress: Option<&mut Progress<'_>>,
) -> Result<()> {
    let to_device = matches!(dest, DevOrPath::Device(_));
    if to_device && part.append {
        return Err(Error::argument("append", "true", "cannot be set for a copy to a device"));
    }
    // Without NONBLOCK, opening a FIFO would wait for its other end.
    let source = open(s, src, OFlags::RDONLY | OFlags::NONBLOCK)?;
    refuse_directory(&source, src)?;
    check_offset("srcoffset", &source, part.from, src)?;
    let writing = OFlags::WRONLY | OFlags::NONBLOCK;
    let (target, made) = match (open(s, dest, writing), to_device) {
        (Err(e), false) if e.errno() == Errno::ENOENT => {
            (open(s, dest, writing | OFlags::CREATE)?, true)
        }
        (opened, _) => (opened?, false),
    };
    check_offset("destoffset", &target, part.to, dest)?;
    let stat = rustix::fs::fstat(&target).on(dest)?;
    let from = rustix::fs::fstat(&source).on(src)?;
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
    let same = (stat.st_dev, stat.st_ino) == (from.st_dev, from.st_ino);
    if part.append {
        part.to = size_of(&target).on(dest)?;
    } else if is_file && !same {
        rustix::fs::ftruncate(&target, 0).on(dest)?;
    }
    let there = size_of(&source).on(src)?.saturating_sub(part.from);
    let total = part.len.unwrap_or(there);
    // A file that is appended to itself grows while it is read.
    let limit = if same { total.min(there) } else { part.len.unwrap_or(u64::MAX) };
    let (source, target) = (&source, &target);
    let copied = Copy { source, target, part, limit, done: 0, total, src, dest, progress }.run();
    if to_device {
        s.udev().changed();
        copied?;
        return s.flushes().fsync(target, dest);
    }
    if copied.is_err()
        && made
        && let Ok(entry) = s.root()?.entry_of(s.sysroot(), target)
    {
        rustix::fs::unlinkat(&entry.dir, &*entry.name, AtFlags::empty()).ok();
    }
    copied
}

/// A block device has an end, beyond which nothing is.
fn check_offset(name: &str, file: &File, offset: u64, of: &DevOrPath<'_>) -> Result<()> {
    if let DevOrPath::Device(_) = of
        && offset > size_of(file).on(of)?
    {
        return Err(Error::argument(name, offset.to_string(), "is beyond the end of the device"));
    }
    Ok(())
}

struct Copy<'a, 'p> {
    source: &'a File,
    target: &'a File,
    part: Part,
    /// Most bytes that are copied, and how many have been.
    limit: u64,
    done: u64,
    /// Bytes that there are, as far as anybody knows; or 0.
    total: u64,
    src: &'a DevOrPath<'a>,
    dest: &'a DevOrPath<'a>,
    progress: Option<&'a mut Progress<'p>>,
}

impl Copy<'_, '_> {
    fn run(mut self) -> Result<()> {
        if !self.part.sparse {
            self.in_kernel()?;
        }
        self.through_here()?;
        if self.part.sparse {
            self.extend(self.part.to + self.done)?;
        }
        if self.part.len.is_some_and(|len| self.done < len) {
            let why = "is shorter than the part that is to be copied";
            return Err(Error::argument("src", self.src, why));
        }
        Ok(())
    }

    /// Has the kernel copy what it can: it shares blocks where the filesystem knows how to.
    fn in_kernel(&mut self) -> Result<()> {
        let (mut from, mut to) = (self.part.from, self.part.to);
        while self.done < self.limit {
            check_end()?;
            let want = usize::try_from(self.limit - self.done).unwrap_or(usize::MAX);
            let want = want.min(KERNEL_PIECE);
            let (source, target) = (self.source, self.target);
            match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), want)
            {
                Ok(n) if n > 0 => self.done += n as u64,
                Err(Raw::INTR) => {}
                Err(e @ (Raw::NOSPC | Raw::DQUOT | Raw::FBIG)) => return Err(e).on(self.dest),
                // The end, or what the kernel cannot copy between.
                _ => break,
            }
            self.tell();
        }
        Ok(())
    }

    /// Reads and writes what is left.
    fn through_here(&mut self) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        while self.done < self.limit {
            check_end()?;
            let want = usize::try_from(self.limit - self.done).unwrap_or(PIECE).min(PIECE);
            match read(self.source, &mut buffer[..want], self.part.from + self.done) {
                Ok(0) => break,
                Ok(n) => {
                    self.write(&buffer[..n], self.part.to + self.done)?;
                    self.done += n as u64;
                }
                Err(Raw::INTR) => {}
                Err(e) => return Err(e).on(self.src),
            }
            self.tell();
        }
        Ok(())
    }

    fn write(&self, data: &[u8], to: u64) -> Result<()> {
        let mut at = to;
        for piece in data.chunks(if self.part.sparse { BLOCK } else { PIECE }) {
            if !(self.part.sparse && piece == &ZEROES[..piece.len().min(BLOCK)]) {
                write_all(self.target, piece, at).on(self.dest)?;
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Zeroes at the end of a file that were not written belong to it anyway.
    fn extend(&self, end: u64) -> Result<()> {
        let stat = rustix::fs::fstat(self.target).on(self.dest)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if FileType::from_raw_mode(stat.st_mode).is_file() && size < end {
            rustix::fs::ftruncate(self.target, end).on(self.dest)?;
        }
        Ok(())
    }

    fn tell(&mut self) {
        if let Some(progress) = &mut self.progress {
            match self.total {
                0 => progress.pulse(),
                total => progress.at(self.done.min(total), total),
            }
        }
    }
}

fn check_end() -> Result<()> {
    match guest_fs::interrupt::requested() {
        true => Err(Error::new(Errno::EINTR, "the daemon was told to end")),
        false => Ok(()),
    }
}

/// Reads at an offset, or at the current position if the file has no offsets.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    match rustix::io::pread(file, &mut *buffer, offset) {
        Err(Raw::SPIPE) if offset == 0 => rustix::io::read(file, buffer),
        done => done,
    }
}

fn write_all(file: &File, mut data: &[u8], mut at: u64) -> rustix::io::Result<()> {
    while !data.is_empty() {
        let written = match rustix::io::pwrite(file, data, at) {
            Err(Raw::SPIPE) => rustix::io::write(file, data),
            done => done,
        };
        match written {
            Ok(0) => return Err(Raw::IO),
            Ok(n) => {
                data = &data[n..];
                at += n as u64;
            }
            Err(Raw::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Copies mode, owner and extended attributes of a file or directory, as far as they are asked for.
pub(crate) fn copy_attributes(
    s: &mut Session,
    src: GuestPath<'_>,
    dest: GuestPath<'_>,
    options: &options::CopyAttributes,
) -> Result<()> {
    let all = options.all == Some(true);
    let wanted = |option: Option<bool>| option.unwrap_or(all);
    let source = s.open(src, OFlags::PATH)?;
    let target = s.open(dest, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&source).on(src)?;
    // The owner first: changing it clears setuid and setgid, and file capabilities.
    if wanted(options.ownership) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(&target, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).on(dest)?;
    }
    if wanted(options.mode) {
        // fchmod takes no O_PATH descriptor; its name in /proc leads to it and nowhere else.
        let to = proc_path(target.as_fd());
        rustix::fs::chmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777)).on(dest)?;
    }
    if wanted(options.xattributes) {
        let found = match xattr::all(source.as_fd()) {
            Err(Raw::OPNOTSUPP) => Vec::new(),
            found => found.on(src)?,
        };
        for (name, value) in found {
            xattr::set(target.as_fd(), name, &value).on(dest)?;
        }
    }
    Ok(())
}
