// SPDX-License-Identifier: Apache-2.0
//! `file//path`: a regular file or a block device that holds the blocks as they are.
//!
//! I/O goes through the page cache, as the C daemon's does: what is acknowledged survives the
//! death of the daemon, and [`Store::flush`] is fdatasync.
//!
//! | | regular file | block device |
//! | --- | --- | --- |
//! | discard | a hole; reads as zeroes | BLKDISCARD; content undefined |
//! | write zeroes, may unmap | a hole | write-zeroes of the device that unmaps |
//! | write zeroes | unwritten extents (FALLOC_FL_ZERO_RANGE) | write-zeroes of the device |
//! | provisioning | SEEK_HOLE, SEEK_DATA | all is mapped |
//! | resize | grows the file; shrinking leaves its content | the device has to be large enough |
//!
//! Where a file system supports none of these, zeroes are written.
mod lock;
mod open;
mod sys;

use std::cell::Cell;
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use io_engine::{File, unblock};
use rustix::fs::{SeekFrom, fstat, fstatvfs, ftruncate, seek};
use rustix::io::Errno;
use sgl::Sgl;

use crate::protocol::zeroes;
use crate::{Config, Discard, Error, ErrorKind, Facts, Locking, OpenOptions, Provisioning, Store};
pub use lock::{Locks, lock as lock_image};
pub use open::Held;
pub(crate) use open::{Identity, Image, Place, open as open_image};

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// A file or block device, or memory that looks like a file.
#[derive(Debug)]
pub struct FileStore {
    image: Image,
    file: Arc<File>,
    path: PathBuf,
    size: Cell<u64>,
    read_only: bool,
    optimal_io: u32,
    device: Option<BlockDevice>,
    /// Whether holes can be punched.
    punch: Cell<bool>,
    /// Whether ranges can be zeroed; found out at the first attempt.
    zero: Cell<bool>,
}

/// What sysfs says of a block device, in bytes.
#[derive(Clone, Copy, Debug)]
struct BlockDevice {
    logical_block: u32,
    discard: Option<u32>,
}

pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    Place::find(config.path()?).map(drop)
}

pub(crate) async fn open(config: &Config<'_>, options: &OpenOptions) -> Result<FileStore, Error> {
    let place = Place::find(config.path()?)?;
    let locked = options.locking != Locking::None;
    let image = open_image(&place, options.read_only, locked, options.predecessor.as_ref()).await?;
    FileStore::from_image(image, place.path(), options)
}

impl FileStore {
    /// What its successor takes over.
    pub(crate) fn held(&self) -> Held {
        Held::new(vec![self.image.clone()])
    }

    /// Takes an open image; `path` is for messages.
    pub(crate) fn from_image(
        image: Image,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let size = image.size;
        let size = match options.size {
            None => size,
            Some(wanted) if wanted <= size => wanted,
            Some(wanted) => return Err(too_small(wanted, size, path)),
        };
        let failed = |e: Errno| Error::new(e, "find its properties", path);
        let file = image.file.clone();
        let stat = fstat(&*file).map_err(failed)?;
        let device = image.is_block_device().then(|| BlockDevice::from_sysfs(stat.st_rdev));
        let best = u32::try_from(stat.st_blksize).unwrap_or(4096).clamp(512, 1 << 20);
        let punch = device.is_none() && !options.read_only && can_punch(&file, size);
        Ok(FileStore {
            image,
            file,
            path: path.to_owned(),
            size: Cell::new(size),
            read_only: options.read_only,
            optimal_io: best.next_power_of_two(),
            device,
            punch: Cell::new(punch || device.is_some()),
            zero: Cell::new(true),
        })
    }

    fn error(&self, kind: impl Into<ErrorKind>, operation: impl Display) -> Error {
        Error::new(kind, operation.to_string(), &self.path)
    }

    /// An error of an operation on a range, where there is one.
    fn range<T>(
        &self,
        result: io::Result<T>,
        what: &str,
        len: u64,
        offset: u64,
    ) -> Result<T, Error> {
        result.map_err(|e| self.error(e, format_args!("{what} {len} bytes at {offset}")))
    }

    fn writable(&self, what: &str) -> Result<(), Error> {
        if self.read_only { Err(self.error(ErrorKind::ReadOnly, what)) } else { Ok(()) }
    }

    /// The part of a range that consists of whole blocks of the device, empty if there is none.
    fn whole_blocks(&self, offset: u64, len: u64) -> (u64, u64) {
        let block = u64::from(self.device.map_or(1, |device| device.logical_block));
        let begin = offset.next_multiple_of(block);
        let end = (offset + len) / block * block;
        if begin < end { (begin, end) } else { (offset, offset) }
    }

    /// Zeroes by fallocate, which block devices support in whole blocks only; false: it is not
    /// supported.
    async fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<bool> {
        let (begin, end) = self.whole_blocks(offset, len);
        if begin < end {
            match self.file.fallocate(mode, begin, end - begin).await {
                Ok(()) => {}
                Err(e) if is_unsupported(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        zeroes::write(&self.file, offset, begin - offset).await?;
        zeroes::write(&self.file, end, offset + len - end).await?;
        Ok(true)
    }

    async fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap && self.punch.get() {
            if self.fallocate(PUNCH, offset, len).await? {
                return Ok(());
            }
            self.punch.set(false);
        }
        if self.zero.get() {
            if self.fallocate(ZERO, offset, len).await? {
                return Ok(());
            }
            self.zero.set(false);
        }
        zeroes::write(&self.file, offset, len).await
    }
}

/// An operation that ends on stable storage, for the message of its error.
pub(crate) fn durable(operation: impl Display, file: &File) -> String {
    let hint = match file.check_flushed() {
        Ok(()) => "",
        Err(_) => {
            " (what was written may be lost: flushes fail until the image is closed and opened again)"
        }
    };
    format!("{operation}{hint}")
}

fn too_small(wanted: u64, size: u64, path: &Path) -> Error {
    let text = format!(
        "it has {size} bytes, which is less than the {wanted} bytes of the device; enlarge it \
         (truncate -s {wanted}) or make the device smaller"
    );
    Error::invalid(text, "open", path)
}

fn is_unsupported(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::OPNOTSUPP | Errno::NOSYS))
}

/// Whether the file system can punch holes. Tries it past the end of the file, where there is
/// nothing to lose.
fn can_punch(file: &File, size: u64) -> bool {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let behind = size.next_multiple_of(1 << 20);
    rustix::fs::fallocate(file, flags, behind, 4096).is_ok()
}

impl BlockDevice {
    /// Asks sysfs; for values that are missing there the worst is assumed.
    fn from_sysfs(device: u64) -> Self {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let base = format!("/sys/dev/block/{major}:{minor}");
        let number = |name: &str| {
            // A partition uses the queue of its disk.
            let own = std::fs::read_to_string(format!("{base}/queue/{name}"));
            let text = own.or_else(|_| std::fs::read_to_string(format!("{base}/../queue/{name}")));
            text.ok()?.trim().parse::<u64>().ok()
        };
        let small = |value: Option<u64>| value.and_then(|n| u32::try_from(n).ok());
        let logical_block = small(number("logical_block_size")).unwrap_or(4096).max(512);
        let discard = number("discard_max_bytes")
            .filter(|&max| max > 0)
            .map(|_| small(number("discard_granularity")).unwrap_or(0).max(logical_block));
        BlockDevice { logical_block, discard }
    }
}

impl Store for FileStore {
    fn facts(&self) -> Facts {
        let discard = match self.device {
            Some(device) => {
                device.discard.map(|granularity| Discard { granularity, zeroes: false })
            }
            None => self.punch.get().then(|| {
                let block = fstatvfs(&*self.file).map_or(4096, |fs| fs.f_frsize);
                let block = u32::try_from(block).unwrap_or(4096).clamp(512, 1 << 20);
                Discard { granularity: block, zeroes: true }
            }),
        };
        Facts {
            size: self.size.get(),
            read_only: self.read_only,
            optimal_io: self.optimal_io,
            discard: discard.filter(|_| !self.read_only),
            write_zeroes: self.zero.get() || self.punch.get(),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let n = match self.file.read_at(data, offset).await {
            Ok(n) if n == data.len() => return Ok(()),
            Ok(n) => n,
            Err(e) => return self.range(Err(e), "read", data.len() as u64, offset),
        };
        let text = format!("the file ends at {}: it was cut off", offset + n as u64);
        let e = io::Error::new(io::ErrorKind::UnexpectedEof, text);
        self.range(Err(e), "read", data.len() as u64, offset)
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.writable("write")?;
        match self.file.write_at(data, offset, fua).await {
            Ok(()) => Ok(()),
            Err(e) => {
                let what = if fua { durable("write", &self.file) } else { "write".into() };
                self.range(Err(e), &what, data.len() as u64, offset)
            }
        }
    }

    async fn flush(&self) -> Result<(), Error> {
        self.file.sync(true).await.map_err(|e| self.error(e, durable("flush", &self.file)))
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.writable("discard")?;
        let result = match self.device {
            None => match self.fallocate(PUNCH, offset, len).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    self.punch.set(false);
                    Err(Errno::OPNOTSUPP.into())
                }
                Err(e) => Err(e),
            },
            Some(_) => {
                // What is left over at the edges keeps its content, as a discard may.
                let (begin, end) = self.whole_blocks(offset, len);
                if begin == end {
                    return Ok(());
                }
                let file = self.file.clone();
                unblock(move || sys::discard(file.as_fd(), begin, end - begin)).await
            }
        };
        self.range(result, "discard", len, offset)
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        self.writable("write zeroes")?;
        let result = self.zero(offset, len, may_unmap).await;
        self.range(result, "write zeroes to", len, offset)
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        if self.device.is_some() {
            return Ok((Provisioning::Mapped, len));
        }
        let file = self.file.clone();
        let found = unblock(move || extent(&file, offset)).await;
        let (kind, end) =
            found.map_err(|e| self.error(e, format_args!("look for data at {offset}")))?;
        Ok((kind, end.saturating_sub(offset).clamp(1, len.max(1))))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        let what = format_args!("resize to {size} bytes").to_string();
        let failed = |e: Errno| self.error(e, &what);
        let there = seek(&*self.file, SeekFrom::End(0)).map_err(failed)?;
        if size > there {
            self.writable(&what)?;
            if self.device.is_some() {
                let text = format!(
                    "the block device has {there} bytes; enlarge it first, or make the size at \
                     most {there}"
                );
                return Err(self.error(ErrorKind::Invalid(text), what));
            }
            ftruncate(&*self.file, size).map_err(failed)?;
        }
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        if self.read_only { Ok(()) } else { self.flush().await }
    }
}

/// Whether there is data at `offset`, and where that ends. Blocks.
fn extent(file: &File, offset: u64) -> Result<(Provisioning, u64), Errno> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => Ok((Provisioning::Deallocated, data)),
        Ok(_) => Ok((Provisioning::Mapped, seek(file, SeekFrom::Hole(offset))?)),
        // No data up to the end.
        Err(Errno::NXIO) => Ok((Provisioning::Deallocated, u64::MAX)),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
