// SPDX-License-Identifier: Apache-2.0
//! L2 tables that are to be changed: making one, and copying one that a snapshot has too.
//!
//! Rule: **a new L2 table is a zero cluster of the reserve**, so that the L1 entry may reach stable
//! storage before or after any of its content. **A copy is synced before the L1 entry that refers
//! to it is written**; the old one is freed after that entry is on stable storage.
//!
//! What is written to is checked first, once while its entry is in memory: that its refcount is 1,
//! and that it is not part of what the image needs for itself.
use std::rc::Rc;

use sgl::Sgl;

use crate::core::{Core, Spot};
use crate::error::Result;
use crate::layout::entry::{COPIED, OFFSET_MASK};
use crate::refcounts::BLOCK_MASK;
use crate::slice::Slice;
use crate::storage::Storage;
use crate::{ErrorKind, crypt};

/// Whose a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Of this entry alone.
    Own,
    /// Of a snapshot, too.
    Shared,
}

impl<S: Storage + 'static> Core<S> {
    /// Finds out whose the cluster at `host` in the image's file is; `what` names it in errors.
    pub(crate) async fn owner(&self, host: u64, what: &str) -> Result<Owner> {
        let cluster = host >> self.geo.cluster_bits;
        match self.refcount(cluster).await? {
            0 => Err(ErrorKind::damaged(format_args!(
                "{what} refers to the cluster at {host:#x}, whose refcount is 0"
            ))),
            1 => Ok(Owner::Own),
            _ => Ok(Owner::Shared),
        }
    }

    /// The entry of a guest's offset, in an L2 table that may be changed.
    pub(crate) async fn spot_for_write(&self, pos: u64) -> Result<Spot> {
        let number = self.geo.l1_index(pos);
        loop {
            let (l1, index) = self.l1_slot(number)?;
            if l1.get(index) & OFFSET_MASK == 0 || !l1.is_checked(index) {
                self.own_table(number, &l1, index).await?;
                continue;
            }
            self.commit(&l1, l1.changed.get()).await?;
            if let Some(spot) = self.spot(pos).await? {
                return Ok(spot);
            }
        }
    }

    pub(crate) fn l1_slot(&self, number: usize) -> Result<(Rc<Slice>, usize)> {
        let l1 = self.l1.borrow();
        match l1.slot(number) {
            Some((slice, index)) => Ok((slice.clone(), index)),
            None => Err(ErrorKind::damaged(format_args!(
                "the L1 table of {} entries is too small: there is no entry {number}",
                l1.len
            ))),
        }
    }

    /// Makes an L1 entry refer to a table of its own.
    async fn own_table(&self, number: usize, l1: &Rc<Slice>, index: usize) -> Result<()> {
        let bits = self.geo.cluster_bits;
        let number_range = number as u64..number as u64 + 1;
        let _locked = self.busy_tables.lock(&self.jobs, number_range).await;
        let old = l1.get(index) & OFFSET_MASK;
        if old == 0 {
            let claim = self.claim(1).await?;
            let table = claim.first << bits;
            self.cache.forget(table, table + self.geo.cluster_size());
            self.metadata.borrow_mut().insert(claim.first);
            self.set(l1, index, table | COPIED);
            l1.set_checked(index, true);
            claim.keep();
            return Ok(());
        }
        if l1.is_checked(index) {
            return Ok(());
        }
        let what = format!("the L1 entry {number}");
        self.check_table(old, &what)?;
        self.check_inside(old, 1, &what).await?;
        if self.owner(old, &what).await? == Owner::Own {
            if l1.get(index) & COPIED == 0 {
                self.set(l1, index, old | COPIED);
            }
            l1.set_checked(index, true);
            return Ok(());
        }
        let claim = self.claim(1).await?;
        let table = claim.first << bits;
        self.cache.forget(table, table + self.geo.cluster_size());
        let content = Sgl::zeroed(usize::try_from(self.geo.cluster_size()).unwrap_or(0));
        // Nobody changes what is shared: the file has it as it is.
        self.storage.read(&content, old).await?;
        self.storage.write(&content, table).await?;
        self.barrier().await?;
        self.metadata.borrow_mut().insert(claim.first);
        self.set(l1, index, table | COPIED);
        l1.set_checked(index, true);
        claim.keep();
        self.unmapped_clusters(l1, old >> bits, 1);
        self.commit(l1, l1.changed.get()).await?;
        self.collect_freed();
        Ok(())
    }

    /// Refuses an L2 table that lies on what the image needs for itself.
    fn check_table(&self, table: u64, what: &str) -> Result<()> {
        if let Some(other) = self.fixed_metadata(table) {
            return Err(ErrorKind::damaged(format_args!(
                "{what} refers to an L2 table at {table:#x}, where the {other} is"
            )));
        }
        Ok(())
    }

    /// What, beside L2 tables, is at `host` in the image's file.
    pub(crate) fn fixed_metadata(&self, host: u64) -> Option<&'static str> {
        if let Some(what) = self.overlapped(host, self.geo.cluster_size()) {
            return Some(what);
        }
        let table = self.reftable.borrow();
        let block = self.block_of(host >> self.geo.cluster_bits);
        // Blocks usually count themselves; those that do not are in the list of metadata.
        (table.get(block) & BLOCK_MASK == host).then_some("refcount block")
    }

    /// Checks the cluster of an entry before it is written to.
    pub(crate) async fn check_owner(&self, spot: &Spot, pos: u64, host: u64) -> Result<Owner> {
        if spot.slice.is_checked(spot.index) {
            return Ok(Owner::Own);
        }
        if self.geo.data_file {
            if host != pos & !(self.geo.cluster_size() - 1) {
                let what = "does not refer to the same offset in the data file";
                return Err(self.bad_entry(spot, spot.index, pos, what));
            }
            spot.slice.set_checked(spot.index, true);
            return Ok(Owner::Own);
        }
        let what = format!("the L2 entry of the cluster at {:#x}", pos);
        let cluster = host >> self.geo.cluster_bits;
        let other = self
            .fixed_metadata(host)
            .or_else(|| self.metadata.borrow().contains(&cluster).then_some("metadata"));
        if let Some(other) = other {
            return Err(ErrorKind::damaged(format_args!(
                "{what} refers to {host:#x} in the file, where the {other} of the image is"
            )));
        }
        self.check_inside(host, 1, &what).await?;
        let owner = self.owner(host, &what).await?;
        if owner == Owner::Own {
            // What is past the end counts as written now.
            self.end.set(self.end.get().max(cluster + 1));
            let entry = spot.slice.entry(&self.geo, spot.index);
            if entry.word & COPIED == 0 {
                let word = entry.word | COPIED;
                self.set_entry(&spot.slice, spot.index, crate::geometry::Entry { word, ..entry });
            }
            spot.slice.set_checked(spot.index, true);
        }
        Ok(owner)
    }

    /// Finds the clusters of the image's own structures.
    pub(crate) async fn find_metadata(&self) -> Result<()> {
        self.find_active_metadata();
        self.find_snapshots_metadata().await
    }

    /// Those that are in memory.
    fn find_active_metadata(&self) {
        let bits = self.geo.cluster_bits;
        let mut all = self.metadata.borrow_mut();
        all.insert(0);
        let (l1, table) = (self.l1.borrow(), self.reftable.borrow());
        for (tables, mask) in [(&*l1, OFFSET_MASK), (&*table, BLOCK_MASK)] {
            let len = (tables.len as u64 * 8).max(1);
            all.extend(tables.offset >> bits..=(tables.offset + len - 1) >> bits);
            for index in 0..tables.len {
                let offset = tables.get(index) & mask;
                if offset != 0 {
                    all.insert(offset >> bits);
                }
            }
        }
        // It was checked at opening.
        if let Ok(Some(area)) = crypt::luks_area(&self.header) {
            all.extend(self.geo.clusters(area.start, area.end - area.start));
        }
        if let Some(bitmaps) = &self.bitmaps {
            bitmaps.clusters(&self.geo).into_iter().for_each(|run| all.extend(run));
        }
    }
}
