// SPDX-License-Identifier: Apache-2.0
//! UNMAP, WRITE SAME, GET LBA STATUS and FORMAT UNIT (SBC-4 4.7): what gives up space, and what
//! writes the same block over and over.
//!
//! What VPD pages B0h and B2h and READ CAPACITY (16) promise is decided here, from the facts of
//! the disk, next to the code that keeps the promise:
//!
//! - LBPME, LBPU, LBPWS and LBPWS10 are set if the store discards;
//! - LBPRZ is set if what it discarded reads as zeroes. WRITE SAME with UNMAP set leaves zeroes
//!   in any case, because it is only let to give up space for a block of zeroes.
use std::ops::Range;

use block::{Provisioning, Store};
use scsi::capacity::{LbaStatus, lba_status};
use scsi::sense::Sense;
use sgl::Sgl;

use crate::buffer::{parameter_list, reply};
use crate::failure::{Answer, Doing, Failure};
use crate::unit::Lun;

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
/// The most ranges that GET LBA STATUS tells of.
const MAX_STATUS_DESCRIPTORS: usize = 256;

impl<S: Store> Lun<S> {
    /// The most blocks of one UNMAP command; 0: it is not offered.
    pub(crate) fn max_unmap_blocks(&self) -> u64 {
        if self.disk.facts().discard.is_some() { MAX_UNMAP_BLOCKS } else { 0 }
    }

    /// The most blocks of one WRITE SAME command.
    pub(crate) fn max_write_same_blocks(&self) -> u64 {
        let cheap = self.disk.zeroes_cheaply(true);
        (if cheap { MAX_WRITE_SAME.0 } else { MAX_WRITE_SAME.1 }) >> self.block_shift
    }

    /// UNMAP. All of the list is checked before anything is given up.
    pub(crate) async fn unmap(&self, list_len: usize, data: &Sgl<'_>) -> Answer {
        if self.disk.facts().discard.is_none() {
            return Err(Sense::INVALID_COMMAND_OPERATION_CODE.into());
        }
        self.writable()?;
        let list = parameter_list(data, list_len, MAX_UNMAP_LIST)?;
        let ranges = self.unmap_ranges(&list)?;
        self.discard(&ranges).await
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
        if unmap && self.disk.facts().discard.is_none() {
            return Err(Sense::cdb_field(1, Some(3)).into());
        }
        self.writable()?;
        if data.len() != if no_data { 0 } else { self.block_len() } {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        if count == 0 {
            return Ok(0);
        }
        let bytes = self.byte_range(&range);
        let written = if data.is_zero() {
            self.disk.write_zeroes(bytes.start, bytes.end - bytes.start, unmap).await
        } else {
            self.disk.repeat(data, bytes).await
        };
        match written {
            Ok(()) => Ok(0),
            Err(error) => Err(self.failed(&error, Doing::Write, lba)),
        }
    }

    /// Gives up ranges of blocks.
    async fn discard(&self, ranges: &[Range<u64>]) -> Answer {
        let Some(first) = ranges.first() else { return Ok(0) };
        let bytes: Vec<_> = ranges.iter().map(|range| self.byte_range(range)).collect();
        match self.disk.discard(&bytes).await {
            Ok(()) => Ok(0),
            Err(error) => Err(self.failed(&error, Doing::Write, first.start)),
        }
    }

    /// GET LBA STATUS: at least one descriptor; initiators ask on from where the last one ends.
    pub(crate) async fn get_lba_status(&self, lba: u64, alloc: usize, data: &Sgl<'_>) -> Answer {
        let capacity = self.blocks();
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
        let len = self.bytes(u64::from(blocks));
        let result = self.disk.provisioning(self.bytes(lba), len).await;
        let (provisioning, len) = result.map_err(|e| self.failed(&e, Doing::Read, lba))?;
        match u32::try_from(len >> self.block_shift).unwrap_or(u32::MAX).min(blocks) {
            // A block of which a part takes up space is mapped.
            0 => Ok((Provisioning::Mapped, 1)),
            whole => Ok((provisioning, whole)),
        }
    }

    /// FORMAT UNIT. Without an initialization pattern SBC leaves the contents to us: a store
    /// that discards gives up all of its space (and reads as LBPRZ says); one that zeroes cheaply
    /// is zeroed; on any other nothing is changed, as a disk does that is formatted already.
    pub(crate) async fn format_unit(&self) -> Answer {
        self.writable()?;
        let all = 0..self.blocks();
        let facts = self.disk.facts();
        if facts.discard.is_some() {
            return self.discard(&[all]).await;
        }
        if facts.write_zeroes {
            let zeroed = self.disk.write_zeroes(0, self.bytes(all.end), true).await;
            zeroed.map_err(|error| self.failed(&error, Doing::Write, 0))?;
        }
        Ok(0)
    }
}
