// SPDX-License-Identifier: Apache-2.0
//! Internal snapshots: what the disk was at some time, kept in the image by L1 tables of their own,
//! which share L2 tables and clusters with the active one. They are listed, made, applied (the disk
//! is again what it was), deleted, and read.
//!
//! Rule: **refcounts, then flags, then one sector of the header, then what became free.** Whoever is
//! to refer to a cluster has been counted on stable storage before; COPIED flags, which promise a
//! single owner, are cleared before there is a second and set after the others are gone; tables are
//! written elsewhere and synced before the sector of the header that refers to them is written,
//! which changes all of an operation at once; that is synced before any refcount is lowered. So a
//! crash leaves the snapshots and the disk of before or of after, and beside that leaks and flags
//! that are missing, which the next opening gives back and sets.
//!
//! - **Create:** the refcounts of all that the active L1 table refers to are raised; flags are
//!   cleared; a copy of that table and a longer table of snapshots are written; the header refers to
//!   the latter.
//! - **Apply:** the refcounts of all that the snapshot's disk refers to are raised; a copy of its L1
//!   table is written; the header refers to that, and tells its size; what the old one referred to
//!   is lowered.
//! - **Delete:** a shorter table of snapshots is written; the header refers to it; what the snapshot
//!   referred to is lowered; flags are set.
//!
//! All of it has the image for itself.
mod apply;
mod create;
mod delete;
mod guard;
pub(crate) mod table;

use std::time::Duration;

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::core::{Core, field};
use crate::error::Result;
use crate::layout::header::{Header, MAX_L1_BYTES};
use crate::reserve::Claim;
use crate::{Error, ErrorKind, Image, Storage};
use table::Table;

/// A snapshot inside of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What identifies it, mostly a number.
    pub id: String,
    /// Its name, which others may have as well.
    pub name: String,
    /// When it was made, since the beginning of 1970 (UTC).
    pub date: Duration,
    /// How long the virtual machine had run.
    pub clock: Duration,
    /// How many instructions it had executed, where they were counted.
    pub icount: Option<u64>,
    /// Bytes of the virtual machine's state; 0 if only the disk is saved.
    pub vm_state_size: u64,
    /// Virtual size of the disk in bytes.
    pub disk_size: u64,
    /// Offset of its L1 table in the file.
    pub l1_offset: u64,
    /// Number of entries of that.
    pub l1_entries: u32,
}

impl Snapshot {
    /// The header of its image as it were with the snapshot as the active disk.
    fn header(&self, header: &Header) -> Result<Header> {
        header.with_disk(self.disk_size, self.l1_offset, self.l1_entries)
    }
}

/// The snapshots of the image on `storage`, in the order of their table.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the header or the table is damaged.
pub async fn list<S: Storage>(storage: &S) -> std::result::Result<Vec<Snapshot>, Error> {
    let header = Header::read(storage).await?;
    let table = read(storage, &header).await;
    let table = table.map_err(|kind| Error::new(kind, "list the snapshots"))?;
    Ok(table.records.into_iter().map(|record| record.snapshot).collect())
}

async fn read<S: Storage>(storage: &S, header: &Header) -> Result<Table> {
    Table::read(storage, header.snapshots_offset, header.snapshots, header.size).await
}

/// The header of an image in which the snapshot `wanted` were active, for reading.
pub(crate) async fn select(
    storage: &impl Storage,
    header: &Header,
    wanted: &str,
    read_only: bool,
) -> Result<Header> {
    let table = read(storage, header).await?;
    let index = table.find(wanted)?;
    if !read_only {
        return Err(ErrorKind::Unsupported(format!(
            "the snapshot {wanted:?} can only be read; open it read only"
        )));
    }
    let found = table.records.get(index).map(|record| &record.snapshot);
    found.map_or_else(|| Ok(header.clone()), |snapshot| snapshot.header(header))
}

impl<S: Storage + 'static> Image<S> {
    /// Makes a snapshot of the disk as it is, and returns its identifier. `date` is the time now,
    /// since the beginning of 1970. When this returns, it is on stable storage, as is all that was
    /// acknowledged before.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an external data file, and where a refcount would be too high
    /// for its width. The image is then as before.
    pub async fn create_snapshot(
        &self,
        name: &str,
        date: Duration,
    ) -> std::result::Result<String, Error> {
        let owned = name.to_owned();
        let work = async move |core: &Core<S>| core.create_snapshot(owned, date).await;
        self.change_snapshots("create", name, work).await
    }

    /// Makes the disk what it was, in content and size, when the snapshot with the identifier, or
    /// else the name, `wanted` was made. When this returns, that is on stable storage.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if there is none, [`ErrorKind::Invalid`] for a damaged one. The
    /// disk is then as before, unless the storage failed.
    pub async fn apply_snapshot(&self, wanted: &str) -> std::result::Result<(), Error> {
        let owned = wanted.to_owned();
        let work = async move |core: &Core<S>| core.apply_snapshot(&owned).await;
        self.change_snapshots("apply", wanted, work).await
    }

    /// Deletes the first snapshot with the name, or else the identifier, `wanted`.
    ///
    /// # Errors
    /// As [`apply_snapshot`](Self::apply_snapshot).
    pub async fn delete_snapshot(&self, wanted: &str) -> std::result::Result<(), Error> {
        let owned = wanted.to_owned();
        let work = async move |core: &Core<S>| core.delete_snapshot(&owned).await;
        self.change_snapshots("delete", wanted, work).await
    }

    async fn change_snapshots<T: 'static>(
        &self,
        what: &str,
        snapshot: &str,
        work: impl AsyncFnOnce(&Core<S>) -> Result<T> + 'static,
    ) -> std::result::Result<T, Error> {
        let work = self.alone(async move |core| {
            let result = work(&core).await;
            if let Err(ErrorKind::Io(_)) = &result {
                core.sound.set(false);
            }
            result
        });
        match work.await {
            Ok(value) => Ok(value),
            Err(kind) => Err(self.failed(kind, format!("{what} the snapshot {snapshot:?}")).await),
        }
    }
}

impl<S: Storage + 'static> Core<S> {
    /// The table of snapshots as it is now.
    pub(crate) async fn snapshot_table(&self) -> Result<Table> {
        // The lower half.
        #[allow(clippy::cast_possible_truncation)]
        let count = self.head.get(field::REFTABLE_CLUSTERS) as u32;
        let offset = self.head.get(field::SNAPSHOTS_OFFSET);
        Table::read(&self.storage, offset, count, self.size.get()).await
    }

    /// The first entries of a snapshot's L1 table, as many as its disk has.
    async fn disk_l1(&self, snapshot: &Snapshot) -> Result<Vec<u64>> {
        // Its limits are those of an active one.
        let header = snapshot.header(&self.header)?;
        let mut words = self.snapshot_l1(snapshot).await?;
        words.resize(usize::try_from(header.l1_entries_for(header.size)).unwrap_or(0).max(1), 0);
        Ok(words)
    }

    /// The L1 table of a snapshot.
    pub(crate) async fn snapshot_l1(&self, snapshot: &Snapshot) -> Result<Vec<u64>> {
        let Snapshot { id, l1_offset: offset, l1_entries: entries, .. } = snapshot;
        let bytes = u64::from(*entries) * 8;
        let end = offset.checked_add(bytes);
        let inside = end.is_some_and(|end| end.div_ceil(self.geo.cluster_size()) <= self.end.get());
        let aligned = offset & (self.geo.cluster_size() - 1) == 0;
        if bytes > 0 && !(inside && aligned) || bytes > MAX_L1_BYTES {
            return Err(ErrorKind::damaged(format_args!(
                "the L1 table of the snapshot {id:?}, of {entries} entries at {offset:#x}, is too \
                 large, not aligned to a cluster, or outside of the file"
            )));
        }
        let mut words = vec![0u64; *entries as usize];
        if bytes > 0 {
            self.storage.read(&Sgl::from_slice(words.as_mut_bytes()), *offset).await?;
        }
        words.iter_mut().for_each(|word| *word = u64::from_be(*word));
        Ok(words)
    }

    /// Refuses images whose snapshots are not changed: QEMU does not either.
    fn check_snapshots(&self) -> Result<()> {
        self.check_writable()?;
        if self.geo.data_file {
            return Err(ErrorKind::Unsupported(
                "its data is in an external data file, which snapshots cannot keep; `qemu-img \
                 convert -O qcow2 PATH NEW` makes an image without"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Writes a table to clusters of its own.
    async fn place_table(&self, bytes: &[u8]) -> Result<Claim<'_, S>> {
        let count = (bytes.len() as u64).div_ceil(self.geo.cluster_size());
        let claim = self.claim_run(count).await?;
        self.metadata.borrow_mut().extend(claim.first..claim.first + count);
        let bits = self.geo.cluster_bits;
        let content = Sgl::zeroed(usize::try_from(count << bits).unwrap_or(0));
        content.write_at(0, bytes);
        self.storage.write(&content, claim.first << bits).await?;
        Ok(claim)
    }

    /// Writes an L1 table, none of whose entries has a flag, to clusters of its own.
    async fn place_l1(&self, words: &[u64]) -> Result<Claim<'_, S>> {
        let words: Vec<u64> = words.iter().map(|word| word.to_be()).collect();
        self.place_table(words.as_bytes()).await
    }

    /// The header refers to another table of snapshots from now on, on stable storage.
    async fn switch_snapshots(&self, offset: u64, count: u32) -> Result<()> {
        let clusters = self.head.get(field::REFTABLE_CLUSTERS) & !u64::from(u32::MAX);
        self.switch_header(&[
            (field::REFTABLE_CLUSTERS, clusters | u64::from(count)),
            (field::SNAPSHOTS_OFFSET, offset),
        ])
        .await
    }

    /// Frees the clusters of a table to which nothing on stable storage refers any more.
    async fn free_table(&self, offset: u64, bytes: u64) -> Result<()> {
        let count = bytes.div_ceil(self.geo.cluster_size());
        self.decrement(offset >> self.geo.cluster_bits, count, 1).await.1
    }

    /// Takes back what [`raise`](Self::raise) did for an operation that failed before the header
    /// was touched.
    async fn take_back(&self, l1: &[u64]) {
        let back = async {
            self.lower(l1).await?;
            self.settle_active().await
        };
        if let Err(e) = back.await {
            tracing::warn!("clusters are leaked, `qemu-img check -r leaks` finds them: {e}");
        }
    }
}
