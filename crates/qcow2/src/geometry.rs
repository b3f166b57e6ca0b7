// SPDX-License-Identifier: Apache-2.0
//! The sizes of an image's structures, and what a cluster's entry says. Pure.
use std::ops::Range;

use crate::layout::entry::{COMPRESSED, COPIED, Cluster, Compressed, L2Entry, OFFSET_MASK, ZERO};
use crate::layout::header::{self, Header};

/// The largest slice of a table that is cached, as a power of two.
const MAX_SLICE_BITS: u32 = 12;

/// Sizes, most of them as powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// Of a cluster in bytes.
    pub(crate) cluster_bits: u32,
    /// Of a cached part of a table in bytes.
    pub(crate) slice_bits: u32,
    /// Of an L2 entry in bytes.
    pub(crate) entry_bits: u32,
    /// Of what has a state of its own: a subcluster, or a cluster.
    pub(crate) granule_bits: u32,
    /// Of a refcount in bits.
    pub(crate) refcount_order: u32,
    /// Whether entries have a zero flag or bitmap.
    pub(crate) zero_flag: bool,
    /// Whether guest data is in an external file.
    pub(crate) data_file: bool,
    /// Whether that file must read as the guest does.
    pub(crate) raw_data_file: bool,
}

impl Geometry {
    pub(crate) fn of(header: &Header) -> Self {
        let extended = header.needs(header::incompatible::EXTENDED_L2);
        let data_file = header.needs(header::incompatible::DATA_FILE);
        let cluster_bits = header.cluster_bits;
        Geometry {
            cluster_bits,
            slice_bits: cluster_bits.min(MAX_SLICE_BITS),
            entry_bits: if extended { 4 } else { 3 },
            granule_bits: if extended { cluster_bits - 5 } else { cluster_bits },
            refcount_order: header.refcount_order,
            zero_flag: header.version >= 3,
            data_file,
            raw_data_file: data_file && header.autoclear & header::autoclear::RAW_DATA_FILE != 0,
        }
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The clusters of the file in which so many bytes are, by number.
    pub(crate) fn clusters(&self, offset: u64, bytes: u64) -> Range<u64> {
        if bytes == 0 {
            return 0..0;
        }
        let end = offset.saturating_add(bytes).div_ceil(self.cluster_size());
        offset >> self.cluster_bits..end
    }

    pub(crate) fn slice_size(&self) -> u64 {
        1 << self.slice_bits
    }

    pub(crate) fn granule_size(&self) -> u64 {
        1 << self.granule_bits
    }

    pub(crate) fn extended(&self) -> bool {
        self.entry_bits == 4
    }

    /// Bytes that an L2 table maps, as a power of two.
    pub(crate) fn table_bits(&self) -> u32 {
        2 * self.cluster_bits - self.entry_bits
    }

    /// How many L2 entries a slice has.
    pub(crate) fn slice_entries(&self) -> usize {
        1 << (self.slice_bits - self.entry_bits)
    }

    /// The L1 entry of a guest's offset.
    pub(crate) fn l1_index(&self, pos: u64) -> usize {
        usize::try_from(pos >> self.table_bits()).unwrap_or(usize::MAX)
    }

    /// Where in its L2 table the entry of a guest's offset is: offset of the slice in bytes, and
    /// index in the slice.
    pub(crate) fn l2_index(&self, pos: u64) -> (u64, usize) {
        let entries = 1u64 << (self.cluster_bits - self.entry_bits);
        let index = pos >> self.cluster_bits & (entries - 1);
        let byte = index << self.entry_bits;
        let within = (byte & (self.slice_size() - 1)) >> self.entry_bits;
        // At most 2^9.
        #[allow(clippy::cast_possible_truncation)]
        (byte & !(self.slice_size() - 1), within as usize)
    }

    /// How many clusters a refcount block counts, as a power of two.
    pub(crate) fn block_clusters_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }

    /// How many clusters a slice of a refcount block counts.
    pub(crate) fn slice_refcounts(&self) -> u64 {
        1 << (self.slice_bits + 3 - self.refcount_order)
    }

    /// The highest refcount.
    pub(crate) fn max_refcount(&self) -> u64 {
        u64::MAX >> (64 - (1u32 << self.refcount_order))
    }

    /// All granules of a cluster, as a mask.
    pub(crate) fn all_granules(&self) -> u32 {
        if self.extended() { u32::MAX } else { 1 }
    }

    /// The granules of a cluster that `start..end`, in bytes and not empty, touches.
    pub(crate) fn granules(&self, start: u64, end: u64) -> u32 {
        let first = start >> self.granule_bits;
        let last = (end - 1) >> self.granule_bits;
        // Both are less than 32.
        let upto = u64::MAX >> (63 - last);
        #[allow(clippy::cast_possible_truncation)]
        (upto as u32 & (u32::MAX << first))
    }
}

/// The entry of a cluster in an L2 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) word: u64,
    /// The second half of an extended entry; else 0.
    pub(crate) bitmap: u64,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is compressed.
    Compressed(Compressed),
    /// It has a place or not, and each granule is in one of three states: data, zero, or neither.
    Plain {
        /// Where it is in the file.
        host: Option<u64>,
        /// A mask.
        data: u32,
        /// A mask.
        zero: u32,
    },
}

impl Entry {
    /// The entry of a cluster at `host` that has no other owner.
    pub(crate) fn owned(geo: &Geometry, host: u64, data: u32, zero: u32) -> Self {
        let word = host | COPIED;
        if geo.extended() {
            return Entry { word, bitmap: u64::from(data) | u64::from(zero & !data) << 32 };
        }
        Entry { word: if zero & !data != 0 { word | ZERO } else { word }, bitmap: 0 }
    }

    /// The entry of a cluster without a place.
    pub(crate) fn homeless(geo: &Geometry, zero: u32) -> Self {
        if geo.extended() {
            return Entry { word: 0, bitmap: u64::from(zero) << 32 };
        }
        Entry { word: u64::from(zero) & ZERO, bitmap: 0 }
    }

    /// Whether it reads as zeroes, and the place that is kept for its data cannot be.
    pub(crate) fn is_zero_elsewhere(self, geo: &Geometry) -> bool {
        let zero = geo.zero_flag && !geo.extended() && self.word & ZERO != 0;
        let misplaced = self.word & OFFSET_MASK & (geo.cluster_size() - 1) != 0;
        zero && misplaced && self.word & COMPRESSED == 0
    }

    /// What it says, or what is wrong with it.
    #[inline]
    pub(crate) fn kind(self, geo: &Geometry) -> Result<Kind, &'static str> {
        if self.word & COMPRESSED != 0 {
            return self.compressed(geo);
        }
        let offset = self.word & OFFSET_MASK;
        if offset & (geo.cluster_size() - 1) != 0 {
            return Err("is not aligned to a cluster");
        }
        let there = offset != 0 || geo.data_file && self.word & COPIED != 0;
        let host = there.then_some(offset);
        if geo.extended() {
            return self.subclusters(host);
        }
        let zero = u32::from(geo.zero_flag && self.word & ZERO != 0);
        Ok(Kind::Plain { host, data: u32::from(there) & !zero, zero })
    }

    #[cold]
    fn compressed(self, geo: &Geometry) -> Result<Kind, &'static str> {
        if geo.data_file {
            return Err("refers to a compressed cluster, which an external data file has not");
        }
        match L2Entry(self.word).decode(geo.cluster_bits, false, false) {
            Cluster::Compressed(compressed) => Ok(Kind::Compressed(compressed)),
            _ => Err("cannot be"),
        }
    }

    /// What an extended entry says of a cluster at `host`.
    fn subclusters(self, host: Option<u64>) -> Result<Kind, &'static str> {
        // The halves of the bitmap.
        #[allow(clippy::cast_possible_truncation)]
        let (data, zero) = (self.bitmap as u32, (self.bitmap >> 32) as u32);
        if data & zero != 0 {
            return Err("has subclusters that are data and zero");
        }
        if data != 0 && host.is_none() {
            return Err("has data and no place");
        }
        Ok(Kind::Plain { host, data, zero })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(extended: bool) -> Geometry {
        let mut header = Header::new(3, 16, 1 << 30);
        if extended {
            header.incompatible = header::incompatible::EXTENDED_L2;
        }
        Geometry::of(&header)
    }

    #[test]
    fn entries_say_what_they_were_made_of() {
        for extended in [false, true] {
            let geo = geometry(extended);
            let all = geo.all_granules();
            let entry = Entry::owned(&geo, 0x5_0000, all, 0);
            let host = Some(0x5_0000);
            assert_eq!(entry.kind(&geo), Ok(Kind::Plain { host, data: all, zero: 0 }));
            let entry = Entry::owned(&geo, 0x5_0000, 0, all);
            assert_eq!(entry.kind(&geo), Ok(Kind::Plain { host, data: 0, zero: all }));
            let entry = Entry::homeless(&geo, all);
            assert_eq!(entry.kind(&geo), Ok(Kind::Plain { host: None, data: 0, zero: all }));
        }
        assert!(Entry { word: COPIED | 0x5_0200, bitmap: 0 }.kind(&geometry(false)).is_err());
        assert!(Entry { word: 0, bitmap: 1 }.kind(&geometry(true)).is_err());
    }

    #[test]
    fn a_range_touches_the_granules_in_which_its_bytes_are() {
        let geo = geometry(true);
        assert_eq!(geo.granules(0, 1), 1);
        assert_eq!(geo.granules(0, 65536), u32::MAX);
        assert_eq!(geo.granules(2047, 2049), 3);
        assert_eq!(geo.granules(65535, 65536), 1 << 31);
        assert_eq!(geometry(false).granules(5, 65536), 1);
    }
}
