// SPDX-License-Identifier: Apache-2.0
//! Counting what all tables refer to, before an image that was not closed is written to. In: the
//! tables of an image that is being opened. Out: refcounts that are right, or what is wrong.
//!
//! Rules:
//! - All that was read is brought to stable storage before anything is decided on it: what a process
//!   that died left in the page cache may not be there yet.
//! - Refcounts that are too high are leaks, and are corrected. Ones that are too low are errors,
//!   unless the dirty bit says that they may be wrong: then all are rebuilt.
//! - References to the outside of the file are errors: it was cut off, or is damaged.
//! - COPIED flags that are missing since a crash are set, once that is right.
//! - Where the header has an extension that is not known here, nothing is a leak: what the
//!   extension refers to cannot be counted.
use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::ErrorKind;
use crate::core::{Core, field};
use crate::error::Result;
use crate::geometry::{Entry, Kind};
use crate::layout::entry::{COPIED, OFFSET_MASK};
use crate::layout::header::{Crypt, MAX_L1_BYTES, extension, incompatible};
use crate::refcounts::BLOCK_MASK;
use crate::storage::Storage;

/// The most clusters that are counted: a byte each.
const MAX_CLUSTERS: u64 = 256 << 20;
/// The most bytes of L2 tables that are read.
const MAX_TABLES: u64 = 256 << 20;
/// The longest directory of bitmaps (QEMU's limit).
const MAX_DIRECTORY: u64 = 64 << 20;

/// How often each cluster of the file is referred to; 255 stands for more, too.
struct References {
    counts: Vec<u8>,
    cluster_bits: u32,
}

impl References {
    fn add(&mut self, offset: u64, bytes: u64, what: &str) -> Result<()> {
        let first = offset >> self.cluster_bits;
        let last = offset.saturating_add(bytes.max(1) - 1) >> self.cluster_bits;
        let range = usize::try_from(first).ok().zip(usize::try_from(last).ok());
        let counts = range.and_then(|(first, last)| self.counts.get_mut(first..=last));
        let Some(counts) = counts else {
            return Err(ErrorKind::Invalid(format!(
                "{what} refers to {bytes} bytes at {offset:#x}, which is past the end of the file: \
                 it was cut off, or not wholly copied; if there is no other copy, run `qemu-img \
                 convert -O qcow2 PATH NEW` and use NEW, in which what is missing is zero"
            )));
        };
        for count in counts {
            *count = count.saturating_add(1);
        }
        Ok(())
    }
}

impl<S: Storage + 'static> Core<S> {
    /// Sees to it that the refcounts are right.
    pub(crate) async fn scan(&self, rebuild: bool) -> Result<()> {
        let tables = {
            let l1 = self.l1.borrow();
            (0..l1.len).filter(|index| l1.get(*index) & OFFSET_MASK != 0).count() as u64
        };
        let bytes = tables << self.geo.cluster_bits;
        if self.end.get() > MAX_CLUSTERS || bytes > MAX_TABLES {
            if rebuild {
                return Err(ErrorKind::damaged(
                    "its refcounts may be wrong (incompatible feature bit 0), and it is too large \
                     to repair them at opening",
                ));
            }
            tracing::warn!(
                "the image was not closed by us, and is too large to look for leaked clusters at \
                 opening; `qemu-img check PATH` does"
            );
            return Ok(());
        }
        // A file may end inside of its last table (`Header::check_tables`): the rest is zero.
        let tables = [
            (self.l1.borrow().offset, self.l1.borrow().len),
            (self.reftable.borrow().offset, self.reftable.borrow().len),
        ];
        let ends = tables.map(|(offset, len)| {
            offset.saturating_add(len as u64 * 8).div_ceil(self.geo.cluster_size())
        });
        let end = ends.into_iter().fold(self.end.get(), u64::max).min(MAX_CLUSTERS);
        let counts = vec![0; usize::try_from(end).unwrap_or(0)];
        let mut references = References { counts, cluster_bits: self.geo.cluster_bits };
        let unflagged = self.count(&mut references).await?;
        self.flush().await?;
        self.compare(&references, rebuild).await?;
        if unflagged {
            self.settle_active().await?;
        }
        if rebuild {
            self.flush().await?;
            let bits = self.head.get(field::INCOMPATIBLE) & !incompatible::DIRTY;
            self.set(&self.head, field::INCOMPATIBLE, bits);
        }
        if self.dirty.borrow().is_empty() { Ok(()) } else { self.flush().await }
    }

    /// Returns whether active tables lack a COPIED flag.
    async fn count(&self, references: &mut References) -> Result<bool> {
        let size = self.geo.cluster_size();
        references.add(0, size, "the header")?;
        {
            let table = self.reftable.borrow();
            references.add(table.offset, table.len as u64 * 8, "the refcount table's entry")?;
            for index in 0..table.len {
                let block = table.get(index) & BLOCK_MASK;
                if block != 0 {
                    references.add(block, size, &format!("the refcount table's entry {index}"))?;
                }
            }
        }
        let (l1_offset, entries): (u64, Vec<u64>) = {
            let l1 = self.l1.borrow();
            (l1.offset, (0..l1.len).map(|index| l1.get(index)).collect())
        };
        let unflagged = self.count_l1(references, l1_offset, &entries, "the L1").await?;
        self.count_snapshots(references).await?;
        if let Some(data) = self.header.extension(extension::BITMAPS) {
            self.count_bitmaps(references, data).await?;
        }
        if self.header.crypt == Crypt::Luks
            && let Some(data) = self.header.extension(extension::FULL_DISK_ENCRYPTION)
        {
            references.add(number(data, 0, 8), number(data, 8, 8), "the encryption header")?;
        }
        Ok(unflagged)
    }

    /// Returns whether a COPIED flag is not set.
    async fn count_l1(
        &self,
        references: &mut References,
        offset: u64,
        entries: &[u64],
        what: &str,
    ) -> Result<bool> {
        let geo = &self.geo;
        let mut unflagged = false;
        if !entries.is_empty() {
            references.add(offset, entries.len() as u64 * 8, what)?;
        }
        let mut words = vec![0u64; usize::try_from(geo.cluster_size() / 8).unwrap_or(0)];
        let step = usize::try_from(1u32 << (geo.entry_bits - 3)).unwrap_or(1);
        for (index, entry) in entries.iter().enumerate() {
            let table = entry & OFFSET_MASK;
            if table == 0 {
                continue;
            }
            if table & (geo.cluster_size() - 1) != 0 {
                return Err(ErrorKind::damaged(format_args!(
                    "{what} entry {index} refers to an L2 table at {table:#x}, which is not \
                     aligned to a cluster"
                )));
            }
            references.add(table, geo.cluster_size(), &format!("{what} entry {index}"))?;
            unflagged |= entry & COPIED == 0;
            self.storage.read(&Sgl::from_slice(words.as_mut_bytes()), table).await?;
            for (number, pair) in words.chunks(step).enumerate() {
                let word = u64::from_be(pair.first().copied().unwrap_or(0));
                if word == 0 {
                    continue;
                }
                let bitmap = u64::from_be(pair.get(1).copied().unwrap_or(0));
                let name = || format!("the entry {number} of the L2 table at {table:#x}");
                match (Entry { word, bitmap }).kind(geo) {
                    Ok(Kind::Compressed(at)) => references.add(at.host, at.len, &name())?,
                    Ok(Kind::Plain { host: Some(host), .. }) if !geo.data_file => {
                        references.add(host, geo.cluster_size(), &name())?;
                        unflagged |= word & COPIED == 0;
                    }
                    Ok(Kind::Plain { .. }) => {}
                    Err(what) => {
                        return Err(ErrorKind::damaged(format_args!(
                            "{}: {word:#x} {what}",
                            name()
                        )));
                    }
                }
            }
        }
        Ok(unflagged)
    }

    async fn count_snapshots(&self, references: &mut References) -> Result<()> {
        let table = self.snapshot_table().await?;
        for (index, record) in table.records.iter().enumerate() {
            let what = format!("the snapshot {index}'s L1");
            let l1 = self.snapshot_l1(&record.snapshot).await?;
            self.count_l1(references, record.snapshot.l1_offset, &l1, &what).await?;
        }
        if table.len() > 0 {
            references.add(table.offset, table.len(), "the snapshot table")?;
        }
        Ok(())
    }

    async fn count_bitmaps(&self, references: &mut References, data: &[u8]) -> Result<()> {
        let (count, len, offset) = (number(data, 0, 4), number(data, 8, 8), number(data, 16, 8));
        if data.len() < 24 || len > MAX_DIRECTORY {
            return Err(ErrorKind::damaged(format_args!(
                "its extension of {count} bitmaps has a directory of {len} bytes"
            )));
        }
        references.add(offset, len, "the bitmaps' extension")?;
        let directory = self.bytes(offset, len).await?;
        let mut at = 0;
        for index in 0..count {
            if at + 24 > len {
                return Err(ErrorKind::damaged("its directory of bitmaps is too short"));
            }
            let what = format!("the bitmap {index}");
            let (table, entries) = (number(&directory, at, 8), number(&directory, at + 8, 4));
            let (name, more) = (number(&directory, at + 18, 2), number(&directory, at + 20, 4));
            at = (at + 24 + name + more).next_multiple_of(8);
            if entries * 8 > MAX_L1_BYTES {
                return Err(ErrorKind::damaged(format_args!("{what} has {entries} clusters")));
            }
            if entries == 0 {
                continue;
            }
            references.add(table, entries * 8, &what)?;
            let words = self.bytes(table, entries * 8).await?;
            for entry in 0..entries {
                let cluster = number(&words, entry * 8, 8) & OFFSET_MASK;
                if cluster != 0 {
                    references.add(cluster, self.geo.cluster_size(), &what)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of the file; only callers with a bound use this.
    async fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.storage.read(&Sgl::from_slice(&mut bytes), offset).await?;
        Ok(bytes)
    }

    /// Compares refcounts with references, and corrects them in memory.
    async fn compare(&self, references: &References, rebuild: bool) -> Result<()> {
        let geo = &self.geo;
        let per_block = 1u64 << geo.block_clusters_bits();
        let blocks = self.reftable.borrow().len as u64;
        let wanted = |cluster: u64| {
            let at = usize::try_from(cluster).unwrap_or(usize::MAX);
            u64::from(references.counts.get(at).copied().unwrap_or(0))
        };
        let known = |kind: &u32| extension::KNOWN.contains(kind);
        let all_counted = self.header.extensions.iter().all(|(kind, _)| known(kind));
        let mut leaked = 0;
        let referred = references.counts.iter().rposition(|count| *count > 0).unwrap_or(0) as u64;
        for block in 0..blocks.max(referred / per_block + 1) {
            let first = block * per_block;
            let there = {
                let index = usize::try_from(block).unwrap_or(usize::MAX);
                self.reftable.borrow().get(index) & BLOCK_MASK != 0
            };
            if !there {
                let end = (first + per_block).min(referred + 1);
                if let Some(cluster) = (first..end).find(|cluster| wanted(*cluster) > 0) {
                    return Err(too_low(cluster, wanted(cluster), 0));
                }
                continue;
            }
            for cluster in first..first + per_block {
                let Some(slot) = self.refcount_slot(cluster).await? else { break };
                let (found, wanted) = (slot.get(geo), wanted(cluster));
                if found == wanted || wanted == u64::from(u8::MAX) && found > wanted {
                    continue;
                }
                if wanted > geo.max_refcount() || found < wanted && !rebuild {
                    return Err(too_low(cluster, wanted, found));
                }
                if found > wanted && !all_counted {
                    continue;
                }
                leaked += u64::from(found > wanted);
                self.set_refcount(&slot, wanted);
            }
            // Not more of them in memory than the cache may take.
            self.commit_all().await?;
        }
        if leaked > 0 && !rebuild {
            tracing::info!("{leaked} clusters that a crash had leaked were given back");
        }
        if rebuild {
            tracing::info!("the image had not been closed: its refcounts were rebuilt");
        }
        Ok(())
    }
}

fn too_low(cluster: u64, references: u64, refcount: u64) -> ErrorKind {
    ErrorKind::damaged(format_args!(
        "the cluster {cluster:#x} of the file is referred to {references} times and has the \
         refcount {refcount}"
    ))
}

/// A number in the order of big endian; 0 where there are no bytes.
fn number(bytes: &[u8], at: u64, len: usize) -> u64 {
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    let bytes = bytes.get(start..start.saturating_add(len)).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
