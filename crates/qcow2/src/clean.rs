// SPDX-License-Identifier: Apache-2.0
//! What the header says of the image's state, and closing.
//!
//! Rules:
//! - **Before the first write** of guest data, features that it makes invalid are cleared in the
//!   header (`autoclear`), and that is on stable storage.
//! - **Before anything is allocated or freed**, the header says that the image is in use, and that,
//!   with all that was read, is on stable storage: what an earlier process left in the page cache
//!   counts from then on. The dirty bit is never set: refcounts are ahead of use, with
//!   `lazy_refcounts=on` as well, and a sync for each batch of them is cheap.
//! - **Closing** brings everything to stable storage, frees what is pending and the reserve, cuts
//!   the file, and then, after a sync, says that it was closed. It does not say so where an error
//!   left leaks: the next opening gives them back.
use crate::core::{Core, field};
use crate::error::Result;
use crate::layout::header::{autoclear, extension, incompatible};
use crate::refcounts::BLOCK_MASK;
use crate::slice::Slice;
use crate::storage::Storage;

/// The state of an image that was closed.
pub(crate) const CLOSED: u8 = 0;
/// The state of an image that is in use, or was when its process died.
pub(crate) const IN_USE: u8 = 1;

/// Where, in the first slice of the header, the state of the image is.
pub(crate) fn state_offset(head: &Slice, header_length: u64) -> Option<usize> {
    let byte_at = |at: usize| (head.get(at / 8) >> (56 - at % 8 * 8)) & 0xff;
    let number = |at: usize| (0..4).fold(0, |n, i| n << 8 | byte_at(at + i));
    let len = head.len() * 8;
    let mut at = usize::try_from(header_length).ok()?;
    while at + 16 <= len {
        let (kind, size) = (number(at), number(at + 4));
        if kind == u64::from(extension::END) {
            return None;
        }
        if kind == u64::from(extension::CLEAN) {
            // Version 1.
            return (size == 8 && byte_at(at + 8) == 1).then_some(at + 9);
        }
        at = at.checked_add(8 + usize::try_from(size).ok()?.next_multiple_of(8))?;
    }
    None
}

impl<S: Storage + 'static> Core<S> {
    /// The state that the header tells, if it tells one.
    pub(crate) fn state(&self) -> Option<u8> {
        let at = self.state_offset?;
        // One byte.
        #[allow(clippy::cast_possible_truncation)]
        Some((self.head.get(at / 8) >> (56 - at % 8 * 8)) as u8)
    }

    fn set_state(&self, state: u8) {
        if let Some(at) = self.state_offset {
            let shift = 56 - at % 8 * 8;
            let word = self.head.get(at / 8) & !(0xff << shift);
            self.set(&self.head, at / 8, word | u64::from(state) << shift);
        }
    }

    /// Prepares for the first write of guest data.
    pub(crate) async fn begin_writing(&self) -> Result<()> {
        self.check_writable()?;
        if self.geo.zero_flag {
            let bits = self.head.get(field::AUTOCLEAR);
            let kept = bits & autoclear::RAW_DATA_FILE;
            if bits != kept {
                self.set(&self.head, field::AUTOCLEAR, kept);
            }
        }
        if !self.head.is_clean() {
            self.commit(&self.head, self.head.changed.get()).await?;
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
        self.set_state(IN_USE);
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
        if self.metadata.borrow().is_empty() {
            self.find_metadata().await?;
        }
        let last_metadata = self.metadata.borrow().last().copied().unwrap_or(0);
        let mut end = last_metadata + 1;
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
        if !self.in_use.get() {
            return Ok(());
        }
        // Old tables may have been replaced meanwhile.
        while !self.freed.is_empty() {
            self.flush().await?;
            if !self.can_reclaim() {
                break;
            }
            self.reclaim().await?;
        }
        for (first, count) in self.reserve.take_all() {
            self.set_refcounts(first, count, 0).await?;
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
        if self.leaky.get() {
            // The next opening counts them.
            return Ok(());
        }
        self.set_state(CLOSED);
        self.flush().await?;
        self.in_use.set(false);
        Ok(())
    }
}
