// SPDX-License-Identifier: Apache-2.0
//! Clusters come from a reserve.
//!
//! Rule: **refcounts are ahead of use.** A cluster in the reserve has, on stable storage, the
//! refcount 1, reads as zeroes, and is inside the file's length. So whatever of its new owner's
//! mapping and content reaches stable storage, and in whatever order, it has one owner, and what is
//! missing of its content is zero. What a crash leaves in the reserve is leaked, and given back at
//! the next opening.
//!
//! The reserve is filled by a job, long before it is empty: with free clusters inside the file,
//! which are zeroed, then with new ones at its end. Larger refcount blocks and tables: see
//! [`extend`](crate::extend).
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;

use crate::ErrorKind;
use crate::core::Core;
use crate::error::{Result, is_no_space};
use crate::storage::Storage;
use crate::wait::Event;

/// The first filling, in clusters.
const FIRST_BATCH: u64 = 16;
/// The largest filling.
const MAX_BATCH: u64 = 1024;
/// The largest filling in bytes.
const MAX_BATCH_BYTES: u64 = 64 << 20;
/// How many slices of refcounts are searched for free clusters each time.
const SEARCHED_SLICES: u64 = 64;

/// See the module's text.
pub(crate) struct Reserve {
    runs: RefCell<VecDeque<(u64, u64)>>,
    len: Cell<u64>,
    batch: Cell<u64>,
    /// The most that an operation waits for.
    demand: Cell<u64>,
    /// Below it no cluster is free.
    cursor: Cell<u64>,
    /// A job is queued that fills it.
    filling: Cell<bool>,
    /// How often such a job ended.
    fillings: Cell<u64>,
    /// What the last one failed with.
    failed: RefCell<Option<ErrorKind>>,
    ended: Event,
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve {
            runs: RefCell::default(),
            len: Cell::new(0),
            batch: Cell::new(FIRST_BATCH),
            demand: Cell::new(0),
            cursor: Cell::new(0),
            filling: Cell::new(false),
            fillings: Cell::new(0),
            failed: RefCell::new(None),
            ended: Event::default(),
        }
    }
}

/// Clusters that were taken from the reserve. Unless they are kept, they are freed: the kernel or
/// nobody may have written to them.
pub(crate) struct Claim<'a, S: Storage + 'static> {
    core: &'a Core<S>,
    /// The number of the first cluster.
    pub(crate) first: u64,
    /// They are contiguous.
    pub(crate) count: u64,
}

impl<S: Storage + 'static> Claim<'_, S> {
    /// A mapping refers to them.
    pub(crate) fn keep(mut self) {
        self.count = 0;
    }
}

impl<S: Storage + 'static> Drop for Claim<'_, S> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.core.free(self.first, self.count);
        }
    }
}

impl Reserve {
    /// A cluster became free.
    pub(crate) fn was_freed(&self, cluster: u64) {
        self.cursor.set(self.cursor.get().min(cluster));
    }

    /// Puts clusters in.
    pub(crate) fn put(&self, first: u64, count: u64) {
        self.runs.borrow_mut().push_back((first, count));
        self.len.set(self.len.get() + count);
    }

    /// Takes all out.
    pub(crate) fn take_all(&self) -> VecDeque<(u64, u64)> {
        self.len.set(0);
        self.batch.set(FIRST_BATCH);
        self.runs.take()
    }

    fn take(&self, most: u64) -> Option<(u64, u64)> {
        let mut runs = self.runs.borrow_mut();
        let run = runs.front_mut()?;
        let (first, count) = (run.0, run.1.min(most));
        run.0 += count;
        run.1 -= count;
        if run.1 == 0 {
            runs.pop_front();
        }
        self.len.set(self.len.get() - count);
        Some((first, count))
    }

    fn is_low(&self) -> bool {
        self.len.get() < (self.batch.get() / 2).max(self.demand.get())
    }
}

impl<S: Storage + 'static> Core<S> {
    /// What stands for a reference to each of some clusters, for which it was counted.
    pub(crate) fn claimed(&self, clusters: Range<u64>) -> Claim<'_, S> {
        Claim { core: self, first: clusters.start, count: clusters.end - clusters.start }
    }

    /// Takes up to `most` contiguous clusters, at least one.
    pub(crate) async fn claim(&self, most: u64) -> Result<Claim<'_, S>> {
        let reserve = &self.reserve;
        loop {
            if let Some((first, count)) = reserve.take(most) {
                // A job fills it when it is empty: none may follow one that closes the image.
                if !self.jobs.is_running() {
                    self.tend();
                }
                return Ok(Claim { core: self, first, count });
            }
            reserve.demand.set(reserve.demand.get().max(most.min(self.max_batch())));
            if self.jobs.is_running() {
                // This is a job, and another would wait for its end.
                Box::pin(self.keep_house()).await?;
                continue;
            }
            let before = reserve.fillings.get();
            self.tend();
            while reserve.fillings.get() == before {
                self.jobs.wait(&reserve.ended).await;
            }
            if reserve.len.get() == 0
                && let Some(e) = &*reserve.failed.borrow()
            {
                return Err(e.again());
            }
        }
    }

    /// Takes `count` contiguous clusters. Part of a job.
    pub(crate) async fn claim_run(&self, count: u64) -> Result<Claim<'_, S>> {
        if count == 1 {
            return self.claim(1).await;
        }
        Ok(Claim { core: self, first: self.extend(count).await?, count })
    }

    /// Sees to it that the reserve is filled, and that what can be freed is; whoever passes lets
    /// that go on.
    pub(crate) fn tend(&self) {
        let reserve = &self.reserve;
        if !reserve.filling.get() && (reserve.is_low() || self.can_reclaim()) {
            reserve.filling.set(true);
            let core = self.rc();
            self.jobs.push(Box::pin(async move {
                let result = core.keep_house().await;
                if let Err(ErrorKind::Invalid(why)) = &result {
                    core.mark_corrupt(why).await;
                }
                let reserve = &core.reserve;
                *reserve.failed.borrow_mut() = result.err();
                reserve.demand.set(0);
                reserve.filling.set(false);
                reserve.fillings.set(reserve.fillings.get() + 1);
                reserve.ended.notify();
            }));
        }
        self.jobs.help(None);
    }

    async fn keep_house(&self) -> Result<()> {
        self.mark_in_use().await?;
        self.reclaim().await?;
        if self.reserve.is_low() {
            match self.fill_reserve().await {
                // Some of what is pending may do.
                Err(e) if is_no_space(&e) && !self.freed.is_empty() => {
                    self.flush().await?;
                    self.reclaim().await?;
                    self.fill_reserve().await?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn max_batch(&self) -> u64 {
        (MAX_BATCH_BYTES >> self.geo.cluster_bits).clamp(FIRST_BATCH, MAX_BATCH)
    }

    async fn fill_reserve(&self) -> Result<()> {
        let reserve = &self.reserve;
        let mut wanted = reserve.batch.get().max(reserve.demand.get());
        loop {
            let found = self.search(wanted).await?;
            if found > 0 {
                break;
            }
            match self.extend(wanted).await {
                Ok(first) => {
                    reserve.put(first, wanted);
                    break;
                }
                Err(e) if is_no_space(&e) && wanted > 1 => wanted /= 4,
                Err(e) => return Err(e),
            }
            wanted = wanted.max(1);
        }
        reserve.batch.set((reserve.batch.get() * 2).min(self.max_batch()));
        Ok(())
    }

    /// Reserves free clusters inside the file; returns how many.
    async fn search(&self, wanted: u64) -> Result<u64> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let result = self.search_into(wanted, &mut runs).await;
        if let Err(e) = result {
            // They are counted, in memory at least.
            for (first, count) in runs {
                self.free(first, count);
            }
            return Err(e);
        }
        let found = runs.iter().map(|(_, count)| count).sum();
        for (first, count) in runs {
            self.reserve.put(first, count);
        }
        Ok(found)
    }

    async fn search_into(&self, wanted: u64, runs: &mut Vec<(u64, u64)>) -> Result<()> {
        let cursor = &self.reserve.cursor;
        let (mut found, mut slices) = (0, 0);
        let mut last = None;
        while found < wanted && cursor.get() < self.end.get() && slices < SEARCHED_SLICES {
            let cluster = cursor.get();
            let Some(slot) = self.refcount_slot(cluster).await? else {
                // Without a block nothing is counted here: clusters of other blocks will do.
                let block = 1 << self.geo.block_clusters_bits();
                cursor.set((cluster + 1).next_multiple_of(block));
                slices += 1;
                continue;
            };
            if last != Some(slot.slice.offset) {
                last = Some(slot.slice.offset);
                slices += 1;
            }
            cursor.set(cluster + 1);
            if slot.get(&self.geo) != 0 {
                continue;
            }
            if self.metadata.borrow().contains(&cluster) {
                return Err(ErrorKind::damaged(format_args!(
                    "the cluster {cluster:#x} of the file, which is in use for metadata, has the \
                     refcount 0"
                )));
            }
            self.set_refcount(&slot, 1);
            found += 1;
            match runs.last_mut() {
                Some((first, count)) if *first + *count == cluster => *count += 1,
                _ => runs.push((cluster, 1)),
            }
        }
        if runs.is_empty() {
            return Ok(());
        }
        self.commit_all().await?;
        let bits = self.geo.cluster_bits;
        self.cover(self.end.get() << bits).await?;
        for (first, count) in &*runs {
            self.storage.zero(first << bits, count << bits, true).await?;
            self.cache.forget(first << bits, (first + count) << bits);
        }
        self.barrier().await
    }
}
