// SPDX-License-Identifier: Apache-2.0
//! Going back to a snapshot. The order is told in the module above. The state of a virtual machine,
//! which lies behind the disk, stays in the snapshot alone.
use super::Snapshot;
use crate::bitmaps::Wrong;
use crate::core::{Core, field};
use crate::error::Result;
use crate::layout::entry::OFFSET_MASK;
use crate::planted::Bug;
use crate::reserve::Claim;
use crate::slice;
use crate::storage::Storage;

/// The entries of an L1 table, without flags.
fn words(table: &slice::Table) -> Vec<u64> {
    (0..table.len).map(|index| table.get(index) & OFFSET_MASK).collect()
}

impl<S: Storage + 'static> Core<S> {
    /// The gate is closed. Part of a job.
    pub(crate) async fn apply_snapshot(&self, wanted: &str) -> Result<()> {
        self.check_snapshots()?;
        let table = self.snapshot_table().await?;
        let index = table.find(wanted)?;
        let Some(snapshot) = table.records.get(index).map(|record| &record.snapshot) else {
            return Ok(());
        };
        // Bitmaps tell of another disk now.
        self.begin_writing().await?;
        self.mark_in_use().await?;
        self.mark_bitmaps(Wrong::All);
        self.flush().await?;
        let mut l1 = self.disk_l1(snapshot).await?;
        l1.iter_mut().for_each(|word| *word &= OFFSET_MASK);
        self.raise(&l1).await?;
        let (claim, new) = match self.prepare_apply(&l1).await {
            Ok(prepared) => prepared,
            Err(e) => {
                self.take_back(&l1).await;
                return Err(e);
            }
        };
        claim.keep();
        let early = self.has(Bug::FreedBeforeApply);
        if early {
            let old = words(&self.l1.borrow());
            self.lower(&old).await?;
        }
        // Before the header refers to another disk: after an error, nobody knows to which it does.
        self.mark_dirty(0, self.size.get());
        self.switch_l1(&new, snapshot).await?;
        let size = self.size.replace(snapshot.disk_size);
        self.resize_bitmaps(size, snapshot.disk_size);
        self.mark_dirty(0, snapshot.disk_size);
        let old = self.l1.replace(new);
        if !early {
            self.lower(&words(&old)).await?;
        }
        self.free_table(old.offset, old.len as u64 * 8).await?;
        self.flush().await
    }

    /// All but the header: on stable storage. Returns the new L1 table.
    async fn prepare_apply(&self, l1: &[u64]) -> Result<(Claim<'_, S>, slice::Table)> {
        self.settle_tables(l1).await?;
        let claim = self.place_l1(l1).await?;
        self.barrier().await?;
        let offset = claim.first << self.geo.cluster_bits;
        let table = Self::load_table(&self.storage, &self.geo, offset, l1.len()).await?;
        Ok((claim, table))
    }

    async fn switch_l1(&self, l1: &slice::Table, snapshot: &Snapshot) -> Result<()> {
        let crypt = self.head.get(field::L1_ENTRIES) & !u64::from(u32::MAX);
        self.switch_header(&[
            (field::SIZE, snapshot.disk_size),
            (field::L1_ENTRIES, crypt | l1.len as u64),
            (field::L1_OFFSET, l1.offset),
        ])
        .await
    }
}
