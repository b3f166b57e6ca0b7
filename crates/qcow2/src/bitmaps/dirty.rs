// SPDX-License-Identifier: Apache-2.0
//! The bits of one bitmap in memory, in parts as large as a cluster; one without any bit set takes
//! no memory. Pure.
use std::ops::Range;

/// See the module's text.
pub(crate) struct Dirty {
    granularity_bits: u32,
    /// log2 of the bits of a part.
    part_bits: u32,
    /// The number of bits.
    len: u64,
    parts: Vec<Part>,
}

#[derive(Default)]
struct Part {
    /// Empty where no bit is set.
    bytes: Box<[u8]>,
    /// The file has not got it.
    changed: bool,
}

impl Dirty {
    /// Those of an empty image.
    pub(crate) fn new(granularity_bits: u32, cluster_bits: u32) -> Self {
        Dirty { granularity_bits, part_bits: cluster_bits + 3, len: 0, parts: Vec::new() }
    }

    /// How many parts there are for an image of `size` bytes.
    pub(crate) fn parts_for(&self, size: u64) -> u64 {
        size.div_ceil(1 << self.granularity_bits).div_ceil(1 << self.part_bits)
    }

    /// The most memory that they take for an image of `size` bytes.
    pub(crate) fn bytes_for(&self, size: u64) -> u64 {
        let part = (1 << (self.part_bits - 3)) + size_of::<Part>() as u64 + 8;
        self.parts_for(size).saturating_mul(part)
    }

    /// For an image of another size. What is new is not set.
    pub(crate) fn resize(&mut self, size: u64) {
        self.len = size.div_ceil(1 << self.granularity_bits);
        let parts = self.parts_for(size);
        self.parts.resize_with(usize::try_from(parts).unwrap_or(usize::MAX), Part::default);
        self.trim();
    }

    /// Bits past the end are zero.
    fn trim(&mut self) {
        let end = self.len & ((1 << self.part_bits) - 1);
        let Some(last) = self.parts.last_mut().filter(|_| end > 0) else { return };
        for (at, byte) in (0..).step_by(8).zip(&mut last.bytes) {
            let kept = match end.saturating_sub(at) {
                kept @ 0..8 => (1u8 << kept) - 1,
                _ => u8::MAX,
            };
            last.changed |= *byte & !kept != 0;
            *byte &= kept;
        }
    }

    /// Sets the bits of a part of the guest. What is past the end has none.
    pub(crate) fn mark(&mut self, range: Range<u64>) {
        let mut bit = range.start >> self.granularity_bits;
        let end = range.end.div_ceil(1 << self.granularity_bits).min(self.len);
        let mask = (1u64 << self.part_bits) - 1;
        while bit < end {
            let number = usize::try_from(bit >> self.part_bits).unwrap_or(usize::MAX);
            let last = (bit | mask).min(end - 1);
            let Some(part) = self.parts.get_mut(number) else { return };
            part.set(bit & mask, last & mask, self.part_bits);
            bit = last + 1;
        }
    }

    /// A part as it is in the file: its bytes; none stands for zeroes.
    pub(crate) fn part(&self, number: usize) -> &[u8] {
        self.parts.get(number).map_or(&[], |part| &part.bytes)
    }

    /// Takes a part that the file has.
    pub(crate) fn load(&mut self, number: usize, bytes: Box<[u8]>) {
        if let Some(part) = self.parts.get_mut(number) {
            part.bytes = bytes;
        }
        self.trim();
    }

    /// The number of parts.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Whether the file has not got a part.
    pub(crate) fn has_changed(&self, number: usize) -> bool {
        self.parts.get(number).is_some_and(|part| part.changed)
    }

    /// The file has got a part.
    pub(crate) fn saved(&mut self, number: usize) {
        if let Some(part) = self.parts.get_mut(number) {
            part.changed = false;
        }
    }
}

impl Part {
    /// Sets the bits from `first` to `last`.
    fn set(&mut self, first: u64, last: u64, part_bits: u32) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; 1 << (part_bits - 3)].into();
        }
        for number in first / 8..=last / 8 {
            let from = if number == first / 8 { first % 8 } else { 0 };
            let to = if number == last / 8 { last % 8 } else { 7 };
            let mask = (u8::MAX << from) & (u8::MAX >> (7 - to));
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            let Some(byte) = self.bytes.get_mut(at) else { return };
            self.changed |= *byte & mask != mask;
            *byte |= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Dirty {
        let mut dirty = Dirty::new(9, 9);
        dirty.resize(8 << 20);
        dirty
    }

    fn bits(dirty: &Dirty) -> Vec<usize> {
        let part = 1 << dirty.part_bits;
        let is_set = |bit: &usize| {
            let byte = dirty.part(bit / part).get(bit % part / 8);
            byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
        };
        (0..dirty.parts() * part).filter(is_set).collect()
    }

    #[test]
    fn a_range_marks_every_granule_that_it_touches() {
        let mut dirty = sample();
        assert_eq!(dirty.parts(), 4);
        dirty.mark(511..513);
        dirty.mark(4096 * 512 - 1..4097 * 512);
        dirty.mark((8 << 20) - 1..9 << 20);
        dirty.mark(600..600);
        assert_eq!(bits(&dirty), [0, 1, 4095, 4096, 16383]);
        assert!(dirty.has_changed(0) && dirty.has_changed(1) && !dirty.has_changed(2));
        dirty.mark(4000 * 512..4200 * 512);
        assert_eq!(bits(&dirty).len(), 203);
    }

    #[test]
    fn what_was_cut_off_is_not_there_when_it_grows_again() {
        let mut dirty = sample();
        dirty.mark(0..8 << 20);
        dirty.resize(5 * 512 + 1);
        assert_eq!(bits(&dirty), [0, 1, 2, 3, 4, 5]);
        dirty.resize(8 << 20);
        assert_eq!(bits(&dirty), [0, 1, 2, 3, 4, 5]);
        dirty.load(3, vec![0xff; 512].into());
        assert_eq!(bits(&dirty).len(), 6 + 4096);
    }
}
