// SPDX-License-Identifier: Apache-2.0
//! What the header says of the image's state, and closing.
//!
//! Rules:
//! - **Before the first write** of guest data, features that it makes invalid are cleared in the
//!   header (`autoclear`), bitmaps are marked (see [`bitmaps`](crate::bitmaps)), and that is on
//!   stable storage.
//! - **Before anything is allocated or freed**, the header says that the image is in use, and that,
//!   with all that was read, is on stable storage: what an earlier process left in the page cache
//!   counts from then on. The dirty bit is never set: refcounts are ahead of use, with
//!   `lazy_refcounts=on` as well, and a sync for each batch of them is cheap.
//! - **Closing** brings everything to stable storage, frees what is pending and the reserve, cuts
//!   the file, and then, after a sync, says that it was closed. It does not say so where an error
//!   left leaks: the next opening gives them back.
//!
//! That it was closed is an autoclear bit, which has the meaning that is needed: every other program
//! that knows the format clears the bits that it does not know before it writes, QEMU too, and has
//! that on stable storage before it changes a mapping. So an image with the bit is as we left it,
//! and one without it is looked through when it is opened (`scan`), which then may get the bit,
//! whoever made it. Images of version 2 have no such bits: they are looked through each time. So is
//! an image whose file ends before what is in use: it was cut off since, by a copy that broke off or
//! a repair of its file system, and the bit came with it.
use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::bitmaps::Wrong;
use crate::core::{Core, field};
use crate::error::Result;
use crate::layout::header::{Header, autoclear, incompatible};
use crate::planted::Bug;
use crate::refcounts::BLOCK_MASK;
use crate::storage::Storage;

/// How many refcount blocks without a count are looked at, to find the last cluster in use.
const MAX_EMPTY: usize = 16;

/// Whether the image was closed, and is still whole.
pub(crate) async fn is_closed<S: Storage>(storage: &S, header: &Header) -> Result<bool> {
    let closed = header.version >= 3 && header.autoclear & autoclear::CLEAN != 0;
    Ok(closed && is_whole(storage, header).await?)
}

/// Whether the file has all clusters that the refcounts say are in use. Where that takes long to
/// find out it has not.
async fn is_whole<S: Storage>(storage: &S, header: &Header) -> Result<bool> {
    let len = storage.length().await?;
    let cluster_size = header.cluster_size();
    let bytes = u64::from(header.reftable_clusters) << header.cluster_bits;
    let mut table = vec![0u64; usize::try_from(bytes / 8).unwrap_or(0)];
    storage.read(&Sgl::from_slice(table.as_mut_bytes()), header.reftable_offset).await?;
    let entries = table.iter().map(|entry| u64::from_be(*entry) & BLOCK_MASK).enumerate().rev();
    let mut block = vec![0; usize::try_from(cluster_size).unwrap_or(0)];
    let bits = 1 << header.refcount_order;
    for (number, offset) in entries.filter(|(_, offset)| *offset != 0).take(MAX_EMPTY) {
        if offset.checked_add(cluster_size).is_none_or(|end| end > len) {
            return Ok(false);
        }
        storage.read(&Sgl::from_slice(&mut block), offset).await?;
        if let Some((at, byte)) = block.iter().enumerate().rfind(|(_, byte)| **byte != 0) {
            // Narrow counts begin in the low bits of a byte.
            let bit = at as u64 * 8 + if bits < 8 { u64::from(byte.ilog2()) } else { 0 };
            let last = number as u64 * (cluster_size * 8 / bits) + bit / bits;
            return Ok((last + 1).checked_mul(cluster_size).is_some_and(|end| end <= len));
        }
    }
    Ok(false)
}

impl<S: Storage + 'static> Core<S> {
    /// Has the header say, in memory, whether the image is closed.
    fn set_closed(&self, closed: bool) {
        let bits = self.head.get(field::AUTOCLEAR);
        let new = if closed { bits | autoclear::CLEAN } else { bits & !autoclear::CLEAN };
        if self.geo.zero_flag && new != bits {
            self.set(&self.head, field::AUTOCLEAR, new);
        }
    }

    /// Prepares for the first write of guest data.
    pub(crate) async fn begin_writing(&self) -> Result<()> {
        self.check_writable()?;
        if self.geo.zero_flag {
            let bits = self.head.get(field::AUTOCLEAR);
            let bitmaps = if self.bitmaps.is_some() { autoclear::BITMAPS } else { 0 };
            let kept = bits & (autoclear::RAW_DATA_FILE | autoclear::CLEAN | bitmaps);
            if bits != kept {
                self.set(&self.head, field::AUTOCLEAR, kept);
            }
        }
        self.mark_bitmaps(Wrong::Tracking);
        // What another write changed here may not be on stable storage yet.
        let marked = self.bitmaps.is_some() && !self.has(Bug::BitmapUnmarked);
        if self.head.changed.get() > 0 || marked {
            self.commit(&self.head, self.head.changed.get()).await?;
            if marked {
                self.commit_marks().await?;
            }
            self.barrier().await?;
        }
        self.find_metadata().await?;
        self.writable.set(true);
        Ok(())
    }

    /// Prepares for the first allocation. Part of a job.
    pub(crate) async fn mark_in_use(&self) -> Result<()> {
        if self.in_use.get() {
            return Ok(());
        }
        self.check_writable()?;
        self.set_closed(false);
        self.flush().await?;
        self.find_end().await?;
        self.in_use.set(true);
        Ok(())
    }

    /// Finds the end of what is in use.
    async fn find_end(&self) -> Result<()> {
        let bits = self.geo.block_clusters_bits();
        let blocks = {
            let table = self.reftable.borrow();
            (0..table.len).rev().find(|block| table.get(*block) & BLOCK_MASK != 0)
        };
        if !self.metadata.borrow().contains(&0) {
            self.find_metadata().await?;
        }
        // Damaged entries may refer to anything; a table may end past the end of the file.
        let inside = self.storage.length().await?.div_ceil(self.geo.cluster_size());
        let mut end = self.metadata.borrow().range(..inside).last().map_or(1, |last| last + 1);
        for table in [&self.l1, &self.reftable] {
            let table = table.borrow();
            let past = table.offset + table.len as u64 * 8;
            end = end.max(past.div_ceil(self.geo.cluster_size()));
        }
        let mut block = blocks;
        'blocks: while let Some(number) = block {
            let first = (number as u64) << bits;
            if first + (1 << bits) <= end {
                break;
            }
            let there = self.reftable.borrow().get(number) & BLOCK_MASK != 0;
            let step = self.geo.slice_refcounts();
            let mut at = first + (1 << bits);
            while there && at > first.max(end) {
                at -= step;
                let Some(slot) = self.refcount_slot(at).await? else { break };
                for word in (0..slot.slice.len()).rev() {
                    let value = slot.slice.get(word);
                    if value == 0 {
                        continue;
                    }
                    // To the end of that word will do.
                    let counted = step / slot.slice.len() as u64;
                    let counted = counted.max(1) * (word as u64 + 1);
                    end = end.max(at + counted.min(step));
                    break 'blocks;
                }
            }
            block = number.checked_sub(1);
        }
        self.end.set(end.max(1));
        Ok(())
    }

    /// Marks the image as damaged; nothing is written to it any more.
    pub(crate) async fn mark_corrupt(&self, why: &str) {
        if self.read_only || self.broken.borrow().is_some() {
            return;
        }
        tracing::error!("the image is damaged and not written to any more: {why}");
        if self.geo.zero_flag {
            let bits = self.head.get(field::INCOMPATIBLE) | incompatible::CORRUPT;
            self.set(&self.head, field::INCOMPATIBLE, bits);
            if let Err(e) = self.commit(&self.head, self.head.changed.get()).await {
                tracing::error!("that it is damaged could not be written to it: {e}");
            }
        }
        *self.broken.borrow_mut() = Some(why.to_owned());
        self.writable.set(false);
    }

    /// Everything to stable storage, and nothing kept. The gate is closed. Part of a job.
    pub(crate) async fn close(&self) -> Result<()> {
        if self.read_only || self.broken.borrow().is_some() {
            return Ok(());
        }
        self.flush().await?;
        self.save_bitmaps().await?;
        if self.in_use.get() {
            self.tidy().await?;
        }
        if self.writable.get() || self.in_use.get() {
            // What an error leaked, the next opening gives back.
            self.set_closed(self.sound.get() && !self.syncs.scratch);
            self.flush().await?;
            self.in_use.set(false);
        }
        Ok(())
    }

    /// Frees what is pending and the reserve, and cuts the file.
    async fn tidy(&self) -> Result<()> {
        self.reclaim_all().await?;
        self.end_pack().await?;
        for (first, count) in self.reserve.take_all() {
            self.set_refcounts(first..first + count, 0).await.1?;
            self.reserve.was_freed(first);
        }
        self.flush().await?;
        self.find_end().await?;
        let len = (self.end.get() << self.geo.cluster_bits).max(self.opened_len);
        if self.storage.length().await? > len
            && let Err(e) = self.storage.set_len(len).await
        {
            tracing::debug!("the file keeps its length: {e}");
        }
        Ok(())
    }
}
