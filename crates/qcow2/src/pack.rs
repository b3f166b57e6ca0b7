// SPDX-License-Identifier: Apache-2.0
//! Places for compressed clusters: several of them share clusters of the file. In: lengths, in
//! whole sectors. Out: where to write. A piece shares no sector with another, so that pieces are written
//! side by side.
//!
//! Rule: **refcounts are ahead of use**, here as in the [`reserve`](crate::reserve). A run of
//! clusters gets, on stable storage, the highest refcounts that pieces in it may need before the
//! first piece is placed. When the run is full, or the image is closed, they are lowered to what is
//! used. A crash leaves them too high: leaks, given back at the next opening.
use std::cell::RefCell;
use std::ops::Range;

use crate::busy::Busy;
use crate::core::Core;
use crate::error::Result;
use crate::planted::Bug;
use crate::reserve::Claim;
use crate::storage::{SECTOR, Storage};

/// How many clusters are prepared at once, at most.
const RUN: u64 = 32;
/// How many bytes of them, where that is less.
const RUN_BYTES: u64 = 2 << 20;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Pack {
    run: RefCell<Run>,
    /// Held by who looks for another run.
    looking: Busy,
}

/// Clusters that are being filled.
#[derive(Default)]
struct Run {
    /// The number of the first.
    first: u64,
    /// How many pieces are in each.
    used: Vec<u64>,
    /// Where the next piece begins, in bytes of the file.
    next: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.used.len() as u64
    }

    /// Places a piece: no more than `most` are in a cluster.
    fn place(&mut self, len: u64, bits: u32, most: u64) -> Option<(u64, Range<u64>)> {
        loop {
            let host = self.next;
            let clusters = host >> bits..(host + len).div_ceil(1 << bits);
            if clusters.end > self.end() {
                return None;
            }
            let index = |cluster: u64| usize::try_from(cluster - self.first).unwrap_or(usize::MAX);
            let range = index(clusters.start)..index(clusters.end);
            let used = self.used.get_mut(range)?;
            if used.first().is_some_and(|pieces| *pieces >= most) {
                self.next = (clusters.start + 1) << bits;
                continue;
            }
            used.iter_mut().for_each(|pieces| *pieces += 1);
            self.next = host + len;
            return Some((host, clusters));
        }
    }

    /// Takes more clusters in. Returns those that are left behind.
    fn add(&mut self, first: u64, count: u64, bits: u32) -> Run {
        let count = usize::try_from(count).unwrap_or(0);
        if first == self.end() {
            let done = ((self.next >> bits) - self.first).min(self.used.len() as u64);
            let rest = self.used.split_off(usize::try_from(done).unwrap_or(0));
            let old =
                Run { first: self.first, used: std::mem::replace(&mut self.used, rest), next: 0 };
            self.first += done;
            self.used.resize(self.used.len() + count, 0);
            return old;
        }
        std::mem::replace(self, Run { first, used: vec![0; count], next: first << bits })
    }
}

impl<S: Storage + 'static> Core<S> {
    /// The most pieces that a cluster of the file has.
    fn most_pieces(&self) -> u64 {
        (self.geo.cluster_size() / SECTOR).min(self.geo.max_refcount())
    }

    /// A place of `len` bytes, a multiple of a sector and less than a cluster. Its clusters are
    /// counted; unless the claim is kept, that is taken back.
    pub(crate) async fn claim_piece(&self, len: u64) -> Result<(u64, Claim<'_, S>)> {
        let place = || {
            let placed =
                self.pack.run.borrow_mut().place(len, self.geo.cluster_bits, self.most_pieces());
            placed.map(|(host, clusters)| (host, self.claimed(clusters)))
        };
        loop {
            if let Some(placed) = place() {
                return Ok(placed);
            }
            let _looking = self.pack.looking.lock(&self.jobs, 0..1).await;
            if let Some(placed) = place() {
                return Ok(placed);
            }
            if self.jobs.is_running() {
                // This is a job, and another would wait for its end.
                Box::pin(self.next_run()).await?;
            } else {
                let core = self.rc();
                self.run(async move { core.next_run().await }).await?;
            }
        }
    }

    /// Prepares more clusters. A job.
    async fn next_run(&self) -> Result<()> {
        let bits = self.geo.cluster_bits;
        let claim = self.claim((RUN_BYTES >> bits).clamp(1, RUN)).await?;
        let (first, count) = (claim.first, claim.count);
        let raised = async {
            self.set_refcounts(first..first + count, self.most_pieces()).await.1?;
            if self.has(Bug::PackedBeforeRefcount) { Ok(()) } else { self.flush().await }
        };
        if let Err(e) = raised.await {
            self.set_refcounts(first..first + count, 1).await.1?;
            return Err(e);
        }
        claim.keep();
        let old = self.pack.run.borrow_mut().add(first, count, bits);
        self.lower_run(&old).await
    }

    /// Lowers the refcounts of a run to what is used. Part of a job.
    async fn lower_run(&self, run: &Run) -> Result<()> {
        let mut result = Ok(());
        for (cluster, used) in (run.first..).zip(&run.used) {
            let unused = self.most_pieces() - used;
            if unused == 0 {
                // It may belong to somebody else by now.
                continue;
            }
            let (_, lowered) = self.decrement(cluster, 1, unused).await;
            result = result.and(lowered);
        }
        result
    }

    /// Gives back what no piece needs, at closing. Part of a job.
    pub(crate) async fn end_pack(&self) -> Result<()> {
        let run = self.pack.run.take();
        self.lower_run(&run).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_one_after_the_other_over_the_ends_of_clusters() {
        let mut run = Run::default();
        assert_eq!(run.place(512, 12, 8), None);
        run.add(5, 2, 12);
        assert_eq!(run.place(3 << 10, 12, 8), Some((5 << 12, 5..6)));
        assert_eq!(run.place(3 << 10, 12, 8), Some(((5 << 12) + 3072, 5..7)));
        assert_eq!(run.place(3 << 10, 12, 8), None);
        // What follows in the file is one run with it.
        let old = run.add(7, 1, 12);
        assert_eq!((old.first, old.used), (5, vec![2]));
        assert_eq!(run.place(3 << 10, 12, 8), Some(((6 << 12) + 2048, 6..8)));
        let old = run.add(20, 1, 12);
        assert_eq!((old.first, old.used), (6, vec![2, 1]));
        assert_eq!(run.place(512, 12, 8), Some((20 << 12, 20..21)));
    }

    #[test]
    fn a_cluster_has_no_more_pieces_than_its_refcount_can_count() {
        let mut run = Run::default();
        run.add(5, 3, 12);
        let mut place = || run.place(512, 12, 1).map(|(host, _)| host >> 12);
        assert_eq!([place(), place(), place(), place()], [Some(5), Some(6), Some(7), None]);
        let mut run = Run::default();
        run.add(5, 3, 12);
        // One that would end in the next cluster begins there, too.
        assert_eq!(run.place(3 << 10, 12, 1), Some((5 << 12, 5..6)));
        assert_eq!(run.place(3 << 10, 12, 1), Some((6 << 12, 6..7)));
    }
}
