// SPDX-License-Identifier: Apache-2.0
//! READ, WRITE, WRITE AND VERIFY, VERIFY, PRE-FETCH and SYNCHRONIZE CACHE (SBC-4 5): ranges of
//! blocks to reads, writes and flushes of the backstore.
//!
//! READ and WRITE are the data path: from the decoded CDB to the backstore they check numbers,
//! note their range, and allocate nothing. They are as long as the buffer that comes with them:
//! VPD page B0h names a maximum transfer length, but not every initiator reads it, and what the
//! kernel has found room for takes no more memory here.
use std::ops::Range;

use block::Store;
use scsi::command::ByteCheck;
use scsi::sense::Sense;
use sgl::Sgl;

use crate::Lun;
use crate::failure::{Access, Answer, Failure, failure};
use crate::range_lock::Guard;
use crate::scratch::{Buffer, CHUNK};

impl<B: Store> Lun<B> {
    /// The blocks that a command names, if the medium has them.
    #[inline]
    pub(crate) fn extent(&self, lba: u64, blocks: u64) -> Result<Range<u64>, Failure> {
        let capacity = self.blocks.get();
        if lba > capacity || blocks > capacity - lba {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        Ok(lba..lba + blocks)
    }

    /// As [`extent`](Self::extent); 0 blocks mean all from `lba` to the end of the medium.
    pub(crate) fn extent_to_end(&self, lba: u64, blocks: u64) -> Result<Range<u64>, Failure> {
        let range = self.extent(lba, blocks)?;
        Ok(if blocks == 0 { lba..self.blocks.get() } else { range })
    }

    /// How much of `blocks` blocks the buffer has room for, in bytes.
    #[inline]
    fn fitting(&self, blocks: u64, data: &Sgl<'_>) -> usize {
        usize::try_from(self.bytes(blocks)).unwrap_or(usize::MAX).min(data.len())
    }

    /// Holds a range against those that want it for themselves. The capacity may have changed since
    /// the range was checked: what the medium has no more is refused.
    #[inline]
    pub(crate) async fn share(&self, range: Range<u64>) -> Result<Guard<'_>, Failure> {
        let end = range.end;
        let guard = match self.locks.try_shared(range.clone()) {
            Some(guard) => guard,
            None => self.locks.shared(range).await,
        };
        self.still_there(end)?;
        Ok(guard)
    }

    /// Holds a range alone; the same.
    pub(crate) async fn hold_alone(&self, range: Range<u64>) -> Result<Guard<'_>, Failure> {
        let end = range.end;
        let guard = self.locks.exclusive(range).await;
        self.still_there(end)?;
        Ok(guard)
    }

    #[inline]
    fn still_there(&self, end: u64) -> Result<(), Failure> {
        if end > self.blocks.get() {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        Ok(())
    }

    /// The failure of an access to the backstore from block `lba` on; logs it.
    #[cold]
    pub(crate) fn failed(&self, error: &block::Error, access: Access, lba: u64) -> Failure {
        self.failures.note(&self.name, error, lba);
        failure(&error.kind, access, lba)
    }

    pub(crate) fn writable(&self) -> Result<(), Failure> {
        if self.read_only.get() {
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
        let _shared = self.share(range).await?;
        self.fill(data, lba).await?;
        Ok(len)
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
        let _shared = self.share(range).await?;
        self.store(data, lba, fua).await?;
        Ok(0)
    }

    /// Reads from block `lba` on. The caller holds the range.
    #[inline]
    pub(crate) async fn fill(&self, data: &Sgl<'_>, lba: u64) -> Result<(), Failure> {
        let result = self.backstore.read(data, self.bytes(lba)).await;
        result.map_err(|error| self.failed(&error, Access::Read, lba))
    }

    /// Writes from block `lba` on; on stable storage with `fua` or without a write cache. The
    /// caller holds the range.
    #[inline]
    pub(crate) async fn store(&self, data: &Sgl<'_>, lba: u64, fua: bool) -> Result<(), Failure> {
        let durable = fua || !self.write_cache.get();
        let result = self.backstore.write(data, self.bytes(lba), durable).await;
        result.map_err(|error| self.failed(&error, Access::Write, lba))
    }

    /// Brings what was changed from block `lba` on to stable storage, unless the write cache may
    /// keep it: for changes that are not writes.
    pub(crate) async fn settle(&self, lba: u64) -> Result<(), Failure> {
        if self.write_cache.get() { Ok(()) } else { self.flush_cache(lba).await }
    }

    pub(crate) async fn flush_cache(&self, lba: u64) -> Result<(), Failure> {
        let result = self.backstore.flush().await;
        result.map_err(|error| self.failed(&error, Access::Write, lba))
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
        let scratch = self.scratch.get(len as u64).await;
        let _alone = self.hold_alone(range).await?;
        let data = data.slice(0..len);
        self.store(&data, lba, true).await?;
        self.compare(lba, len as u64, check, &data, &scratch).await?;
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
        let scratch = self.scratch.get(len).await;
        let _shared = self.share(range).await?;
        self.compare(lba, len, check, data, &scratch).await?;
        Ok(0)
    }

    /// Reads `len` bytes from block `lba` on through `scratch`, and compares them with `data`.
    async fn compare(
        &self,
        lba: u64,
        len: u64,
        check: ByteCheck,
        data: &Sgl<'_>,
        scratch: &Buffer<'_>,
    ) -> Result<(), Failure> {
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).unwrap_or(CHUNK).min(scratch.memory.len());
            let medium = scratch.view(n);
            self.fill(&medium, lba + (done >> self.block_shift)).await?;
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

    /// PRE-FETCH: the blocks exist; they are not fetched, the backstore's own read-ahead is better.
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
