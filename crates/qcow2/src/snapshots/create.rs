// SPDX-License-Identifier: Apache-2.0
//! Making a snapshot. The order is told in the module above.
use std::time::Duration;

use super::Snapshot;
use super::table::{Record, Table};
use crate::core::Core;
use crate::error::Result;
use crate::layout::entry::OFFSET_MASK;
use crate::planted::Bug;
use crate::reserve::Claim;
use crate::storage::Storage;

impl<S: Storage + 'static> Core<S> {
    /// Returns the identifier. The gate is closed. Part of a job.
    pub(crate) async fn create_snapshot(&self, name: String, date: Duration) -> Result<String> {
        self.check_snapshots()?;
        self.mark_in_use().await?;
        self.flush().await?;
        let mut table = self.snapshot_table().await?;
        let id = table.next_id()?;
        let active = self.active_disk();
        let snapshot = Snapshot {
            id: id.clone(),
            name,
            date,
            clock: Duration::ZERO,
            icount: None,
            vm_state_size: 0,
            disk_size: self.size.get(),
            l1_offset: 0,
            l1_entries: u32::try_from(active.len()).unwrap_or(u32::MAX),
        };
        let old = (table.offset, table.len());
        let late = self.has(Bug::SnapshotBeforeRefcounts);
        if !late {
            self.raise(&active).await?;
        }
        let (l1, new) = match self.prepare_create(&mut table, snapshot, &active).await {
            Ok(claims) => claims,
            Err(e) => {
                self.take_back(&active).await;
                return Err(e);
            }
        };
        // Whether the header refers to them is not known any more once it is being written.
        let offset = new.first << self.geo.cluster_bits;
        l1.keep();
        new.keep();
        self.switch_snapshots(offset, table.count()).await?;
        if late {
            self.raise(&active).await?;
            self.settle_active().await?;
        }
        self.free_table(old.0, old.1).await?;
        self.flush().await?;
        Ok(id)
    }

    /// The entries of the active L1 table that the disk has, without flags: what lies behind them is
    /// the state of a virtual machine.
    fn active_disk(&self) -> Vec<u64> {
        let l1 = self.l1.borrow();
        let entries = self.header.l1_entries_for(self.size.get()).max(1);
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        (0..entries).map(|index| l1.get(index) & OFFSET_MASK).collect()
    }

    /// All but the header: on stable storage. Returns the L1 table and the table of snapshots.
    async fn prepare_create(
        &self,
        table: &mut Table,
        snapshot: Snapshot,
        l1: &[u64],
    ) -> Result<(Claim<'_, S>, Claim<'_, S>)> {
        if !self.has(Bug::FlagsKept) {
            self.settle_active().await?;
        }
        let copy = self.place_l1(l1).await?;
        let l1_offset = copy.first << self.geo.cluster_bits;
        table.push(Record::new(Snapshot { l1_offset, ..snapshot })?)?;
        let longer = self.place_table(&table.bytes()).await?;
        self.barrier().await?;
        Ok((copy, longer))
    }
}
