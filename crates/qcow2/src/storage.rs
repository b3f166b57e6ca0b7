// SPDX-License-Identifier: Apache-2.0
//! What an image lies on: its own file, an external data file, a backing store.
use std::io;

use sgl::Sgl;

/// Size of what storage writes wholly or not at all, in bytes.
pub const SECTOR: u64 = 512;

/// Whether a range holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It may hold anything.
    Data,
    /// It reads as zeroes, and not because they were written there as data: a hole. Unless it was
    /// made by [`Storage::zero`] since the last sync, it is one on stable storage, too.
    Zero,
}

/// Bytes at offsets. What lies past the end reads as zeroes; what is written there makes it longer.
///
/// What `write`, `zero` and `set_len` did when they returned survives the death of this process.
/// After loss of power any part of it may be missing, in units of 512 bytes and in any order, unless
/// `sync` returned after it.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub trait Storage {
    /// Length in bytes.
    async fn length(&self) -> io::Result<u64>;

    /// Fills all of `data` from `offset`.
    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`. After an error a part may have been written.
    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()>;

    /// Makes a range inside the length read as zeroes; with `punch` its space may be given up.
    async fn zero(&self, offset: u64, len: u64, punch: bool) -> io::Result<()>;

    /// Cuts it, or makes it longer by zeroes that take no space.
    ///
    /// # Errors
    /// Of a block device too, whose length is fixed, unless it is long enough.
    async fn set_len(&self, len: u64) -> io::Result<()>;

    /// Brings all that was written to stable storage. A failure is final: every later call fails.
    async fn sync(&self) -> io::Result<()>;

    /// Whether there is data at `offset`, and for how many bytes (at least 1, at most `len`) that
    /// holds.
    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)>;
}

/// A regular file.
impl Storage for io_engine::File {
    async fn length(&self) -> io::Result<u64> {
        self.len()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let there = self.read_at(data, offset).await?;
        data.fill(there..data.len(), 0);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        self.write_at(data, offset, false).await
    }

    async fn zero(&self, offset: u64, len: u64, punch: bool) -> io::Result<()> {
        use rustix::fs::FallocateFlags as Flags;
        let how = if punch { Flags::PUNCH_HOLE } else { Flags::ZERO_RANGE };
        let mode = (how | Flags::KEEP_SIZE).bits().cast_signed();
        self.fallocate(mode, offset, len).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        io_engine::File::set_len(self, len)
    }

    async fn sync(&self) -> io::Result<()> {
        io_engine::File::sync(self, true).await
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        let (extent, end) = match self.data_extent(offset)? {
            Some(data) if data.start > offset => (Extent::Zero, data.start),
            Some(data) => (Extent::Data, data.end),
            None => (Extent::Zero, u64::MAX),
        };
        Ok((extent, end.saturating_sub(offset).clamp(1, len.max(1))))
    }
}
