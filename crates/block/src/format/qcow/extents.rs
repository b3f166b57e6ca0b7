// SPDX-License-Identifier: Apache-2.0
//! Where in the image's file guest data is: a cache of the mappings that reads and writes may use
//! without asking `imago`. Only clusters that this image alone owns (COPIED), or those of an image
//! that is not written, are here; such a mapping stays true until a discard, a write of zeroes or
//! a shrink, which remove it first, with no I/O in flight.
use std::collections::BTreeMap;
use std::ops::Range;

/// How many extents at most: with the map's overhead less than 1 MiB.
const MAX_EXTENTS: usize = 16384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// Length in bytes.
    len: u64,
    /// Offset in the file.
    host: u64,
}

/// The cache; offsets and lengths in bytes.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// By guest offset; they do not overlap, and two that could be one are one.
    map: BTreeMap<u64, Extent>,
    /// The extent last found.
    last: Option<(u64, Extent)>,
    /// State of the generator that chooses what to drop.
    seed: u64,
}

impl Extents {
    /// The offset in the file of guest offset `offset`, and for how many bytes it holds.
    pub(super) fn find(&mut self, offset: u64) -> Option<(u64, u64)> {
        let (start, extent) = match self.last {
            Some((start, extent)) if offset >= start && offset - start < extent.len => {
                (start, extent)
            }
            _ => self.map.range(..=offset).next_back().map(|(&start, &extent)| (start, extent))?,
        };
        let skip = offset - start;
        if skip >= extent.len {
            return None;
        }
        self.last = Some((start, extent));
        Some((extent.host + skip, extent.len - skip))
    }

    /// Adds a mapping, and joins it with its neighbours.
    pub(super) fn insert(&mut self, guest: u64, len: u64, host: u64) {
        let Some(mut end) = guest.checked_add(len).filter(|_| len > 0) else {
            return;
        };
        self.remove(guest..end);
        let (mut start, mut host) = (guest, host);
        if let Some((&at, &left)) = self.map.range(..guest).next_back()
            && at + left.len == guest
            && left.host + left.len == host
        {
            self.map.remove(&at);
            (start, host) = (at, left.host);
        }
        if let Some(&right) = self.map.get(&end)
            && right.host == host + (end - start)
        {
            self.map.remove(&end);
            end += right.len;
        }
        self.map.insert(start, Extent { len: end - start, host });
        if self.map.len() > MAX_EXTENTS {
            self.drop_one();
        }
    }

    /// Forgets what is mapped in `range`.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        self.last = None;
        while let Some((&at, &extent)) = self.map.range(..range.end).next_back() {
            let end = at + extent.len;
            if end <= range.start {
                return;
            }
            self.map.remove(&at);
            if end > range.end {
                let cut = range.end - at;
                self.map
                    .insert(range.end, Extent { len: end - range.end, host: extent.host + cut });
            }
            if at < range.start {
                self.map.insert(at, Extent { len: range.start - at, host: extent.host });
                return;
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.map.clear();
        self.last = None;
    }

    /// Drops an extent at a random place: no order in which guests read makes every one of their
    /// accesses miss.
    fn drop_one(&mut self) {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let Some(&last) = self.map.keys().next_back() else {
            return;
        };
        let at = self.seed % last.max(1);
        if let Some(&victim) = self.map.range(at..).next().map(|(start, _)| start) {
            self.map.remove(&victim);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_contiguous_in_the_file_become_one_extent() {
        let mut extents = Extents::default();
        extents.insert(0, 10, 100);
        extents.insert(20, 10, 120);
        extents.insert(10, 10, 110);
        assert_eq!(extents.map.len(), 1);
        assert_eq!(extents.find(0), Some((100, 30)));
        assert_eq!(extents.find(29), Some((129, 1)));
        assert_eq!(extents.find(30), None);
    }

    #[test]
    fn neighbours_that_are_elsewhere_in_the_file_stay_apart() {
        let mut extents = Extents::default();
        extents.insert(0, 10, 100);
        extents.insert(10, 10, 50);
        extents.insert(20, 10, 61);
        assert_eq!(extents.map.len(), 3);
        assert_eq!(extents.find(10), Some((50, 10)));
        assert_eq!(extents.find(9), Some((109, 1)));
        assert_eq!(extents.find(25), Some((66, 5)));
    }

    #[test]
    fn what_is_removed_is_not_found_and_the_rest_is() {
        let mut extents = Extents::default();
        extents.insert(0, 100, 1000);
        assert_eq!(extents.find(50), Some((1050, 50)));
        extents.remove(40..60);
        assert_eq!(extents.find(39), Some((1039, 1)));
        assert_eq!(extents.find(40), None);
        assert_eq!(extents.find(59), None);
        assert_eq!(extents.find(60), Some((1060, 40)));
        extents.remove(0..200);
        assert_eq!(extents.find(0), None);
        assert_eq!(extents.find(99), None);
    }

    #[test]
    fn a_new_mapping_replaces_an_old_one() {
        let mut extents = Extents::default();
        extents.insert(0, 100, 1000);
        extents.insert(10, 10, 5000);
        assert_eq!(extents.find(10), Some((5000, 10)));
        assert_eq!(extents.find(20), Some((1020, 80)));
        assert_eq!(extents.find(0), Some((1000, 10)));
    }

    #[test]
    fn the_cache_never_holds_more_than_its_limit() {
        let mut extents = Extents::default();
        for i in 0..3 * MAX_EXTENTS as u64 {
            extents.insert(i * 20, 10, i * 1000);
            assert!(extents.map.len() <= MAX_EXTENTS);
        }
        let held = (0..3 * MAX_EXTENTS as u64).filter(|i| extents.find(i * 20).is_some()).count();
        assert_eq!(held, MAX_EXTENTS);
    }
}
