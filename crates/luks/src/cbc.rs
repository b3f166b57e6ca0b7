// SPDX-License-Identifier: Apache-2.0
//! CBC (NIST SP 800-38A 6.2) over whole sectors. A block is decrypted without the others, so many are at
//! once. It is encrypted after the one before it in its sector, so blocks of several sectors are.
use crate::block_cipher::{Block, Keyed, Work, xor, xor_all};
use crate::sector::MAX_BLOCKS;

/// Sectors of which a block each is encrypted in one go: enough to fill the pipelines for AES.
const LANES: usize = 16;

/// What is encrypted in place.
pub(crate) struct Encrypt<'a> {
    /// Whole sectors.
    pub(crate) blocks: &'a mut [Block],
    /// What the first block of each sector is combined with.
    pub(crate) ivs: &'a [Block],
    /// Blocks of a sector.
    pub(crate) sector: usize,
}

/// What is decrypted in place.
pub(crate) struct Decrypt<'a> {
    /// Whole sectors.
    pub(crate) blocks: &'a mut [Block],
    /// What the first block of each sector is combined with.
    pub(crate) ivs: &'a [Block],
    /// Blocks of a sector, at most [`MAX_BLOCKS`].
    pub(crate) sector: usize,
}

impl Work for Encrypt<'_> {
    #[inline(always)]
    fn run<C: Keyed>(self, cipher: &C) {
        let mut lanes = [Block::default(); LANES];
        let groups = self.blocks.chunks_mut(LANES * self.sector);
        for (group, ivs) in groups.zip(self.ivs.chunks(LANES)) {
            let lanes = lanes.get_mut(..ivs.len()).unwrap_or_default();
            lanes.copy_from_slice(ivs);
            for index in 0..self.sector {
                let plain = group.iter().skip(index).step_by(self.sector);
                lanes.iter_mut().zip(plain).for_each(|(lane, plain)| xor(lane, plain));
                cipher.change_all(lanes);
                let encrypted = group.iter_mut().skip(index).step_by(self.sector);
                encrypted.zip(&*lanes).for_each(|(block, lane)| *block = *lane);
            }
        }
    }
}

impl Work for Decrypt<'_> {
    #[inline(always)]
    fn run<C: Keyed>(self, cipher: &C) {
        let mut before = [Block::default(); MAX_BLOCKS];
        let sectors = (MAX_BLOCKS / self.sector).max(1);
        let groups = self.blocks.chunks_mut(sectors * self.sector);
        for (group, ivs) in groups.zip(self.ivs.chunks(sectors)) {
            let before = before.get_mut(..group.len()).unwrap_or_default();
            before.copy_from_slice(group);
            cipher.change_all(group);
            let sectors = group.chunks_mut(self.sector).zip(before.chunks(self.sector));
            for ((sector, before), iv) in sectors.zip(ivs) {
                if let Some((first, others)) = sector.split_first_mut() {
                    xor(first, iv);
                    xor_all(others, before);
                }
            }
        }
    }
}
