// SPDX-License-Identifier: Apache-2.0
//! New clusters at the end of the file, and what counts them: refcount blocks, a larger refcount
//! table. One layout for all: blocks, table, clusters, in this order, from the end of the file on.
//!
//! Rule: **what refers is written after what it refers to is on stable storage**: lengths, blocks
//! and a new table, then a sync; then entries of the table or the header, then a sync; only then
//! the new clusters are used, and the old table is freed.
use std::cell::Cell;
use std::rc::Rc;

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::ErrorKind;
use crate::core::{Core, field};
use crate::error::Result;
use crate::layout::header::MAX_REFTABLE_BYTES;
use crate::planted::Bug;
use crate::refcounts::{self, BLOCK_MASK};
use crate::storage::Storage;

/// See the module's text.
struct Layout {
    /// The first cluster.
    start: u64,
    /// Indices of new blocks in the table.
    blocks: Vec<usize>,
    /// Clusters of a new table; 0 where the old one does.
    table: u64,
    /// Clusters that were asked for.
    count: u64,
}

impl Layout {
    fn table_start(&self) -> u64 {
        self.start + self.blocks.len() as u64
    }

    fn first(&self) -> u64 {
        self.table_start() + self.table
    }

    fn end(&self) -> u64 {
        self.first() + self.count
    }
}

impl<S: Storage + 'static> Core<S> {
    /// Makes `count` contiguous clusters at the end of the file, as clusters of the reserve are.
    /// Returns the first. Part of a job.
    pub(crate) async fn extend(&self, count: u64) -> Result<u64> {
        let layout = self.lay_out(count).await?;
        // The clusters before this one are counted, where there are blocks for them.
        let counted = Cell::new(layout.start);
        let result = self.build(&layout, &counted).await;
        if let Err(e) = result {
            if self.end.get() == layout.end() {
                // Tables refer to the blocks, in memory at least: only the clusters are given back.
                self.free(layout.first(), layout.count);
                return Err(e);
            }
            // The space may have been written to: it is not new any more. What has been counted is
            // freed, which may be tried again.
            for cluster in layout.start..counted.get() {
                if !layout.blocks.contains(&self.block_of(cluster)) {
                    self.free(cluster, 1);
                }
            }
            let covered = self.storage.length().await?.div_ceil(self.geo.cluster_size());
            self.end.set(covered.clamp(self.end.get(), layout.end().max(self.end.get())));
            return Err(e);
        }
        Ok(layout.first())
    }

    /// Makes the file at least so long.
    pub(crate) async fn cover(&self, len: u64) -> Result<()> {
        if self.storage.length().await? < len {
            self.storage.set_len(len).await?;
        }
        Ok(())
    }

    async fn lay_out(&self, count: u64) -> Result<Layout> {
        let geo = &self.geo;
        let mut start = self.end.get();
        'place: loop {
            let (mut blocks, mut table): (Vec<usize>, u64) = (Vec::new(), 0);
            loop {
                let layout = Layout { start, blocks: blocks.clone(), table, count };
                let (first, last) = (self.block_of(start), self.block_of(layout.end() - 1));
                let missing: Vec<usize> = (first..=last)
                    .filter(|block| self.reftable.borrow().get(*block) & BLOCK_MASK == 0)
                    .collect();
                let entries = self.reftable.borrow().len;
                let clusters = if last < entries {
                    0
                } else {
                    // Half as much again, so that it is not moved each time.
                    let wanted = (last as u64 + 1).max(entries as u64 * 3 / 2) * 8;
                    wanted.div_ceil(geo.cluster_size())
                };
                if (last as u64 + 1) * 8 > MAX_REFTABLE_BYTES
                    || layout.end() >= 1 << (56 - geo.cluster_bits)
                {
                    return Err(ErrorKind::Unsupported(format!(
                        "the file cannot grow to {} clusters of {} bytes: the refcount table \
                         would be larger than {MAX_REFTABLE_BYTES} bytes; convert it to an image \
                         with larger clusters (qemu-img convert -O qcow2 -o cluster_size=...)",
                        layout.end(),
                        geo.cluster_size()
                    )));
                }
                if missing == blocks && clusters == table {
                    // Clusters past the end of the file that are counted are somebody's.
                    match self.counted(start..layout.end(), &blocks).await? {
                        Some(cluster) => start = cluster + 1,
                        None => return Ok(layout),
                    }
                    continue 'place;
                }
                // Both only grow, so that this ends.
                blocks = missing;
                table = clusters.max(table);
            }
        }
    }

    /// The first cluster of a range whose refcount is not 0; those of `missing` blocks have none.
    async fn counted(&self, range: std::ops::Range<u64>, missing: &[usize]) -> Result<Option<u64>> {
        let mut cluster = range.start;
        while cluster < range.end {
            let (slot, count) = self.refcount_run(cluster, range.end - cluster).await?;
            if let Some(mut slot) = slot.filter(|_| !missing.contains(&self.block_of(cluster))) {
                for number in 0..count {
                    if slot.get(&self.geo) != 0 {
                        return Ok(Some(cluster + number));
                    }
                    slot.index += 1;
                }
            }
            cluster += count;
        }
        Ok(None)
    }

    async fn build(&self, layout: &Layout, counted: &Cell<u64>) -> Result<()> {
        let geo = &self.geo;
        let bits = geo.cluster_bits;
        let (start, end) = (layout.start << bits, layout.end() << bits);
        let there = self.storage.length().await?.min(end).saturating_sub(start);
        if there > 0 {
            // Of a block device, preallocated, or left by somebody.
            self.storage.zero(start, there, true).await?;
        }
        self.cover(end).await?;
        let (done, result) = self.set_refcounts(layout.start..layout.end(), 1).await;
        counted.set(layout.start + done);
        result?;
        self.commit_all().await?;
        for (block, cluster) in layout.blocks.iter().zip(layout.start..) {
            self.storage.write(&self.new_block(layout, *block), cluster << bits).await?;
        }
        if layout.table > 0 {
            self.storage.write(&self.new_table(layout), layout.table_start() << bits).await?;
        }
        if layout.blocks.is_empty() {
            if !self.has(Bug::MappingBeforeRefcount) {
                self.barrier().await?;
            }
            self.end.set(layout.end());
            return Ok(());
        }
        self.barrier().await?;
        // From here on the file may refer to them.
        self.end.set(layout.end());
        self.metadata.borrow_mut().extend(layout.start..layout.first());
        if layout.table > 0 {
            let offset = layout.table_start() << bits;
            let len = usize::try_from((layout.table << bits) / 8).unwrap_or(usize::MAX);
            let table = Self::load_table(&self.storage, geo, offset, len).await?;
            let clusters = self.head.get(field::REFTABLE_CLUSTERS) & u64::from(u32::MAX);
            self.set(&self.head, field::REFTABLE_OFFSET, offset);
            self.set(&self.head, field::REFTABLE_CLUSTERS, clusters | layout.table << 32);
            let old = self.reftable.replace(table);
            let count = (old.len as u64 * 8).div_ceil(geo.cluster_size());
            self.unmapped_clusters(&self.head, old.offset >> bits, count);
            self.commit(&self.head, self.head.changed.get()).await?;
        } else {
            for (block, cluster) in layout.blocks.iter().zip(layout.start..) {
                let slot = {
                    let table = self.reftable.borrow();
                    table.slot(*block).map(|(slice, index)| (Rc::clone(slice), index))
                };
                if let Some((slice, index)) = slot {
                    self.set(&slice, index, cluster << bits);
                }
            }
            self.commit_all().await?;
        }
        self.barrier().await
    }

    /// The content of a new refcount block.
    fn new_block(&self, layout: &Layout, block: usize) -> Sgl<'static> {
        let geo = &self.geo;
        let counted = 1u64 << geo.block_clusters_bits();
        let first = block as u64 * counted;
        let mut words = vec![0u64; usize::try_from(geo.cluster_size() / 8).unwrap_or(0)];
        for cluster in layout.start.max(first)..layout.end().min(first + counted) {
            refcounts::put(geo, &mut words, cluster - first, 1);
        }
        let content = Sgl::zeroed(words.len() * 8);
        content.write_at(0, words.as_bytes());
        content
    }

    /// The content of a new refcount table.
    fn new_table(&self, layout: &Layout) -> Sgl<'static> {
        let bits = self.geo.cluster_bits;
        let old = self.reftable.borrow();
        let len = usize::try_from((layout.table << bits) / 8).unwrap_or(0);
        let mut words: Vec<u64> = (0..len).map(|index| old.get(index).to_be()).collect();
        for (block, cluster) in layout.blocks.iter().zip(layout.start..) {
            if let Some(word) = words.get_mut(*block) {
                *word = (cluster << bits).to_be();
            }
        }
        let content = Sgl::zeroed(words.len() * 8);
        content.write_at(0, words.as_bytes());
        content
    }
}
