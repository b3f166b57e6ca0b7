// SPDX-License-Identifier: Apache-2.0
//! All that an L1 table refers to: its L2 tables, and the clusters of those. The refcounts of all of
//! it are raised when there is one more such table, and lowered when there is one less; COPIED flags
//! follow.
//!
//! Rule: **a flag never promises more than the refcounts on stable storage**, which are synced
//! before a flag is set. Work goes on table by table, with little in memory; where it stops, by a
//! crash or an error, refcounts are too high.
use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::ErrorKind;
use crate::core::Core;
use crate::error::Result;
use crate::geometry::{Entry, Kind};
use crate::layout::entry::{COPIED, OFFSET_MASK};
use crate::storage::Storage;

/// A range of clusters of the file: the first, and how many.
type Run = (u64, u64);

impl<S: Storage + 'static> Core<S> {
    /// The L2 tables to which entries of an L1 table refer.
    fn tables(&self, l1: &[u64]) -> Result<Vec<u64>> {
        let tables: Vec<u64> =
            l1.iter().map(|entry| entry & OFFSET_MASK).filter(|table| *table != 0).collect();
        if tables.len() as u64 > self.end.get() {
            return Err(ErrorKind::damaged(format_args!(
                "an L1 table refers to {} L2 tables, which is more than the {} clusters of the file",
                tables.len(),
                self.end.get()
            )));
        }
        let wrong = tables.iter().find(|table| {
            **table & (self.geo.cluster_size() - 1) != 0
                || **table >> self.geo.cluster_bits >= self.end.get()
        });
        match wrong {
            None => Ok(tables),
            Some(table) => Err(ErrorKind::damaged(format_args!(
                "an L1 table refers to an L2 table at {table:#x}, which is not aligned to a \
                 cluster, or outside of the file"
            ))),
        }
    }

    /// The clusters of the file to which the entries of an L2 table refer, as the file has it.
    pub(crate) async fn mapped(&self, table: u64) -> Result<Vec<Run>> {
        let geo = &self.geo;
        let mut words = vec![0u64; usize::try_from(geo.cluster_size() / 8).unwrap_or(0)];
        self.storage.read(&Sgl::from_slice(words.as_mut_bytes()), table).await?;
        let mut runs: Vec<Run> = Vec::new();
        let step = usize::try_from(1u32 << (geo.entry_bits - 3)).unwrap_or(1);
        for (index, pair) in words.chunks(step).enumerate() {
            let word = |at: usize| u64::from_be(pair.get(at).copied().unwrap_or(0));
            let entry = Entry { word: word(0), bitmap: word(1) };
            let (first, count) = match entry.kind(geo) {
                Ok(Kind::Compressed(at)) => self.clusters_of(at),
                Ok(Kind::Plain { host: Some(host), .. }) if !geo.data_file => {
                    (host >> geo.cluster_bits, 1)
                }
                Ok(Kind::Plain { .. }) => continue,
                Err(what) => {
                    return Err(ErrorKind::damaged(format_args!(
                        "the entry {index} of the L2 table at {table:#x}, {:#x}, {what}",
                        entry.word
                    )));
                }
            };
            match runs.last_mut() {
                Some((start, len)) if *start + *len == first => *len += count,
                _ => runs.push((first, count)),
            }
        }
        Ok(runs)
    }

    /// Raises the refcounts of all that an L1 table refers to, on stable storage. Nothing of it may
    /// be overwritten from now on. After an error they are as before.
    pub(crate) async fn raise(&self, l1: &[u64]) -> Result<()> {
        // Refcounts that are ahead of use, or still to be lowered, would count as owners: of what is
        // referred to again, too.
        self.reclaim_all().await?;
        self.end_pack().await?;
        self.cache.uncheck();
        self.l1.borrow().uncheck();
        let mut raised = 0;
        let result = self.raise_counting(l1, &mut raised).await;
        if result.is_err()
            && let Err(e) = self.lower_some(l1, raised).await
        {
            tracing::warn!("clusters are leaked, `qemu-img check -r leaks` finds them: {e}");
        }
        result
    }

    async fn raise_counting(&self, l1: &[u64], raised: &mut u64) -> Result<()> {
        for table in self.tables(l1)? {
            let mut runs = self.mapped(table).await?;
            runs.push((table >> self.geo.cluster_bits, 1));
            for (first, count) in runs {
                for cluster in first..first + count {
                    self.raise_one(cluster).await?;
                    *raised += 1;
                }
            }
            self.commit_all().await?;
        }
        self.barrier().await
    }

    async fn raise_one(&self, cluster: u64) -> Result<()> {
        let offset = cluster << self.geo.cluster_bits;
        let Some(slot) = self.refcount_slot(cluster).await?.filter(|s| s.get(&self.geo) > 0) else {
            return Err(ErrorKind::damaged(format_args!(
                "the cluster at {offset:#x} of the file is in use, and has the refcount 0"
            )));
        };
        let refcount = slot.get(&self.geo);
        if refcount == self.geo.max_refcount() {
            return Err(ErrorKind::Unsupported(format!(
                "the cluster at {offset:#x} of the file has the refcount {refcount}, the highest \
                 that {} bits can be (refcount_bits); `qemu-img amend -o refcount_bits=64 PATH` \
                 makes them wider",
                1 << self.geo.refcount_order
            )));
        }
        self.set_refcount(&slot, refcount + 1);
        Ok(())
    }

    /// Lowers the refcounts of all that an L1 table refers to. Nothing on stable storage refers to
    /// that table any more.
    pub(crate) async fn lower(&self, l1: &[u64]) -> Result<()> {
        self.lower_some(l1, u64::MAX).await
    }

    /// As [`lower`](Self::lower), of the first so many clusters, in the order of `raise`.
    async fn lower_some(&self, l1: &[u64], mut left: u64) -> Result<()> {
        self.inflated.forget();
        for table in self.tables(l1)? {
            if left == 0 {
                break;
            }
            let mut runs = self.mapped(table).await?;
            runs.push((table >> self.geo.cluster_bits, 1));
            for (first, count) in runs {
                let count = count.min(left);
                left -= count;
                self.decrement(first, count, 1).await.1?;
            }
            self.commit_all().await?;
        }
        Ok(())
    }

    /// Makes the flags of the active tables agree with the refcounts, on stable storage.
    pub(crate) async fn settle_active(&self) -> Result<()> {
        self.flush().await?;
        let words: Vec<u64> = {
            let l1 = self.l1.borrow();
            (0..l1.len).map(|index| l1.get(index)).collect()
        };
        self.settle_tables(&words).await?;
        for (number, word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
            let flagged = self.flagged(*word, *word & OFFSET_MASK).await?;
            if flagged != *word {
                let (slice, index) = self.l1_slot(number)?;
                self.set(&slice, index, flagged);
            }
        }
        self.flush().await
    }

    /// Makes the flags in the L2 tables to which an L1 table refers agree with the refcounts, which
    /// are on stable storage; not yet the flags there.
    pub(crate) async fn settle_tables(&self, l1: &[u64]) -> Result<()> {
        let geo = &self.geo;
        for table in self.tables(l1)? {
            for offset in (table..table + geo.cluster_size()).step_by(1 << geo.slice_bits) {
                let slice = self.load(offset).await?;
                for index in 0..geo.slice_entries() {
                    let entry = slice.entry(geo, index);
                    let Ok(Kind::Plain { host: Some(host), .. }) = entry.kind(geo) else {
                        continue;
                    };
                    let word = self.flagged(entry.word, host).await?;
                    if word != entry.word {
                        self.set_entry(&slice, index, Entry { word, ..entry });
                    }
                }
            }
            self.commit_all().await?;
        }
        Ok(())
    }

    /// An entry that refers to `host`, with the flag that it should have.
    async fn flagged(&self, word: u64, host: u64) -> Result<u64> {
        let own = self.refcount(host >> self.geo.cluster_bits).await? == 1;
        Ok(if own { word | COPIED } else { word & !COPIED })
    }
}
