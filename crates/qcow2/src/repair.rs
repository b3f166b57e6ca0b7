// SPDX-License-Identifier: Apache-2.0
//! Repairing what a check has found. In: a [`Check`]. Out: whether the image is clean.
//!
//! Rules. After each step that is named here there is a sync, so that a crash between two leaves
//! leaks, and nothing that has two owners that had not before; the repair can be done again.
//! 1. What was read is made stable: an earlier process may have left it in the page cache. The mark
//!    of an image that was closed goes.
//! 2. Where the refcount structure is missing, damaged or at the place of something else, or where
//!    clusters are needed: **a new structure is written behind everything that is in use, and is
//!    stable before the header is switched to it, in one sector.** It counts all that is referred
//!    to but the old structure, itself, and the clusters for copies.
//! 3. What is at the place of something that is worth more, or has more owners than a refcount can
//!    tell, is **copied, and the copy is stable before an entry refers to it**: tables, then data.
//! 4. Refcounts that are too low are raised.
//! 5. COPIED flags that promise a single owner where there are more are cleared.
//! 6. Refcounts that are too high are lowered.
//! 7. COPIED flags that are missing are set. The bits "dirty" and "corrupt" are cleared if nothing
//!    is wrong any more.
//!
//! Where an entry is wrong that cannot be repaired, nothing but 1, 4 and 5 is done: what it meant
//! may be among that to which nothing seems to refer.
use std::collections::BTreeSet;

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::compare::{Check, Pass};
use crate::counts::Role;
use crate::error::Result;
use crate::geometry::Entry;
use crate::layout::entry::{COPIED, OFFSET_MASK};
use crate::layout::header::{
    AUTOCLEAR_OFFSET, Crypt, Header, INCOMPATIBLE_OFFSET, MAX_REFTABLE_BYTES,
    REFTABLE_OFFSET_OFFSET, autoclear, incompatible,
};
use crate::references::{L1, PIECE};
use crate::{ErrorKind, Storage, refcounts};

/// The most bytes that are copied.
const MAX_COPIES: u64 = 1 << 30;
/// Offsets have so many bits; those of compressed clusters 70 less those of a cluster.
const MAX_OFFSET_BITS: u32 = 56;
/// Structure, tables, data, and one to see that nothing is left.
const ROUNDS: usize = 4;

/// Repairs leaks; nothing else is wrong.
pub(crate) async fn leaks<S: Storage>(mut check: Check<'_, S>) -> Result<bool> {
    check.begin().await?;
    check.lower().await?;
    check.end().await
}

/// Repairs all that can be repaired.
pub(crate) async fn all<S: Storage>(mut check: Check<'_, S>) -> Result<bool> {
    check.begin().await?;
    if check.refs.faults.bitmaps {
        // They do not count any more.
        check = check.again().await?;
    }
    for _ in 0..ROUNDS {
        if !check.needs_change() {
            break;
        }
        check.change().await?;
        check = check.again().await?;
    }
    if check.low > 0 {
        check.refcounts(Pass::Safer).await?;
        check.refs.storage.sync().await?;
    }
    check.flags(Pass::Safer).await?;
    check.refs.storage.sync().await?;
    if check.may_lower() {
        check.lower().await?;
    }
    check.end().await
}

/// A run of new clusters.
struct New {
    next: u64,
    end: u64,
}

impl New {
    fn take(&mut self, count: u64) -> Result<u64> {
        let first = self.next;
        self.next += count;
        if self.next > self.end {
            return Err(ErrorKind::invalid(
                "it changed while it was repaired; check it when nobody writes to it",
            ));
        }
        Ok(first)
    }
}

impl<'a, S: Storage> Check<'a, S> {
    async fn sync(&self) -> Result<()> {
        Ok(self.refs.storage.sync().await?)
    }

    async fn begin(&self) -> Result<()> {
        let bits = self.refs.header.autoclear;
        let lost = if self.refs.faults.bitmaps { autoclear::BITMAPS } else { 0 };
        let left = bits & !(autoclear::CLEAN | lost);
        if self.refs.header.version >= 3 && bits != left {
            self.put_words(AUTOCLEAR_OFFSET, &[left]).await?;
        }
        self.sync().await
    }

    /// Looks at the image anew.
    async fn again(self) -> Result<Self> {
        let storage = self.refs.storage;
        // Not both in memory.
        drop(self);
        let header = Header::read(storage).await.map_err(|e| e.kind)?;
        Check::look(storage, header).await
    }

    /// Whether refcounts may be lowered: everything that is referred to is known.
    fn may_lower(&self) -> bool {
        self.refs.faults.fatal.is_none() && self.refs.all_counted()
    }

    async fn lower(&mut self) -> Result<()> {
        self.refcounts(Pass::Leaner).await?;
        self.sync().await?;
        self.flags(Pass::Leaner).await?;
        self.sync().await
    }

    /// Looks whether all is well; if so, nothing marks the image as damaged any more.
    async fn end(self) -> Result<bool> {
        let check = self.again().await?;
        if !check.is_sound() {
            return Ok(false);
        }
        let marks = incompatible::DIRTY | incompatible::CORRUPT;
        let bits = check.refs.header.incompatible;
        if bits & marks != 0 {
            check.put_words(INCOMPATIBLE_OFFSET, &[bits & !marks]).await?;
            check.sync().await?;
        }
        Ok(true)
    }

    /// Whether a new structure or copies are needed, and can be made.
    fn needs_change(&self) -> bool {
        let (faults, moves) = (&self.refs.faults, &self.moves);
        let copies = moves.tables + moves.data;
        // What LUKS encrypts is bound to its place.
        let movable = self.refs.header.crypt != Crypt::Luks || moves.data == 0;
        let few = copies.saturating_mul(self.refs.geo.cluster_size()) <= MAX_COPIES;
        let wanted = faults.structure || faults.zero_places > 0 || copies > 0;
        wanted && self.may_lower() && (copies == 0 || movable && few)
    }

    async fn change(&mut self) -> Result<()> {
        // Tables first: their copies have entries of their own.
        let moves = self.moves;
        let copies = if moves.tables > 0 { moves.tables } else { moves.data };
        let mut new = New { next: 0, end: 0 };
        if self.refs.faults.structure || copies > 0 {
            new = self.rebuild(copies).await?;
        }
        if moves.tables > 0 {
            for index in 0..self.refs.l1s.len() {
                if let Some(l1) = self.refs.l1s.get(index).copied() {
                    self.move_tables(l1, &mut new).await?;
                }
            }
            return Ok(());
        }
        if copies > 0 || self.refs.faults.zero_places > 0 {
            let mut next = 0;
            while let Some((table, _)) = self.refs.table_from(next) {
                next = table + 1;
                self.move_data(table, &mut new).await?;
            }
        }
        Ok(())
    }

    /// Makes a new refcount structure, with so many clusters for copies.
    async fn rebuild(&self, copies: u64) -> Result<New> {
        let geo = &self.refs.geo;
        let bits = geo.cluster_bits;
        let counts = &self.refs.counts;
        let used = counts.referred(0..u64::MAX);
        let used = used.filter(|cluster| counts.role(*cluster) != Role::Refcounts);
        let mut blocks: BTreeSet<u64> =
            used.map(|cluster| cluster >> geo.block_clusters_bits()).collect();
        // What damaged entries of the old structure refer to is nobody's.
        let start = counts.end();
        let (table, end) = loop {
            let before = blocks.len() as u64;
            let last = blocks.last().copied().unwrap_or(0);
            let table = ((last + 1) * 8).div_ceil(geo.cluster_size());
            if table << bits > MAX_REFTABLE_BYTES {
                return Err(ErrorKind::to_convert(format_args!(
                    "what is in use in it ends at {:#x}, which no refcount table reaches",
                    start << bits
                )));
            }
            let end = start + before + table + copies;
            if end >> (MAX_OFFSET_BITS.min(70 - bits) - bits) != 0 {
                return Err(ErrorKind::to_convert(format_args!(
                    "what is in use in it ends at {:#x}, and nothing can be put behind that",
                    start << bits
                )));
            }
            let shift = geo.block_clusters_bits();
            blocks.extend(start >> shift..=(end - 1) >> shift);
            let last = blocks.last().copied().unwrap_or(0);
            if blocks.len() as u64 == before
                && ((last + 1) * 8).div_ceil(geo.cluster_size()) == table
            {
                break (table, end);
            }
        };
        let first_table = start + blocks.len() as u64;
        let entries = usize::try_from((table << bits) / 8).unwrap_or(0);
        let mut words = vec![0u64; entries];
        for (block, at) in blocks.iter().zip(start..) {
            let mut content = self.new_block(*block, start..end);
            let content = Sgl::from_slice(content.as_mut_bytes());
            self.refs.storage.write(&content, at << bits).await?;
            let index = usize::try_from(*block).unwrap_or(usize::MAX);
            if let Some(word) = words.get_mut(index) {
                *word = at << bits;
            }
        }
        self.put_words(first_table << bits, &words).await?;
        self.sync().await?;
        let snapshots = u64::from(self.refs.header.snapshots);
        let switched = [first_table << bits, table << 32 | snapshots];
        self.put_words(REFTABLE_OFFSET_OFFSET, &switched).await?;
        self.sync().await?;
        Ok(New { next: first_table + table, end })
    }

    /// The content of a block: all references but those of the old structure, and what is new.
    fn new_block(&self, block: u64, new: std::ops::Range<u64>) -> Vec<u64> {
        let geo = &self.refs.geo;
        let shift = geo.block_clusters_bits();
        let (start, end) = (block << shift, (block + 1) << shift);
        let counts = &self.refs.counts;
        let mut words = vec![0u64; usize::try_from(geo.cluster_size() / 8).unwrap_or(0)];
        let mut set = |cluster: u64, count: u64| {
            refcounts::put(geo, &mut words, cluster - start, count.min(geo.max_refcount()));
        };
        for cluster in counts.referred(start..end) {
            if counts.role(cluster) != Role::Refcounts {
                set(cluster, counts.get(cluster));
            }
        }
        for cluster in new.start.max(start)..new.end.min(end) {
            set(cluster, self.moves.uses.max(1));
        }
        words
    }

    /// Copies clusters of the file.
    async fn copy(&self, first: u64, count: u64, to: u64) -> Result<()> {
        let bits = self.refs.geo.cluster_bits;
        let content = Sgl::zeroed(usize::try_from(self.refs.geo.cluster_size()).unwrap_or(0));
        for at in 0..count {
            self.refs.storage.read(&content, (first + at) << bits).await?;
            self.refs.storage.write(&content, (to + at) << bits).await?;
        }
        Ok(())
    }

    /// Gives entries of an L1 table copies of their tables, where that is needed.
    async fn move_tables(&self, l1: L1, new: &mut New) -> Result<()> {
        let bits = self.refs.geo.cluster_bits;
        for start in (0..l1.entries).step_by(usize::try_from(PIECE).unwrap_or(1)) {
            let at = l1.offset + start * 8;
            let mut words = self.refs.words(at, PIECE.min(l1.entries - start)).await?;
            let mut changed = false;
            for word in &mut words {
                let table = *word & OFFSET_MASK;
                if self.refs.tables.contains_key(&table) && self.must_move(table, Role::Table) {
                    let to = new.take(1)?;
                    self.copy(table >> bits, 1, to).await?;
                    *word = to << bits;
                    changed = true;
                }
            }
            if changed {
                self.sync().await?;
                self.put_words(at, &words).await?;
                self.sync().await?;
            }
        }
        Ok(())
    }

    /// Gives entries of an L2 table copies of their clusters, where that is needed, and takes the
    /// place from those that read as zeroes and have an impossible one.
    async fn move_data(&self, table: u64, new: &mut New) -> Result<()> {
        let geo = &self.refs.geo;
        let bits = geo.cluster_bits;
        let mut words = self.refs.words(table, geo.cluster_size() / 8).await?;
        let mut changed = false;
        for pair in words.chunks_mut(usize::from(geo.extended()) + 1) {
            let bitmap = pair.get(1).copied().unwrap_or(0);
            let Some(word) = pair.first_mut() else { continue };
            let entry = Entry { word: *word, bitmap };
            if entry.is_zero_elsewhere(geo) {
                *word &= !(OFFSET_MASK | COPIED);
                changed = true;
            } else if let Some((first, count)) = self.moved_clusters(entry) {
                let to = new.take(count)?;
                self.copy(first, count, to).await?;
                // Its last cluster may end with the file.
                *word = (*word - (first << bits) + (to << bits)) & !COPIED;
                changed = true;
            }
        }
        if changed {
            self.sync().await?;
            self.put_words(table, &words).await?;
            self.sync().await?;
        }
        Ok(())
    }
}
