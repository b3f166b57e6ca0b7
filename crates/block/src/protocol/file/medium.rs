// SPDX-License-Identifier: Apache-2.0
//! What an open file, block device or memory can do beside reading and writing: holes, zeroes,
//! lengths, extents. Where the system has nothing for it, zeroes are written.
use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use io_engine::{File, unblock};
use rustix::fs::{FallocateFlags, fstat, fstatvfs};
use rustix::io::Errno;

use super::{Image, sys};
use crate::protocol::zeroes;
use crate::{Discard, Provisioning};

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// An open file, block device or memory, with its locks.
#[derive(Debug)]
pub(crate) struct Medium {
    image: Image,
    device: Option<BlockDevice>,
    /// Best alignment and length of an I/O, in bytes.
    optimal_io: u32,
    /// Whether holes can be punched.
    punch: Cell<bool>,
    /// Whether ranges can be zeroed; found out at the first attempt.
    pub(super) zero: Cell<bool>,
}

/// What sysfs says of a block device, in bytes.
#[derive(Clone, Copy, Debug)]
struct BlockDevice {
    logical_block: u32,
    discard: Option<u32>,
}

impl Medium {
    /// Finds out what an open image can do.
    ///
    /// # Errors
    /// `ENOMEDIUM` of a block device that nothing is attached to.
    pub(crate) fn new(image: Image, read_only: bool) -> Result<Self, Errno> {
        let stat = fstat(&*image.file)?;
        // An image may name a loop device that is free, to which somebody attaches what is above it.
        if image.is_block_device() && image.size == 0 {
            return Err(Errno::NOMEDIUM);
        }
        let device = image.is_block_device().then(|| BlockDevice::from_sysfs(stat.st_rdev));
        let best = u32::try_from(stat.st_blksize).unwrap_or(4096).clamp(512, 1 << 20);
        let punch = device.is_some() || !read_only && can_punch(&image.file, image.size);
        Ok(Medium {
            image,
            device,
            optimal_io: best.next_power_of_two(),
            punch: Cell::new(punch),
            zero: Cell::new(true),
        })
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.image.file
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    pub(crate) fn is_block_device(&self) -> bool {
        self.device.is_some()
    }

    /// Whether a flush has failed, now or earlier.
    pub(crate) fn has_lost_data(&self) -> bool {
        self.file().check_flushed().is_err()
    }

    /// Best alignment and length of an I/O, in bytes.
    pub(crate) fn optimal_io(&self) -> u32 {
        self.optimal_io
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file().len()
    }

    /// Cuts it, or makes it longer by a hole.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] of a block device that is shorter.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        if self.device.is_some() {
            let there = self.len()?;
            if len <= there {
                return Ok(());
            }
            let text = format!("the block device has {there} bytes, {len} are needed: enlarge it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.file().set_len(len)
    }

    /// What a discard does, where there is one.
    pub(crate) fn discards(&self) -> Option<Discard> {
        match self.device {
            Some(device) => {
                device.discard.map(|granularity| Discard { granularity, zeroes: false })
            }
            None => self.punch.get().then(|| {
                let block = fstatvfs(&**self.file()).map_or(4096, |fs| fs.f_frsize);
                let block = u32::try_from(block).unwrap_or(4096).clamp(512, 1 << 20);
                Discard { granularity: block, zeroes: true }
            }),
        }
    }

    /// Whether zeroing is more than writing zeroes.
    pub(crate) fn zeroes(&self) -> bool {
        self.zero.get() || self.punch.get()
    }

    /// Gives up the space of a range; of a block device its content is undefined then.
    pub(crate) async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.device.is_none() {
            return match self.fallocate(PUNCH, offset, len).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    self.punch.set(false);
                    Err(Errno::OPNOTSUPP.into())
                }
                Err(e) => Err(e),
            };
        }
        // What is left over at the edges keeps its content, as a discard may.
        let (begin, end) = self.whole_blocks(offset, len);
        if begin == end {
            return Ok(());
        }
        let file = self.file().clone();
        unblock(move || sys::discard(file.as_fd(), begin, end - begin)).await
    }

    /// Makes a range read as zeroes; with `may_unmap` its space may be given up.
    pub(crate) async fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
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
        zeroes::write(self.file(), offset, len).await
    }

    /// Whether there is data at `offset`, and for how many bytes, at most `len`, that holds.
    pub(crate) fn extent(&self, offset: u64, len: u64) -> io::Result<(Provisioning, u64)> {
        if self.device.is_some() {
            return Ok((Provisioning::Mapped, len));
        }
        let (kind, end) = match self.file().data_extent(offset)? {
            None => (Provisioning::Deallocated, u64::MAX),
            Some(data) if data.start > offset => (Provisioning::Deallocated, data.start),
            Some(data) => (Provisioning::Mapped, data.end),
        };
        Ok((kind, end.saturating_sub(offset).clamp(1, len.max(1))))
    }

    /// Zeroes by fallocate, which block devices support in whole blocks only; false: it is not
    /// supported.
    async fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<bool> {
        let (begin, end) = self.whole_blocks(offset, len);
        if begin < end {
            match self.file().fallocate(mode, begin, end - begin).await {
                Ok(()) => {}
                Err(e) if is_unsupported(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        zeroes::write(self.file(), offset, begin - offset).await?;
        zeroes::write(self.file(), end, offset + len - end).await?;
        Ok(true)
    }

    /// The part of a range that consists of whole blocks of the device, empty if there is none.
    fn whole_blocks(&self, offset: u64, len: u64) -> (u64, u64) {
        let block = u64::from(self.device.map_or(1, |device| device.logical_block));
        let begin = offset.next_multiple_of(block);
        let end = (offset + len) / block * block;
        if begin < end { (begin, end) } else { (offset, offset) }
    }
}

fn is_unsupported(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::OPNOTSUPP | Errno::NOSYS))
}

/// Whether the file system can punch holes. Tries it past the end of the file, where there is
/// nothing to lose.
fn can_punch(file: &File, size: u64) -> bool {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let past_end = size.next_multiple_of(1 << 20);
    rustix::fs::fallocate(file, flags, past_end, 4096).is_ok()
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
