// SPDX-License-Identifier: Apache-2.0
//! UNMAP, WRITE SAME, GET LBA STATUS and FORMAT UNIT (SBC-4 4.7): what gives up space, and what
//! writes the same block over and over. What a backstore cannot do is emulated by writes in
//! bounded pieces.
//!
//! What VPD pages B0h and B2h and READ CAPACITY (16) promise is decided here, from the facts of
//! the backstore, next to the code that keeps the promise:
//!
//! - LBPME, LBPU, LBPWS and LBPWS10 are set if the backstore discards;
//! - LBPRZ is set if what it discarded reads as zeroes. WRITE SAME with UNMAP set leaves zeroes
//!   in any case, because it is only let to give up space for a block of zeroes.
use std::ops::Range;

use block::{Provisioning, Store};
use scsi::capacity::{LbaStatus, lba_status};
use scsi::sense::Sense;
use sgl::Sgl;

use crate::failure::{Access, Answer, Failure};
use crate::scratch::CHUNK;
use crate::{Lun, parameter_list, reply};

/// The most descriptors of one UNMAP command.
pub(crate) const MAX_UNMAP_DESCRIPTORS: u32 = 256;
/// The most blocks of one UNMAP command, so that it does not hold up the device for minutes where
/// giving up space is slow.
const MAX_UNMAP_BLOCKS: u64 = 1 << 20;
/// The most bytes of one WRITE SAME where zeroes are cheap, and where they are written.
const MAX_WRITE_SAME: (u64, u64) = (1 << 30, 64 << 20);
/// The most bytes of an UNMAP parameter list that a CDB can name; one with too many descriptors is
/// told so.
const MAX_UNMAP_LIST: usize = u16::MAX as usize;
/// Bytes that one call of the backstore discards or zeroes, so that FORMAT UNIT can be aborted.
const STEP: u64 = 1 << 34;
/// The most ranges that GET LBA STATUS tells of.
const MAX_STATUS_DESCRIPTORS: usize = 256;

/// How a range is made zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zeroing {
    /// The backstore's `write_zeroes`.
    WriteZeroes,
    /// The backstore's `discard`, after which it reads as zeroes.
    Discard,
    /// Zeroes are written.
    Write,
}

impl<B: Store> Lun<B> {
    /// The most blocks of one UNMAP command; 0: it is not offered.
    pub(crate) fn max_unmap_blocks(&self) -> u64 {
        if self.facts.borrow().discard.is_some() { MAX_UNMAP_BLOCKS } else { 0 }
    }

    /// The most blocks of one WRITE SAME command.
    pub(crate) fn max_write_same_blocks(&self) -> u64 {
        let cheap = self.zeroing(true) != Zeroing::Write;
        (if cheap { MAX_WRITE_SAME.0 } else { MAX_WRITE_SAME.1 }) >> self.block_shift
    }

    /// UNMAP. All of the list is checked before anything is given up.
    pub(crate) async fn unmap(&self, list_len: usize, data: &Sgl<'_>) -> Answer {
        if self.facts.borrow().discard.is_none() {
            return Err(Sense::INVALID_COMMAND_OPERATION_CODE.into());
        }
        self.writable()?;
        let list = parameter_list(data, list_len, MAX_UNMAP_LIST)?;
        let ranges = self.unmap_ranges(&list)?;
        for range in &ranges {
            let _shared = self.share(range.clone()).await?;
            self.discard(range.clone()).await?;
        }
        if let Some(first) = ranges.first() {
            self.settle(first.start).await?;
        }
        Ok(0)
    }

    /// The ranges of an UNMAP parameter list, if all of them can be given up.
    fn unmap_ranges(&self, list: &[u8]) -> Result<Vec<Range<u64>>, Failure> {
        scsi::unmap::parse(list, &self.limits())?
            .map(|range| self.extent(range.lba, u64::from(range.blocks)))
            .collect()
    }

    /// WRITE SAME. A block of zeroes is written in the cheapest way; any other is written again
    /// and again, and then the range is held exclusively, so that it is seen whole.
    pub(crate) async fn write_same(
        &self,
        lba: u64,
        blocks: u64,
        unmap: bool,
        no_data: bool,
        data: &Sgl<'_>,
    ) -> Answer {
        let range = self.extent_to_end(lba, blocks)?;
        let count = range.end - range.start;
        if count > self.max_write_same_blocks() {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        if unmap && self.facts.borrow().discard.is_none() {
            return Err(Sense::cdb_field(1, Some(3)).into());
        }
        self.writable()?;
        if data.len() != if no_data { 0 } else { self.block_len() } {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        if count == 0 {
            return Ok(0);
        }
        if data.is_zero() {
            self.zero(range, unmap).await?;
        } else {
            self.repeat(range, Some(data)).await?;
        }
        Ok(0)
    }

    /// Makes a range read as zeroes; with `may_unmap` its space may be given up.
    async fn zero(&self, range: Range<u64>, may_unmap: bool) -> Result<(), Failure> {
        match self.zeroing(may_unmap) {
            Zeroing::WriteZeroes => {
                let _shared = self.share(range.clone()).await?;
                for piece in self.pieces(&range) {
                    let (offset, len) =
                        (self.bytes(piece.start), self.bytes(piece.end - piece.start));
                    let result = self.backstore.write_zeroes(offset, len, may_unmap).await;
                    result.map_err(|e| self.failed(&e, Access::Write, piece.start))?;
                }
                self.settle(range.start).await
            }
            Zeroing::Discard => {
                let _shared = self.share(range.clone()).await?;
                let first = range.start;
                self.discard(range).await?;
                self.settle(first).await
            }
            Zeroing::Write => self.repeat(range, None).await,
        }
    }

    fn zeroing(&self, may_unmap: bool) -> Zeroing {
        let facts = self.facts.borrow();
        if facts.write_zeroes {
            Zeroing::WriteZeroes
        } else if may_unmap && facts.discard.is_some_and(|discard| discard.zeroes) {
            Zeroing::Discard
        } else {
            Zeroing::Write
        }
    }

    /// Writes one block, or zeroes, all over a range.
    async fn repeat(&self, range: Range<u64>, block: Option<&Sgl<'_>>) -> Result<(), Failure> {
        let scratch = self.scratch.get(self.bytes(range.end - range.start)).await;
        if let Some(block) = block {
            for at in (0..scratch.memory.len()).step_by(self.block_len()) {
                block.copy_to(&scratch.memory.slice(at..at + self.block_len()));
            }
        }
        let per_write = (scratch.memory.len() >> self.block_shift) as u64;
        let _alone = self.hold_alone(range.clone()).await?;
        let mut lba = range.start;
        while lba < range.end {
            let blocks = per_write.min(range.end - lba);
            let len = usize::try_from(self.bytes(blocks)).unwrap_or(CHUNK);
            self.store(&scratch.view(len), lba, false).await?;
            lba += blocks;
        }
        Ok(())
    }

    /// Gives up a range. The caller holds it.
    async fn discard(&self, range: Range<u64>) -> Result<(), Failure> {
        for piece in self.pieces(&range) {
            let (offset, len) = (self.bytes(piece.start), self.bytes(piece.end - piece.start));
            let result = self.backstore.discard(offset, len).await;
            result.map_err(|error| self.failed(&error, Access::Write, piece.start))?;
        }
        Ok(())
    }

    /// A range in pieces of [`STEP`] bytes.
    fn pieces(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<B> {
        let (step, end) = (STEP >> self.block_shift, range.end);
        (range.start..end)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .map(move |start| start..end.min(start + step))
    }

    /// GET LBA STATUS: at least one descriptor; initiators ask on from where the last one ends.
    pub(crate) async fn get_lba_status(&self, lba: u64, alloc: usize, data: &Sgl<'_>) -> Answer {
        let capacity = self.blocks.get();
        if lba >= capacity {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        let mut runs = Vec::new();
        let room = (alloc.min(data.len()).saturating_sub(8) / 16).clamp(1, MAX_STATUS_DESCRIPTORS);
        let mut at = lba;
        for _ in 0..room {
            if at >= capacity {
                break;
            }
            let (provisioning, blocks) = self.provisioning(at, capacity - at).await?;
            let mapped = provisioning == Provisioning::Mapped;
            runs.push(LbaStatus { lba: at, blocks, mapped });
            at += u64::from(blocks);
        }
        reply(data, &lba_status(&runs), alloc)
    }

    /// Whether the blocks from `lba` on take up space, and how many the answer is good for.
    async fn provisioning(&self, lba: u64, blocks: u64) -> Result<(Provisioning, u32), Failure> {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        if self.facts.borrow().discard.is_none() {
            return Ok((Provisioning::Mapped, blocks));
        }
        let len = self.bytes(u64::from(blocks));
        let result = self.backstore.provisioning(self.bytes(lba), len).await;
        let (provisioning, len) = result.map_err(|e| self.failed(&e, Access::Read, lba))?;
        match u32::try_from(len >> self.block_shift).unwrap_or(u32::MAX).min(blocks) {
            // A block of which a part takes up space is mapped.
            0 => Ok((Provisioning::Mapped, 1)),
            whole => Ok((provisioning, whole)),
        }
    }

    /// FORMAT UNIT. Without an initialization pattern SBC leaves the contents to us: a backstore
    /// that discards gives up all of its space (and reads as LBPRZ says); one that zeroes cheaply
    /// is zeroed; on any other nothing is changed, as a disk does that is formatted already.
    pub(crate) async fn format_unit(&self) -> Answer {
        self.writable()?;
        let all = 0..self.blocks.get();
        let (discards, zeroes) = {
            let facts = self.facts.borrow();
            (facts.discard.is_some(), facts.write_zeroes)
        };
        if discards {
            let _alone = self.hold_alone(all.clone()).await?;
            self.discard(all).await?;
            self.settle(0).await?;
        } else if zeroes {
            self.zero(all, true).await?;
        }
        Ok(0)
    }
}
