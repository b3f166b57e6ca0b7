// SPDX-License-Identifier: Apache-2.0
//! The bytes of an image, and who owns each of its clusters.
use std::fmt;

use super::index;

/// How far past the end of the file, in clusters, a dirty image may refer.
const PAST_END: u64 = 1 << 16;

/// Who refers to a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Owner {
    #[default]
    Nobody,
    Header,
    L1,
    RefcountTable,
    RefcountBlock(u64),
    Snapshots,
    SnapshotL1(u64),
    BitmapDirectory,
    BitmapTable(u64),
    BitmapData(u64),
    L2(u64),
    Guest(u64),
    Compressed(u64),
}

impl Owner {
    /// Whether both may have the same cluster: snapshots share what is of the same place in the
    /// disk, compressed clusters lie beside each other.
    fn shares_with(self, other: Owner) -> bool {
        match (self, other) {
            (Owner::Nobody, _) | (Owner::Compressed(_), Owner::Compressed(_)) => true,
            (Owner::Guest(n), Owner::Guest(m)) => n == m,
            _ => false,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Nobody => f.write_str("nobody's"),
            Owner::Header => f.write_str("the header"),
            Owner::L1 => f.write_str("the L1 table"),
            Owner::RefcountTable => f.write_str("the refcount table"),
            Owner::RefcountBlock(n) => write!(f, "refcount block {n}"),
            Owner::Snapshots => f.write_str("the table of snapshots"),
            Owner::SnapshotL1(n) => write!(f, "the L1 table of snapshot {n}"),
            Owner::BitmapDirectory => f.write_str("the directory of bitmaps"),
            Owner::BitmapTable(n) => write!(f, "the table of bitmap {n}"),
            Owner::BitmapData(n) => write!(f, "data of bitmap {n}"),
            Owner::L2(n) => write!(f, "L2 table {n}"),
            Owner::Guest(n) => write!(f, "guest cluster {n}"),
            Owner::Compressed(n) => write!(f, "compressed guest cluster {n}"),
        }
    }
}

/// An image.
pub(super) struct Image<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes of a cluster.
    pub(super) cluster: u64,
    /// Bytes of an L2 entry.
    pub(super) entry_size: u64,
    pub(super) refcount_order: u32,
    pub(super) dirty: bool,
    pub(super) data_file: bool,
    /// By cluster: who, and how many.
    pub(super) owners: Vec<(Owner, u64)>,
}

impl<'a> Image<'a> {
    /// # Errors
    /// Why it is none.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() < 512 {
            return Err(format!("the file has {} bytes", bytes.len()));
        }
        let mut image = Image {
            bytes,
            cluster: 0,
            entry_size: 8,
            refcount_order: 4,
            dirty: false,
            data_file: false,
            owners: Vec::new(),
        };
        let cluster_bits = u32::try_from(image.word(20)).unwrap_or(0);
        if !(9..=21).contains(&cluster_bits) {
            return Err("the header is no header".into());
        }
        image.cluster = 1 << cluster_bits;
        if image.is_version_3() {
            let incompatible = image.number(72);
            if incompatible & 2 != 0 {
                return Err("it is marked as corrupt".into());
            }
            image.dirty = incompatible & 1 != 0;
            image.data_file = incompatible & 4 != 0;
            image.entry_size = if incompatible & 16 != 0 { 16 } else { 8 };
            image.refcount_order = u32::try_from(image.word(96)).unwrap_or(9);
        }
        Ok(image)
    }

    pub(super) fn is_version_3(&self) -> bool {
        self.word(4) == 3
    }

    /// The 8 bytes at `at`.
    pub(super) fn number(&self, at: u64) -> u64 {
        let bytes = self.bytes.get(index(at)..).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The 4 bytes at `at`.
    pub(super) fn word(&self, at: u64) -> u64 {
        self.number(at) >> 32
    }

    pub(super) fn cluster_bytes(&self, offset: u64) -> &'a [u8] {
        let end = (offset + self.cluster).min(self.bytes.len() as u64);
        self.bytes.get(index(offset)..index(end)).unwrap_or_default()
    }

    /// Notes the owner of the clusters in which these bytes lie, who refers to them so many times.
    pub(super) fn own(
        &mut self,
        offset: u64,
        len: u64,
        who: Owner,
        times: u64,
    ) -> Result<(), String> {
        if !matches!(who, Owner::Compressed(_)) && !offset.is_multiple_of(self.cluster) {
            return Err(format!("{who} at {offset:#x} is not aligned"));
        }
        let (first, last) = (offset / self.cluster, (offset + len - 1) / self.cluster);
        let there = (self.bytes.len() as u64).div_ceil(self.cluster);
        // Those of a dirty image have to be repaired anyway; until then there are zeroes.
        if last >= there + if self.dirty { PAST_END } else { 0 } {
            let len = self.bytes.len();
            return Err(format!("{who} at {offset:#x} is past the end of the file ({len:#x})"));
        }
        if last >= self.owners.len() as u64 {
            self.owners.resize(index(last + 1), (Owner::Nobody, 0));
        }
        for number in first..=last {
            let (owner, count) = &mut self.owners[index(number)];
            if !owner.shares_with(who) {
                let at = number * self.cluster;
                return Err(format!("the cluster at {at:#x} is {owner} and {who}"));
            }
            *owner = who;
            *count += times;
        }
        Ok(())
    }
}
