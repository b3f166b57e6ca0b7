// SPDX-License-Identifier: Apache-2.0
//! The clusters of snapshots' own structures, to which no entry of the guest may refer: their table,
//! their L1 tables, and L2 tables.
use crate::core::Core;
use crate::error::Result;
use crate::layout::entry::OFFSET_MASK;
use crate::layout::header::MAX_L1_BYTES;
use crate::storage::Storage;

impl<S: Storage + 'static> Core<S> {
    /// Adds them to what is known. Of L1 tables as much is read as one may be long: an image whose
    /// snapshots have more is used without the rest.
    pub(crate) async fn find_snapshots_metadata(&self) -> Result<()> {
        let table = self.snapshot_table().await?;
        self.add_metadata(table.offset, table.len());
        let mut left = MAX_L1_BYTES;
        for record in &table.records {
            let snapshot = &record.snapshot;
            let bytes = u64::from(snapshot.l1_entries) * 8;
            let Some(rest) = left.checked_sub(bytes) else {
                tracing::warn!(
                    "the L1 tables of its {} snapshots are too long to know where all of their L2 \
                     tables are",
                    table.count()
                );
                break;
            };
            left = rest;
            let l1 = self.snapshot_l1(snapshot).await?;
            self.add_metadata(snapshot.l1_offset, bytes);
            let tables = l1.iter().map(|entry| (entry & OFFSET_MASK) >> self.geo.cluster_bits);
            self.metadata.borrow_mut().extend(tables.filter(|table| *table != 0));
        }
        Ok(())
    }

    fn add_metadata(&self, offset: u64, bytes: u64) {
        self.metadata.borrow_mut().extend(self.geo.clusters(offset, bytes));
    }
}
