// SPDX-License-Identifier: Apache-2.0
//! Deleting a snapshot. The order is told in the module above.
use crate::core::Core;
use crate::error::Result;
use crate::storage::Storage;

impl<S: Storage + 'static> Core<S> {
    /// The gate is closed. Part of a job.
    pub(crate) async fn delete_snapshot(&self, wanted: &str) -> Result<()> {
        self.check_snapshots()?;
        let mut table = self.snapshot_table().await?;
        let index = table.find_to_delete(wanted)?;
        self.mark_in_use().await?;
        self.flush().await?;
        let old = (table.offset, table.len());
        let snapshot = table.records.remove(index).snapshot;
        let l1 = self.snapshot_l1(&snapshot).await?;
        let mut offset = 0;
        if table.count() > 0 {
            let shorter = self.place_table(&table.bytes()).await?;
            self.barrier().await?;
            offset = shorter.first << self.geo.cluster_bits;
            shorter.keep();
        }
        self.switch_snapshots(offset, table.count()).await?;
        self.lower(&l1).await?;
        self.free_table(snapshot.l1_offset, l1.len() as u64 * 8).await?;
        self.free_table(old.0, old.1).await?;
        self.settle_active().await
    }
}
