// SPDX-License-Identifier: Apache-2.0
//! XTS (IEEE 1619) over whole sectors. Each block has a tweak: the sector's, encrypted, times a power of
//! x in GF(2^128). The tweaks of a run of blocks are made from the first one, none of them from another,
//! and are combined with the data around the cipher, while these are in the processor's first cache.
use aes::cipher::array::Array;
use aes::cipher::typenum::Unsigned;

use crate::block_cipher::{Block, Keyed, Work};

/// Blocks whose tweaks are made from one: those of the shortest sector.
const RUN: usize = 32;
/// Blocks whose tweaks are made before they are used.
const BATCH: usize = 2 * RUN;

/// What is encrypted or decrypted in place.
pub(crate) struct Xts<'a> {
    /// Whole sectors.
    pub(crate) blocks: &'a mut [Block],
    /// The encrypted number of each sector.
    pub(crate) starts: &'a [Block],
    /// Blocks of a sector, a multiple of [`RUN`].
    pub(crate) sector: usize,
}

/// At a place where the widest registers are filled from one line of the cache.
#[repr(align(64))]
struct Aligned<T>(T);

impl Work for Xts<'_> {
    #[inline(always)]
    fn run<C: Keyed>(self, cipher: &C) {
        let mut tweaks = Aligned([[0; 2 * BATCH]; 2]);
        let mut work = Aligned(Array::<Block, C::AtOnce>::default());
        let mut runs = Runs { starts: self.starts.iter(), sector: self.sector, start: 0, left: 0 };
        // Registers that are wider than a block are those of ciphers that do many at once.
        let wide = C::AtOnce::USIZE > 8;
        if wide {
            runs.fill(&mut tweaks.0[0])
        } else {
            runs.fill_narrow(&mut tweaks.0[0])
        }
        for (index, batch) in self.blocks.chunks_mut(BATCH).enumerate() {
            // Of the batch after this one, so that they are there when it begins.
            let next = &mut tweaks.0[(index + 1) % 2];
            if wide {
                runs.fill(next)
            } else {
                runs.fill_narrow(next)
            }
            let (groups, rest) = Array::<Block, C::AtOnce>::slice_as_chunks_mut(batch);
            let mut tweaks = &tweaks.0[index % 2][..];
            for group in groups {
                let (these, others) = tweaks.split_at(2 * group.len());
                tweaks = others;
                combine(&mut work.0, group, these);
                cipher.change(&mut work.0);
                combine(group, &work.0, these);
            }
            let work = work.0.get_mut(..rest.len()).unwrap_or_default();
            combine(work, rest, tweaks);
            cipher.change_fewer(work);
            combine(rest, work, tweaks);
        }
    }
}

/// Makes tweaks, run by run.
struct Runs<'a> {
    /// Of the sectors that follow.
    starts: std::slice::Iter<'a, Block>,
    sector: usize,
    /// The first tweak of the next run.
    start: u128,
    /// Blocks of this sector that have none yet.
    left: usize,
}

impl Runs<'_> {
    /// The first tweak of the next run.
    #[inline(always)]
    fn next(&mut self) -> u128 {
        if self.left == 0 {
            self.start = self.starts.next().map_or(0, |start| u128::from_le_bytes(start.0));
            self.left = self.sector;
        }
        self.left = self.left.saturating_sub(RUN);
        let start = self.start;
        self.start = times(start, RUN as u64);
        start
    }

    /// Makes those of a batch in registers as wide as there are.
    #[inline(always)]
    fn fill(&mut self, tweaks: &mut [u64; 2 * BATCH]) {
        let (runs, _) = tweaks.as_chunks_mut();
        runs.iter_mut().for_each(|run| fill(run, self.next()));
    }

    /// Makes those of a batch.
    #[inline(never)]
    fn fill_narrow(&mut self, tweaks: &mut [u64; 2 * BATCH]) {
        let (runs, _) = tweaks.as_chunks_mut();
        runs.iter_mut().for_each(|run| fill_narrow(run, self.next()));
    }
}

/// Makes the tweaks of a run, two little-endian words each, from the first one: none of them from another,
/// so that registers of any width can hold them.
#[inline(always)]
fn fill(run: &mut [u64; 2 * RUN], start: u128) {
    let (low, high) = halves(start);
    let (tweaks, _) = run.as_chunks_mut();
    for (power, [l, h]) in (0u64..).zip(tweaks) {
        // Shifted twice, because no shift may be one by 64.
        *h = (high << power | low >> 1 >> (63 - power)).to_le();
        *l = (low << power ^ reduced(high >> 1 >> (63 - power))).to_le();
    }
}

/// Does the same where registers are no wider than a block, one by one: each tweak is twice the one
/// before it, in four rows that do not wait for each other.
#[inline(always)]
fn fill_narrow(run: &mut [u64; 2 * RUN], start: u128) {
    const ROW: usize = RUN / 4;
    let mut tweaks = [0, 1, 2, 3].map(|row| times(start, row * ROW as u64));
    for index in 0..ROW {
        for (row, tweak) in tweaks.iter_mut().enumerate() {
            let at = 2 * (row * ROW + index);
            let (low, high) = halves(*tweak);
            run[at] = low.to_le();
            run[at + 1] = high.to_le();
            *tweak = *tweak << 1 ^ u128::from((high.cast_signed() >> 63).cast_unsigned() & 0x87);
        }
    }
}

/// The tweak that is `power` blocks behind another one, at most 57.
#[inline(always)]
fn times(tweak: u128, power: u64) -> u128 {
    let (_, high) = halves(tweak);
    let over = high >> 1 >> (63 - power);
    tweak << power ^ u128::from(reduced(over))
}

/// The low and the high half.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the half is meant")]
fn halves(tweak: u128) -> (u64, u64) {
    (tweak as u64, (tweak >> 64) as u64)
}

/// What `over` times x^128 is in the field, if `over` has at most 57 bits.
#[inline(always)]
fn reduced(over: u64) -> u64 {
    over ^ over << 1 ^ over << 2 ^ over << 7
}

/// Makes `out` of the blocks and their tweaks.
#[inline(always)]
fn combine(out: &mut [Block], blocks: &[Block], tweaks: &[u64]) {
    let (out, _) = Block::slice_as_flattened_mut(out).as_chunks_mut();
    let (blocks, _) = Block::slice_as_flattened(blocks).as_chunks();
    for ((out, word), tweak) in out.iter_mut().zip(blocks).zip(tweaks) {
        *out = (u64::from_ne_bytes(*word) ^ tweak).to_ne_bytes();
    }
}
