// SPDX-License-Identifier: Apache-2.0
//! Entries of L1 and L2 tables (qcow2, "Cluster mapping").

/// Bits 9 to 55: where something is in the file, in bytes.
pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// The refcount is exactly one: it may be overwritten where it is.
pub const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
pub const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeroes, whatever it refers to. Version 3, without extended entries.
pub const ZERO: u64 = 1;
/// Bits of an L1 entry that have no meaning, and are zero.
pub const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of an L2 entry of a cluster that is not compressed, which have no meaning, and are zero.
pub const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// How many subclusters a cluster with an extended entry has.
pub const SUBCLUSTERS: u32 = 32;

/// What an L2 entry says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Nothing: it reads as the backing store, or zeroes.
    Unallocated,
    /// It reads as zeroes; where a place for it is kept, that is `host`.
    Zero {
        /// Offset in the file.
        host: Option<u64>,
    },
    /// Its bytes are at `host`. With extended entries the bitmap says which of them.
    Data {
        /// Offset in the file.
        host: u64,
    },
    /// It is compressed.
    Compressed(Compressed),
}

/// Where a compressed cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// Offset in the file, to the byte.
    pub host: u64,
    /// The most bytes it may have: to the end of its last sector of 512 bytes.
    pub len: u64,
}

/// An L2 entry, without the bitmap of an extended one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Entry(pub u64);

impl L2Entry {
    /// Whether the refcount of what it refers to is one.
    pub fn copied(self) -> bool {
        self.0 & COPIED != 0
    }

    /// Its meaning in an image of version 3 (`zero_flag`), or 2, with clusters of
    /// `1 << cluster_bits` bytes. With an external data file 0 is an offset like any other, if the
    /// entry is marked as copied.
    pub fn decode(self, cluster_bits: u32, zero_flag: bool, data_file: bool) -> Cluster {
        if self.0 & COMPRESSED != 0 {
            return Cluster::Compressed(self.compressed(cluster_bits));
        }
        let offset = self.0 & OFFSET_MASK;
        let there = offset != 0 || data_file && self.copied();
        let host = there.then_some(offset);
        if zero_flag && self.0 & ZERO != 0 {
            return Cluster::Zero { host };
        }
        host.map_or(Cluster::Unallocated, |host| Cluster::Data { host })
    }

    fn compressed(self, cluster_bits: u32) -> Compressed {
        let split = 62 - (cluster_bits - 8);
        let host = self.0 & ((1 << split) - 1);
        let more = (self.0 & !(COPIED | COMPRESSED)) >> split;
        Compressed { host, len: (more + 1) * 512 - host % 512 }
    }

    /// The entry of a cluster that is compressed to `len` bytes, at least one, at `host`; `None`
    /// where no entry can refer to that.
    pub fn of_compressed(host: u64, len: u64, cluster_bits: u32) -> Option<Self> {
        let split = 62 - (cluster_bits - 8);
        let more = (host + len - 1) / 512 - host / 512;
        (host >> split == 0).then_some(L2Entry(COMPRESSED | more << split | host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_entry_says_where_its_bytes_may_end() {
        for bits in 9..=21 {
            for (host, len) in [(0x5_0000, 1), (0x5_0001, 511), (0x5_0001, 512), (0x5_01ff, 300)] {
                let entry = L2Entry::of_compressed(host, len, bits).unwrap();
                let Cluster::Compressed(found) = entry.decode(bits, true, false) else {
                    panic!("{entry:?}");
                };
                assert_eq!(found.host, host);
                assert!(found.len >= len && (found.host + found.len) % 512 == 0);
                assert!(found.len - len < 512);
            }
            assert_eq!(L2Entry::of_compressed(1 << (70 - bits), 512, bits), None);
        }
    }

    #[test]
    fn the_zero_flag_counts_in_version_3_alone() {
        let entry = L2Entry(COPIED | 0x5_0000 | ZERO);
        assert_eq!(entry.decode(16, true, false), Cluster::Zero { host: Some(0x5_0000) });
        assert_eq!(entry.decode(16, false, false), Cluster::Data { host: 0x5_0000 });
        assert_eq!(L2Entry(COPIED).decode(16, true, true), Cluster::Data { host: 0 });
        assert_eq!(L2Entry(COPIED).decode(16, true, false), Cluster::Unallocated);
    }
}
