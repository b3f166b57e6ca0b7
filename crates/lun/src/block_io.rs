// SPDX-License-Identifier: Apache-2.0
//! READ, WRITE, WRITE AND VERIFY, VERIFY, PRE-FETCH and SYNCHRONIZE CACHE (SBC-4 5): ranges of
//! blocks to reads, writes and flushes of the disk.
//!
//! READ and WRITE are the data path: from the decoded CDB to the store they check numbers, and
//! allocate nothing. They are as long as the buffer that comes with them:
//! VPD page B0h names a maximum transfer length, but not every initiator reads it, and what the
//! kernel has found room for takes no more memory here.
use std::ops::Range;

use block::disk::{Buffer, Locked};
use block::{Access, ErrorKind, Store};
use scsi::command::ByteCheck;
use scsi::sense::Sense;
use sgl::Sgl;

use crate::failure::{Answer, Doing, Failure, failure};
use crate::unit::Lun;

impl<S: Store> Lun<S> {
    /// The blocks that a command names, if the medium has them.
    #[inline]
    pub(crate) fn extent(&self, lba: u64, blocks: u64) -> Result<Range<u64>, Failure> {
        let capacity = self.blocks();
        if lba > capacity || blocks > capacity - lba {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        Ok(lba..lba + blocks)
    }

    /// As [`extent`](Self::extent); 0 blocks mean all from `lba` to the end of the medium.
    pub(crate) fn extent_to_end(&self, lba: u64, blocks: u64) -> Result<Range<u64>, Failure> {
        let range = self.extent(lba, blocks)?;
        Ok(if blocks == 0 { lba..self.blocks() } else { range })
    }

    /// How much of `blocks` blocks the buffer has room for, in bytes.
    #[inline]
    fn fitting(&self, blocks: u64, data: &Sgl<'_>) -> usize {
        usize::try_from(self.bytes(blocks)).unwrap_or(usize::MAX).min(data.len())
    }

    /// A range of blocks in bytes.
    #[inline]
    pub(crate) fn byte_range(&self, range: &Range<u64>) -> Range<u64> {
        self.bytes(range.start)..self.bytes(range.end)
    }

    /// Holds a range for several accesses.
    pub(crate) async fn hold(
        &self,
        range: &Range<u64>,
        access: Access,
    ) -> Result<Locked<'_, S>, Failure> {
        let held = self.disk.lock(self.byte_range(range), access).await;
        held.map_err(|error| self.failed(&error, Doing::Read, range.start))
    }

    /// The failure of an access to the disk from block `lba` on; logs it. The capacity may have
    /// changed since the range was checked: what the medium has no more is refused.
    #[cold]
    pub(crate) fn failed(&self, error: &block::Error, doing: Doing, lba: u64) -> Failure {
        if let ErrorKind::OutOfBounds { .. } = error.kind {
            return Sense::LBA_OUT_OF_RANGE.into();
        }
        self.failures.note(&self.name, error, lba);
        failure(error.class(), doing, lba)
    }

    pub(crate) fn writable(&self) -> Result<(), Failure> {
        if self.disk.read_only() {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        Ok(())
    }

    /// READ. What the buffer has no room for is not read.
    pub(crate) async fn read(&self, lba: u64, blocks: u64, data: &Sgl<'_>) -> Answer {
        let range = self.extent(lba, blocks)?;
        let len = self.fitting(blocks, data);
        if len == 0 {
            return Ok(0);
        }
        let part;
        let data = if len == data.len() {
            data
        } else {
            part = data.slice(0..len);
            &part
        };
        match self.disk.read(data, self.bytes(range.start)).await {
            Ok(()) => Ok(len),
            Err(error) => Err(self.failed(&error, Doing::Read, lba)),
        }
    }

    /// WRITE. Of a buffer that is too short the whole blocks are written: a block is never torn.
    pub(crate) async fn write(&self, lba: u64, blocks: u64, fua: bool, data: &Sgl<'_>) -> Answer {
        let range = self.extent(lba, blocks)?;
        self.writable()?;
        let len = self.fitting(blocks, data) & !(self.block_len() - 1);
        if len == 0 {
            return Ok(0);
        }
        let part;
        let data = if len == data.len() {
            data
        } else {
            part = data.slice(0..len);
            &part
        };
        match self.disk.write(data, self.bytes(range.start), fua).await {
            Ok(()) => Ok(0),
            Err(error) => Err(self.failed(&error, Doing::Write, lba)),
        }
    }

    pub(crate) async fn flush_cache(&self, lba: u64) -> Result<(), Failure> {
        let result = self.disk.flush().await;
        result.map_err(|error| self.failed(&error, Doing::Write, lba))
    }

    /// WRITE AND VERIFY: the blocks are on the medium, can be read, and with a byte check are
    /// what was sent. Nobody else gets at them in between.
    pub(crate) async fn write_and_verify(
        &self,
        lba: u64,
        blocks: u64,
        check: ByteCheck,
        data: &Sgl<'_>,
    ) -> Answer {
        let range = self.extent(lba, blocks)?;
        self.writable()?;
        if check == ByteCheck::One {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let len = self.fitting(blocks, data) & !(self.block_len() - 1);
        if len == 0 {
            return Ok(0);
        }
        let buffer = self.disk.buffer(len as u64).await;
        let held = self.hold(&range, Access::Alone).await?;
        let data = data.slice(0..len);
        let written = held.write(&data, self.bytes(lba), true).await;
        written.map_err(|error| self.failed(&error, Doing::Write, lba))?;
        self.compare(&held, lba, len as u64, check, &data, &buffer).await?;
        Ok(0)
    }

    /// VERIFY. A buffer that is too short is an error: what it has no bytes for cannot be said to
    /// be equal.
    pub(crate) async fn verify(
        &self,
        lba: u64,
        blocks: u64,
        check: ByteCheck,
        data: &Sgl<'_>,
    ) -> Answer {
        let range = self.extent(lba, blocks)?;
        let len = self.bytes(blocks);
        if len == 0 {
            return Ok(0);
        }
        let needed = match check {
            ByteCheck::Medium => 0,
            ByteCheck::All => len,
            ByteCheck::One => u64::from(self.block_size()),
        };
        if (data.len() as u64) < needed {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let buffer = self.disk.buffer(len).await;
        let held = self.hold(&range, Access::Read).await?;
        self.compare(&held, lba, len, check, data, &buffer).await?;
        Ok(0)
    }

    /// Reads `len` bytes from block `lba` on through `buffer`, and compares them with `data`.
    async fn compare(
        &self,
        held: &Locked<'_, S>,
        lba: u64,
        len: u64,
        check: ByteCheck,
        data: &Sgl<'_>,
        buffer: &Buffer<'_>,
    ) -> Result<(), Failure> {
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).unwrap_or(usize::MAX).min(buffer.len());
            let medium = buffer.view(n);
            let at = lba + (done >> self.block_shift);
            let read = held.read(&medium, self.bytes(at)).await;
            read.map_err(|error| self.failed(&error, Doing::Read, at))?;
            let differs = match check {
                ByteCheck::Medium => None,
                ByteCheck::All => {
                    let start = usize::try_from(done).unwrap_or(usize::MAX);
                    medium.first_difference(&data.slice(start..start.saturating_add(n)))
                }
                ByteCheck::One => {
                    let block = data.slice(0..self.block_len());
                    (0..n).step_by(self.block_len()).find_map(|at| {
                        let blk = medium.slice(at..at + self.block_len());
                        blk.first_difference(&block).map(|byte| at + byte)
                    })
                }
            };
            if let Some(byte) = differs {
                return Err(Sense::MISCOMPARE_DURING_VERIFY
                    .with_information(done + byte as u64)
                    .into());
            }
            done += n as u64;
        }
        Ok(())
    }

    /// PRE-FETCH: the blocks exist; they are not fetched, the store's own read-ahead is better.
    pub(crate) fn prefetch(&self, lba: u64, blocks: u64) -> Answer {
        self.extent_to_end(lba, blocks)?;
        Ok(0)
    }

    /// SYNCHRONIZE CACHE: all of the cache, whatever the range. With IMMED the status comes late,
    /// which SBC allows, but it says whether the flush succeeded.
    pub(crate) async fn synchronize_cache(&self, lba: u64, blocks: u64) -> Answer {
        self.extent_to_end(lba, blocks)?;
        self.flush_cache(lba).await?;
        Ok(0)
    }
}
