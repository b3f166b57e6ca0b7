// SPDX-License-Identifier: Apache-2.0
//! Refcounts in memory: finding and changing them. Only the image's own jobs change any, one after
//! the other.
use std::ops::Range;
use std::rc::Rc;

use crate::ErrorKind;
use crate::core::Core;
use crate::error::Result;
use crate::geometry::Geometry;
use crate::slice::Slice;
use crate::storage::Storage;

/// Bits 9 to 63 of an entry of the refcount table: where the block is.
pub(crate) const BLOCK_MASK: u64 = !0x1ff;

/// Where the refcount of a cluster is.
pub(crate) struct Slot {
    pub(crate) slice: Rc<Slice>,
    /// Its index in the slice.
    pub(crate) index: u64,
}

/// The word in which a refcount is, and by how many bits it is shifted there.
fn place(geo: &Geometry, index: u64) -> (usize, u32) {
    let order = geo.refcount_order;
    let bit = index << order;
    let word = usize::try_from(bit / 64).unwrap_or(usize::MAX);
    // Less than 64.
    #[allow(clippy::cast_possible_truncation)]
    let within = (bit % 64) as u32;
    // Bytes are in the order of big endian, bits of a byte begin with the lowest.
    let shift =
        if order >= 3 { 64 - within - (1 << order) } else { 56 - within / 8 * 8 + within % 8 };
    (word, shift)
}

impl Slot {
    pub(crate) fn get(&self, geo: &Geometry) -> u64 {
        let (word, shift) = place(geo, self.index);
        self.slice.get(word) >> shift & geo.max_refcount()
    }
}

/// The refcount of the cluster `index` of a block, in `words` as in the file; 0 where there is none.
pub(crate) fn get(geo: &Geometry, words: &[u64], index: u64) -> u64 {
    let (word, shift) = place(geo, index);
    words.get(word).map_or(0, |word| u64::from_be(*word) >> shift & geo.max_refcount())
}

/// Sets the refcount of the cluster `index` of a block, in `words` as in the file.
pub(crate) fn put(geo: &Geometry, words: &mut [u64], index: u64, value: u64) {
    let (word, shift) = place(geo, index);
    if let Some(word) = words.get_mut(word) {
        let old = u64::from_be(*word) & !(geo.max_refcount() << shift);
        *word = (old | value << shift).to_be();
    }
}

impl<S: Storage + 'static> Core<S> {
    /// The refcount block that counts a cluster, by its index in the table.
    pub(crate) fn block_of(&self, cluster: u64) -> usize {
        usize::try_from(cluster >> self.geo.block_clusters_bits()).unwrap_or(usize::MAX)
    }

    /// Where the refcount of a cluster is, if there is a block for it.
    pub(crate) async fn refcount_slot(&self, cluster: u64) -> Result<Option<Slot>> {
        let number = self.block_of(cluster);
        let block = self.reftable.borrow().get(number) & BLOCK_MASK;
        if block == 0 {
            return Ok(None);
        }
        if block & (self.geo.cluster_size() - 1) != 0 {
            return Err(ErrorKind::to_convert(format_args!(
                "the refcount table's entry {number} refers to a block at {block:#x}, which is \
                 not aligned to a cluster"
            )));
        }
        if block >> self.geo.cluster_bits >= self.end.get() {
            return Err(ErrorKind::damaged(format_args!(
                "the refcount table's entry {number} refers to a block at {block:#x}, which is \
                 past the end of the file"
            )));
        }
        let within = cluster & ((1 << self.geo.block_clusters_bits()) - 1);
        let per_slice = self.geo.slice_refcounts();
        let offset = block + within / per_slice * self.geo.slice_size();
        let slice = self.load(offset).await?;
        Ok(Some(Slot { slice, index: within % per_slice }))
    }

    /// The refcount of a cluster.
    pub(crate) async fn refcount(&self, cluster: u64) -> Result<u64> {
        Ok(self.refcount_slot(cluster).await?.map_or(0, |slot| slot.get(&self.geo)))
    }

    /// Changes a refcount in memory.
    pub(crate) fn set_refcount(&self, slot: &Slot, value: u64) {
        let (word, shift) = place(&self.geo, slot.index);
        let old = slot.slice.get(word) & !(self.geo.max_refcount() << shift);
        self.set(&slot.slice, word, old | value << shift);
    }

    /// Where the refcount of a cluster is, if there is a block for it, and how many of the next
    /// `most` clusters, with this one, have theirs in the same slice.
    pub(crate) async fn refcount_run(
        &self,
        cluster: u64,
        most: u64,
    ) -> Result<(Option<Slot>, u64)> {
        let per_slice = self.geo.slice_refcounts();
        let count = (per_slice - cluster % per_slice).min(most);
        Ok((self.refcount_slot(cluster).await?, count))
    }

    /// Sets the refcounts of clusters in memory, as far as there are blocks for them. Returns for how
    /// many that was done, and why not for all.
    pub(crate) async fn set_refcounts(
        &self,
        clusters: Range<u64>,
        value: u64,
    ) -> (u64, Result<()>) {
        let mut at = clusters.start;
        while at < clusters.end {
            let (slot, count) = match self.refcount_run(at, clusters.end - at).await {
                Ok(run) => run,
                Err(e) => return (at - clusters.start, Err(e)),
            };
            if let Some(mut slot) = slot {
                for _ in 0..count {
                    self.set_refcount(&slot, value);
                    slot.index += 1;
                }
            }
            at += count;
        }
        (at - clusters.start, Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::header::Header;

    #[test]
    fn refcounts_of_every_width_are_where_the_format_says() {
        for order in 0..=6 {
            let mut header = Header::new(3, 16, 0);
            header.refcount_order = order;
            let geo = Geometry::of(&header);
            let mut words = [0u64; 64];
            put(&geo, &mut words, 9, geo.max_refcount());
            assert_eq!(get(&geo, &words, 9), geo.max_refcount());
            assert_eq!(get(&geo, &words, 8) + get(&geo, &words, 10), 0);
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let bits = 1usize << order;
            for (at, byte) in bytes.iter().enumerate() {
                let mut expected = 0u8;
                for bit in 0..8 {
                    if (9 * bits..10 * bits).contains(&(at * 8 + bit)) {
                        // Of a width below 8 bits the lowest come first; of the others all are set.
                        expected |= 1 << bit;
                    }
                }
                assert_eq!(*byte, expected, "{order} {at}");
            }
        }
    }
}
