// SPDX-License-Identifier: Apache-2.0
//! Giving clusters up.
//!
//! Rule: **a cluster is freed after its unmapping is on stable storage, and nothing in flight can
//! reach it any more.** Until then its refcount stays as it is:
//! 1. the mapping is changed in memory (`Freed::unmapped`),
//! 2. that change is in the file: the cluster is pending,
//! 3. a sync began after that and succeeded, and the gate's generation has passed: the refcount is
//!    decremented. Where it was 1, its space is given up, and it may be reserved again, which zeroes
//!    it.
//!
//! A crash in between leaves a cluster with a refcount that is too high: a leak.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::core::Core;
use crate::error::Result;
use crate::layout::entry::Compressed;
use crate::planted::Bug;
use crate::slice::Slice;
use crate::storage::Storage;

/// More pending ranges than this are not kept in memory: a sync is asked for.
const MAX_PENDING: usize = 1 << 16;

/// Clusters whose refcount is one too high now.
struct Range {
    first: u64,
    count: u64,
    /// The last sync that had been started when the file had the change.
    sync: u64,
    /// The gate's generation when the mapping was changed in memory.
    generation: u64,
}

/// Clusters that nothing refers to in a version of a slice.
struct Unmapped {
    slice: Rc<Slice>,
    version: u64,
    generation: u64,
    first: u64,
    count: u64,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Freed {
    unmapped: RefCell<Vec<Unmapped>>,
    pending: RefCell<VecDeque<Range>>,
    /// All clusters in both.
    clusters: Cell<u64>,
}

impl Freed {
    fn unmapped(&self, slice: &Rc<Slice>, first: u64, count: u64, generation: u64) {
        self.clusters.set(self.clusters.get() + count);
        let version = slice.changed.get();
        let mut unmapped = self.unmapped.borrow_mut();
        if let Some(last) = unmapped.last_mut()
            && Rc::ptr_eq(&last.slice, slice)
            && last.first + last.count == first
        {
            last.count += count;
            last.version = version;
            last.generation = generation;
            return;
        }
        unmapped.push(Unmapped { slice: slice.clone(), version, generation, first, count });
    }

    /// Whether there is nothing to be freed.
    pub(crate) fn is_empty(&self) -> bool {
        self.clusters.get() == 0
    }

    /// Whether too much of it is in memory.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.borrow().len() > MAX_PENDING
    }
}

impl<S: Storage + 'static> Core<S> {
    /// Clusters were unmapped in memory, by the latest change of a slice.
    pub(crate) fn unmapped_clusters(&self, slice: &Rc<Slice>, first: u64, count: u64) {
        self.freed.unmapped(slice, first, count, self.gate.generation());
    }

    /// Clusters that nothing in the file refers to, nor ever did: what an operation claimed and did
    /// not use.
    pub(crate) fn free(&self, first: u64, count: u64) {
        self.freed.clusters.set(self.freed.clusters.get() + count);
        self.add_pending(first, count, self.gate.generation());
    }

    fn add_pending(&self, first: u64, count: u64, generation: u64) {
        let sync = self.syncs.started.get();
        let mut pending = self.freed.pending.borrow_mut();
        if let Some(last) = pending.back_mut()
            && last.first + last.count == first
            && last.sync == sync
        {
            last.count += count;
            last.generation = last.generation.max(generation);
            return;
        }
        pending.push_back(Range { first, count, sync, generation });
    }

    /// Takes note of unmappings that the file has by now.
    pub(crate) fn collect_freed(&self) {
        if self.freed.unmapped.borrow().is_empty() {
            return;
        }
        let all = self.freed.unmapped.take();
        for range in all {
            if range.slice.written.get() >= range.version {
                self.add_pending(range.first, range.count, range.generation);
            } else {
                self.freed.unmapped.borrow_mut().push(range);
            }
        }
    }

    /// The clusters of a compressed one were unmapped.
    pub(crate) fn unmapped_compressed(&self, slice: &Rc<Slice>, compressed: Compressed) {
        let (first, count) = self.clusters_of(compressed);
        self.inflated.forget();
        self.unmapped_clusters(slice, first, count);
    }

    /// The clusters of the file in which a compressed one is: the first, and how many.
    pub(crate) fn clusters_of(&self, compressed: Compressed) -> (u64, u64) {
        let clusters = self.geo.clusters(compressed.host, compressed.len);
        (clusters.start, clusters.end - clusters.start)
    }

    /// Whether something can be freed now.
    pub(crate) fn can_reclaim(&self) -> bool {
        self.collect_freed();
        let pending = self.freed.pending.borrow();
        pending.front().is_some_and(|range| {
            (range.sync < self.syncs.done.get() || self.has(Bug::ReuseBeforeUnmapping))
                && (self.gate.has_passed(range.generation) || self.has(Bug::FreedUnderRead))
        })
    }

    /// Frees what can be freed. Part of a job.
    pub(crate) async fn reclaim(&self) -> Result<()> {
        while self.can_reclaim() {
            let Some(mut range) = self.freed.pending.borrow_mut().pop_front() else { break };
            let (done, result) = self.decrement(range.first, range.count, 1).await;
            self.freed.clusters.set(self.freed.clusters.get() - done);
            if let Err(e) = result {
                // The rest is tried again.
                range.first += done;
                range.count -= done;
                self.freed.pending.borrow_mut().push_front(range);
                return Err(e);
            }
        }
        self.commit_all().await
    }

    /// Frees all that is pending: refcounts are as high as there are references then, beside those of
    /// the reserve. The gate is closed. Part of a job.
    pub(crate) async fn reclaim_all(&self) -> Result<()> {
        // Old tables may have been replaced meanwhile.
        while !self.freed.is_empty() {
            self.flush().await?;
            if !self.can_reclaim() {
                break;
            }
            self.reclaim().await?;
        }
        Ok(())
    }

    /// Lowers the refcounts of clusters by references that are not there on stable storage. Returns
    /// of how many that was done, and why not of all.
    pub(crate) async fn decrement(&self, first: u64, count: u64, by: u64) -> (u64, Result<()>) {
        let mut gone: Option<(u64, u64)> = None;
        let mut result = Ok(());
        let mut done = 0;
        for cluster in first..first + count {
            let slot = match self.refcount_slot(cluster).await {
                Ok(slot) => slot,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            };
            done += 1;
            let Some(slot) = slot else { continue };
            match slot.get(&self.geo) {
                0 => {
                    let why = format!("the cluster {cluster:#x} was in use, with the refcount 0");
                    self.mark_corrupt(&why).await;
                }
                n if n <= by => {
                    self.set_refcount(&slot, 0);
                    match &mut gone {
                        Some((start, len)) if *start + *len == cluster => *len += 1,
                        other => {
                            if let Some((start, len)) = other.replace((cluster, 1)) {
                                self.give_up(start, len).await;
                            }
                        }
                    }
                }
                more => self.set_refcount(&slot, more - by),
            }
        }
        if let Some((start, len)) = gone {
            self.give_up(start, len).await;
        }
        (done, result)
    }

    /// Clusters belong to nobody from now on.
    async fn give_up(&self, first: u64, count: u64) {
        let bits = self.geo.cluster_bits;
        self.reserve.was_freed(first);
        let start = first << bits;
        self.cache.forget(start, (first + count) << bits);
        for cluster in first..first + count {
            self.metadata.borrow_mut().remove(&cluster);
        }
        if !self.punch {
            return;
        }
        let punched = async {
            let len = self.storage.length().await?.saturating_sub(start).min(count << bits);
            if len > 0 { self.storage.zero(start, len, true).await } else { Ok(()) }
        };
        if let Err(e) = punched.await {
            // It will be zeroed before it is used again.
            tracing::debug!(start, count, "the space of free clusters was not given back: {e}");
        }
    }
}
