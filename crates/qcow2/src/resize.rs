// SPDX-License-Identifier: Apache-2.0
//! Changing the virtual size, with the image for itself.
//!
//! Rules:
//! - **Growing**: what the new part would show of a longer backing store, or of stale bytes behind
//!   the old end, reads as zeroes on stable storage *before* the header tells the size.
//! - **A larger L1 table** is written elsewhere and synced before the header refers to it, and that
//!   is synced before the old one is freed.
//! - **Shrinking**: mappings past the new end are removed first, then the size is written; both are
//!   synced before anything is freed. Of an image of version 2, which cannot say that a cluster is
//!   zero, a crash in between may show the backing store there.
use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::ErrorKind;
use crate::bitmaps::Wrong;
use crate::core::{Core, field};
use crate::error::Result;
use crate::geometry::Entry;
use crate::layout::entry::OFFSET_MASK;
use crate::layout::header::MAX_L1_BYTES;
use crate::planted::Bug;
use crate::storage::Storage;
use crate::zero::Zeroing;

impl<S: Storage + 'static> Core<S> {
    /// The gate is closed. Part of a job.
    pub(crate) async fn resize(&self, size: u64) -> Result<()> {
        self.check_writable()?;
        if !size.is_multiple_of(512) {
            return Err(ErrorKind::Unsupported(format!(
                "the size {size} is no multiple of 512 bytes"
            )));
        }
        let entries = self.header.l1_entries_for(size);
        if entries * 8 > MAX_L1_BYTES {
            return Err(ErrorKind::Unsupported(format!(
                "with its clusters of {} bytes it cannot be {size} bytes large",
                self.geo.cluster_size()
            )));
        }
        self.mark_in_use().await?;
        self.mark_bitmaps(Wrong::All);
        self.flush().await?;
        let old = self.size.get();
        if size < old {
            self.shrink(size).await?;
        } else {
            self.grow(size, entries).await?;
        }
        self.resize_bitmaps(old, size);
        Ok(())
    }

    async fn grow(&self, size: u64, entries: u64) -> Result<()> {
        if entries > self.l1.borrow().len as u64 {
            self.grow_l1(entries).await?;
        }
        let old = self.size.get();
        if self.has(Bug::SizeBeforeZeroes) {
            self.set(&self.head, field::SIZE, size);
            self.flush().await?;
        }
        // Whole clusters past the old end are unallocated, or left by somebody who was careless.
        let rest = old.next_multiple_of(self.geo.cluster_size());
        let end = rest.max(self.backing_len.min(size)).min(size.max(rest));
        self.size.set(end);
        let cleared =
            if end > old { self.zero(old, end - old, Zeroing::Unmap).await } else { Ok(()) };
        self.size.set(old);
        cleared?;
        self.set_size(size).await
    }

    /// Writes the size, after all that it relies on.
    async fn set_size(&self, size: u64) -> Result<()> {
        self.flush().await?;
        self.switch_header(&[(field::SIZE, size)]).await?;
        self.size.set(size);
        Ok(())
    }

    async fn grow_l1(&self, entries: u64) -> Result<()> {
        let geo = &self.geo;
        let bits = geo.cluster_bits;
        let len = usize::try_from(entries).unwrap_or(usize::MAX);
        let count = (entries * 8).div_ceil(geo.cluster_size());
        let claim = self.claim_run(count).await?;
        let first = claim.first;
        let offset = first << bits;
        let words: Vec<u64> = {
            let old = self.l1.borrow();
            (0..len).map(|index| old.get(index).to_be()).collect()
        };
        let content = Sgl::zeroed(usize::try_from(count << bits).unwrap_or(0));
        content.write_at(0, words.as_bytes());
        self.storage.write(&content, offset).await?;
        self.barrier().await?;
        let table = Self::load_table(&self.storage, geo, offset, len).await?;
        claim.keep();
        self.metadata.borrow_mut().extend(first..first + count);
        let crypt = self.head.get(field::L1_ENTRIES) & !u64::from(u32::MAX);
        self.set(&self.head, field::L1_ENTRIES, crypt | entries);
        self.set(&self.head, field::L1_OFFSET, offset);
        let old = self.l1.replace(table);
        let count = (old.len as u64 * 8).div_ceil(geo.cluster_size());
        if count > 0 {
            self.unmapped_clusters(&self.head, old.offset >> bits, count);
        }
        self.flush().await
    }

    async fn shrink(&self, size: u64) -> Result<()> {
        let geo = &self.geo;
        let old = self.size.get();
        let from = size.next_multiple_of(geo.cluster_size());
        if from < old {
            // Before it goes: where this fails midway, the size stays and the content does not.
            self.mark_dirty(from, old - from);
            self.unmap(from, old).await?;
        }
        self.set_size(size).await
    }

    /// Removes all mappings of whole clusters, and L2 tables that map nothing else.
    async fn unmap(&self, from: u64, to: u64) -> Result<()> {
        let geo = &self.geo;
        let to = to.next_multiple_of(geo.cluster_size());
        let entries = self.l1.borrow().len;
        for number in geo.l1_index(from)..entries {
            let start = (number as u64) << geo.table_bits();
            let (l1, index) = self.l1_slot(number)?;
            let table = l1.get(index) & OFFSET_MASK;
            if table == 0 {
                continue;
            }
            let end = (start + (1 << geo.table_bits())).min(to);
            if start >= from && start >= self.backing_len {
                // The entry goes, and with it all that the table refers to; it may be shared.
                let gone = self.mapped(table).await?;
                self.inflated.forget();
                self.set(&l1, index, 0);
                l1.set_checked(index, false);
                self.unmapped_clusters(&l1, table >> geo.cluster_bits, 1);
                for (first, count) in gone {
                    self.unmapped_clusters(&l1, first, count);
                }
                self.commit(&l1, l1.changed.get()).await?;
                self.collect_freed();
            } else if from < end {
                self.unmap_entries(from, end).await?;
            }
        }
        Ok(())
    }

    /// Removes the mappings of a part of one L2 table.
    async fn unmap_entries(&self, from: u64, to: u64) -> Result<()> {
        let geo = &self.geo;
        for pos in (from..to).step_by(1 << geo.cluster_bits) {
            let spot = self.spot_for_write(pos).await?;
            let old = spot.slice.entry(geo, spot.index);
            // Until the size is written, nothing of the backing store shows.
            let covered = geo.zero_flag && pos < self.backing_len;
            let new = Entry::homeless(geo, if covered { geo.all_granules() } else { 0 });
            if old != new {
                self.set_entry(&spot.slice, spot.index, new);
                spot.slice.set_checked(spot.index, false);
                spot.slice.set_fresh(spot.index, false);
                self.unmapped(&spot, old.kind(geo));
            }
        }
        self.commit_all().await?;
        self.collect_freed();
        Ok(())
    }
}
