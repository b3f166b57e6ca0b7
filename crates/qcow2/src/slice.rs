// SPDX-License-Identifier: Apache-2.0
//! Parts of the image's tables in memory: of the header, L1, L2 and refcount tables and blocks. A
//! [`Slice`] is at most 4 KiB, is written by the sector, and knows which of its sectors the file
//! does not have yet. The [`Cache`] holds the slices of L2 tables and refcount blocks in a bounded
//! number of bytes; one that differs from the file, or that somebody uses, stays.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::geometry::{Entry, Geometry};
use crate::storage::SECTOR;
use crate::wait::Event;

/// Words of a sector.
pub(crate) const SECTOR_WORDS: usize = 64;

/// One bit for each entry of a slice.
type Bits = [Cell<u64>; 8];

/// A part of a table.
pub(crate) struct Slice {
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// As in the file.
    words: Box<[Cell<u64>]>,
    /// The number of changes in memory.
    pub(crate) changed: Cell<u64>,
    /// The number of changes that the file has.
    pub(crate) written: Cell<u64>,
    /// The sectors that the file does not have.
    pub(crate) dirty: Cell<u8>,
    /// Somebody writes it now.
    pub(crate) writing: Cell<bool>,
    /// A write ended.
    pub(crate) event: Event,
    recent: Cell<bool>,
    /// Entries whose cluster was seen to belong to them alone, and to nothing else.
    checked: Bits,
    /// Entries in whose cluster the granules that are not data are zero on stable storage.
    fresh: Bits,
}

impl Slice {
    /// Takes the bytes that were read from `offset`.
    pub(crate) fn new(offset: u64, bytes: &Sgl<'_>) -> Self {
        let mut words = vec![0u64; bytes.len() / 8];
        bytes.read_at(0, words.as_mut_bytes());
        Slice {
            offset,
            words: words.into_iter().map(Cell::new).collect(),
            changed: Cell::new(0),
            written: Cell::new(0),
            dirty: Cell::new(0),
            writing: Cell::new(false),
            event: Event::default(),
            recent: Cell::new(true),
            checked: Bits::default(),
            fresh: Bits::default(),
        }
    }

    /// Its length in words.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// A word; 0 where there is none.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, |word| u64::from_be(word.get()))
    }

    /// Changes a word. Whoever does that also enters the slice into the list of dirty ones.
    pub(crate) fn put(&self, index: usize, value: u64) {
        let Some(word) = self.words.get(index) else { return };
        word.set(value.to_be());
        self.dirty.set(self.dirty.get() | 1 << (index / SECTOR_WORDS));
        self.changed.set(self.changed.get() + 1);
    }

    /// An L2 entry.
    pub(crate) fn entry(&self, geo: &Geometry, index: usize) -> Entry {
        if geo.extended() {
            return Entry { word: self.get(2 * index), bitmap: self.get(2 * index + 1) };
        }
        Entry { word: self.get(index), bitmap: 0 }
    }

    /// Whether the file has all of it.
    pub(crate) fn is_clean(&self) -> bool {
        self.changed.get() == self.written.get()
    }

    pub(crate) fn is_checked(&self, index: usize) -> bool {
        bit(&self.checked, index)
    }

    pub(crate) fn set_checked(&self, index: usize, on: bool) {
        set_bit(&self.checked, index, on);
    }

    /// Nothing is known of the clusters of its entries any more.
    fn uncheck(&self) {
        for word in self.checked.iter().chain(&self.fresh) {
            word.set(0);
        }
    }

    pub(crate) fn is_fresh(&self, index: usize) -> bool {
        bit(&self.fresh, index)
    }

    pub(crate) fn set_fresh(&self, index: usize, on: bool) {
        set_bit(&self.fresh, index, on);
    }

    /// A copy of the sectors of a mask, from the first to the last, as in the file, and the offset
    /// of the first.
    pub(crate) fn copy(&self, sectors: u8) -> (Vec<u64>, u64) {
        let first = sectors.trailing_zeros().min(7) as usize;
        let end = (8 - sectors.leading_zeros() as usize) * SECTOR_WORDS;
        let words = self.words.get(first * SECTOR_WORDS..end.min(self.len())).unwrap_or_default();
        (words.iter().map(Cell::get).collect(), self.offset + first as u64 * SECTOR)
    }
}

fn bit(bits: &Bits, index: usize) -> bool {
    bits.get(index / 64).is_some_and(|word| word.get() >> (index % 64) & 1 != 0)
}

fn set_bit(bits: &Bits, index: usize, on: bool) {
    if let Some(word) = bits.get(index / 64) {
        let mask = 1 << (index % 64);
        word.set(if on { word.get() | mask } else { word.get() & !mask });
    }
}

/// A table that is in memory wholly.
pub(crate) struct Table {
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// Number of entries.
    pub(crate) len: usize,
    pub(crate) slices: Vec<Rc<Slice>>,
    slice_words_bits: u32,
}

impl Table {
    /// A table of `len` entries that are in `slices`.
    pub(crate) fn new(offset: u64, len: usize, slices: Vec<Rc<Slice>>, slice_bits: u32) -> Self {
        Table { offset, len, slices, slice_words_bits: slice_bits - 3 }
    }

    /// Where an entry is.
    pub(crate) fn slot(&self, index: usize) -> Option<(&Rc<Slice>, usize)> {
        if index >= self.len {
            return None;
        }
        let slice = self.slices.get(index >> self.slice_words_bits)?;
        Some((slice, index & ((1 << self.slice_words_bits) - 1)))
    }

    /// Nothing is known of the clusters of its entries any more.
    pub(crate) fn uncheck(&self) {
        self.slices.iter().for_each(|slice| slice.uncheck());
    }

    /// An entry; 0 where there is none.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.slot(index).map_or(0, |(slice, within)| slice.get(within))
    }
}

/// Offsets are multiples of 512: multiplied by an odd number, their upper bits are spread well.
#[derive(Default)]
struct OffsetHasher(u64);

impl Hasher for OffsetHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = ((self.0 ^ value) >> 9).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    }
}

/// How often the cache was asked, and what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Slices that were not there and have been read.
    pub misses: u64,
    /// Slices that made room.
    pub evicted: u64,
    /// Bytes that it takes now.
    pub bytes: usize,
    /// Bytes that it may take.
    pub limit: usize,
}

/// See the module's text.
pub(crate) struct Cache {
    slices: RefCell<HashMap<u64, Rc<Slice>, BuildHasherDefault<OffsetHasher>>>,
    /// All of them, in a circle, and where the clock's hand is.
    ring: RefCell<(Vec<Rc<Slice>>, usize)>,
    /// Offsets that are being read.
    pub(crate) loading: RefCell<BTreeSet<u64>>,
    /// One has been read, or not.
    pub(crate) loaded: Event,
    slice_cost: usize,
    limit: usize,
    misses: Cell<u64>,
    evicted: Cell<u64>,
}

impl Cache {
    /// A cache of `limit` bytes, for slices of `slice_size`.
    pub(crate) fn new(limit: usize, slice_size: usize) -> Self {
        Cache {
            slices: RefCell::default(),
            ring: RefCell::default(),
            loading: RefCell::default(),
            loaded: Event::default(),
            slice_cost: slice_size + size_of::<Slice>() + 48,
            limit,
            misses: Cell::new(0),
            evicted: Cell::new(0),
        }
    }

    pub(crate) fn get(&self, offset: u64) -> Option<Rc<Slice>> {
        let slices = self.slices.borrow();
        let slice = slices.get(&offset)?;
        slice.recent.set(true);
        Some(slice.clone())
    }

    /// Takes a slice in; others may have to go, even (`careless`) if they are dirty.
    pub(crate) fn insert(&self, slice: &Rc<Slice>, careless: bool) {
        self.misses.set(self.misses.get() + 1);
        let (ring, hand) = &mut *self.ring.borrow_mut();
        let mut slices = self.slices.borrow_mut();
        // Two rounds: the first may only take marks away.
        let mut steps = 2 * ring.len();
        while (ring.len() + 1) * self.slice_cost > self.limit && steps > 0 {
            steps -= 1;
            *hand = if *hand + 1 < ring.len() { *hand + 1 } else { 0 };
            let Some(oldest) = ring.get(*hand) else { break };
            // The map and the ring.
            let idle = Rc::strong_count(oldest) == 2 && oldest.is_clean();
            if (idle || careless) && !oldest.recent.replace(false) {
                slices.remove(&oldest.offset);
                ring.swap_remove(*hand);
                self.evicted.set(self.evicted.get() + 1);
            }
        }
        slices.insert(slice.offset, slice.clone());
        ring.push(slice.clone());
    }

    /// Nothing is known of the clusters of any entries any more.
    pub(crate) fn uncheck(&self) {
        self.ring.borrow().0.iter().for_each(|slice| slice.uncheck());
    }

    /// Forgets slices of a range of the file, which is no table any more.
    pub(crate) fn forget(&self, start: u64, end: u64) {
        let (ring, _) = &mut *self.ring.borrow_mut();
        let mut slices = self.slices.borrow_mut();
        let step = 1 << ring.first().map_or(9, |slice| slice.len().trailing_zeros() + 3);
        let mut found = false;
        let mut at = start;
        // A range of many clusters has more slices than the cache.
        if (end - start) / step > ring.len() as u64 {
            found = ring.iter().any(|slice| (start..end).contains(&slice.offset));
        }
        while !found && at < end && (end - start) / step <= ring.len() as u64 {
            found = slices.contains_key(&at);
            at += step;
        }
        if found {
            ring.retain(|slice| !(start..end).contains(&slice.offset));
            slices.retain(|offset, _| !(start..end).contains(offset));
        }
    }

    pub(crate) fn statistics(&self) -> CacheStatistics {
        CacheStatistics {
            misses: self.misses.get(),
            evicted: self.evicted.get(),
            bytes: self.ring.borrow().0.len() * self.slice_cost,
            limit: self.limit,
        }
    }
}
