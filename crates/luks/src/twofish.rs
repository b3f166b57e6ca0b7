// SPDX-License-Identifier: Apache-2.0
//! Twofish, after "Twofish: A 128-Bit Block Cipher" of Schneier and others (1998). The crate `twofish`
//! computes the S-boxes of a key anew for each byte. Here they are made once for a key, together with the
//! matrix that follows them (the paper's "full keying", 7.1.1): four tables of 1 KiB. Like those of other
//! programs they are read at places that depend on key and data.
use aes::cipher::consts::{U2, U16};
use aes::cipher::inout::InOut;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, ParBlocks, ParBlocksSizeUser,
};
use zeroize::{Zeroize, Zeroizing};

use crate::block_cipher::Block;

/// The permutations q0 and q1 are made of four tables of nibbles each (paper, 4.3.5).
const NIBBLES: [[[u8; 16]; 4]; 2] = [
    [
        [0x8, 0x1, 0x7, 0xd, 0x6, 0xf, 0x3, 0x2, 0x0, 0xb, 0x5, 0x9, 0xe, 0xc, 0xa, 0x4],
        [0xe, 0xc, 0xb, 0x8, 0x1, 0x2, 0x3, 0x5, 0xf, 0x4, 0xa, 0x6, 0x7, 0x0, 0x9, 0xd],
        [0xb, 0xa, 0x5, 0xe, 0x6, 0xd, 0x9, 0x0, 0xc, 0x8, 0xf, 0x3, 0x2, 0x4, 0x7, 0x1],
        [0xd, 0x7, 0xf, 0x4, 0x1, 0x2, 0x6, 0xe, 0x9, 0xb, 0x3, 0x0, 0x8, 0x5, 0xc, 0xa],
    ],
    [
        [0x2, 0x8, 0xb, 0xd, 0xf, 0x7, 0x6, 0xe, 0x3, 0x1, 0x9, 0x4, 0x0, 0xa, 0xc, 0x5],
        [0x1, 0xe, 0x2, 0xb, 0x4, 0xc, 0x3, 0x7, 0x6, 0xd, 0xa, 0x5, 0xf, 0x9, 0x0, 0x8],
        [0x4, 0xc, 0x7, 0x5, 0x1, 0x6, 0x9, 0xa, 0x0, 0xe, 0xd, 0x8, 0x2, 0xb, 0x3, 0xf],
        [0xb, 0x9, 0x5, 0x1, 0xc, 0x3, 0xd, 0xe, 0x6, 0x4, 0x7, 0xf, 0x2, 0x0, 0x8, 0xa],
    ],
];
/// Which of the two each byte of a word goes through, one after the other (paper, 4.3.2); with keys of
/// 24 and 16 bytes the first one or two are left out.
const ORDER: [[usize; 5]; 4] = [[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [1, 0, 1, 1, 0]];
/// The columns of the matrix behind the S-boxes (paper, 4.3.2), and the field's polynomial.
const MDS: [[u8; 4]; 4] = [
    [0x01, 0x5b, 0xef, 0xef],
    [0xef, 0xef, 0x5b, 0x01],
    [0x5b, 0xef, 0x01, 0xef],
    [0x5b, 0x01, 0xef, 0x5b],
];
const MDS_FIELD: u16 = 0x169;
/// The rows of the matrix that makes the S-boxes' keys (paper, 4.3.3), and the field's polynomial.
const RS: [[u8; 8]; 4] = [
    [0x01, 0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e],
    [0xa4, 0x56, 0x82, 0xf3, 0x1e, 0xc6, 0x68, 0xe5],
    [0x02, 0xa1, 0xfc, 0xc1, 0x47, 0xae, 0x3d, 0x19],
    [0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e, 0x03],
];
const RS_FIELD: u16 = 0x14d;
/// All bytes of a word of the key schedule's input are the same.
const RHO: u32 = 0x0101_0101;

const ROUNDS: usize = 16;

/// Twofish with a key, which is wiped when it is dropped.
pub(crate) struct Twofish {
    /// What each byte of a word becomes in the function g.
    tables: [[u32; 256]; 4],
    /// What a block is combined with before its first round.
    before: [u32; 4],
    /// And after its last one.
    after: [u32; 4],
    /// The keys of each round.
    rounds: [[u32; 2]; ROUNDS],
}

/// The product of two bytes in the field of a polynomial.
fn product(a: u8, b: u8, field: u16) -> u8 {
    let product = (0..8).rev().fold(0u16, |sum, bit| {
        let doubled = (sum << 1) ^ if sum & 0x80 == 0 { 0 } else { field };
        doubled ^ if a >> bit & 1 == 0 { 0 } else { b.into() }
    });
    product.to_le_bytes()[0]
}

/// The permutation q0 or q1.
fn permuted(which: usize, x: u8) -> u8 {
    let tables = &NIBBLES[which % 2];
    let looked_up = |table: usize, nibble: u8| tables[table % 4][usize::from(nibble % 16)];
    // A nibble rotated by one, times eight, and so on: both steps mix alike.
    let mixed = |a: u8, b: u8| (a ^ b, (a ^ (b >> 1 | b << 3) ^ (a << 3)) & 15);
    let (a, b) = mixed(x >> 4, x & 15);
    let (a, b) = mixed(looked_up(0, a), looked_up(1, b));
    looked_up(3, b) << 4 | looked_up(2, a)
}

/// What the byte at place `column` of a word becomes in the function h, with the words `keys`, the first
/// of which is used last.
fn column(column: usize, x: u8, keys: &[[u8; 4]]) -> u32 {
    let column = column % 4;
    let order = ORDER[column].iter().skip(4_usize.saturating_sub(keys.len()));
    let keys = keys.iter().rev().map(|key| key[column]).chain([0]);
    let y = order.zip(keys).fold(x, |y, (which, key)| permuted(*which, y) ^ key);
    u32::from_le_bytes(MDS[column].map(|times| product(times, y, MDS_FIELD)))
}

/// The function h.
fn h(x: u32, keys: &[[u8; 4]]) -> u32 {
    x.to_le_bytes().into_iter().enumerate().fold(0, |sum, (at, byte)| sum ^ column(at, byte, keys))
}

impl Twofish {
    /// Takes keys of 16, 24 and 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        if !matches!(key.len(), 16 | 24 | 32) {
            return None;
        }
        let (words, _) = key.as_chunks::<4>();
        let every_other = |first| {
            let words = words.iter().skip(first).step_by(2);
            Zeroizing::new(words.copied().collect::<Vec<_>>())
        };
        let (even, odd) = (every_other(0), every_other(1));
        let (pairs, _) = key.as_chunks::<8>();
        let s = pairs.iter().rev().map(|pair| {
            RS.map(|row| {
                let products = row.iter().zip(pair).map(|(a, b)| product(*a, *b, RS_FIELD));
                products.fold(0, |sum, product| sum ^ product)
            })
        });
        let s = Zeroizing::new(s.collect::<Vec<_>>());
        let subkeys = |index: u32| {
            let a = h(RHO.wrapping_mul(2 * index), &even);
            let b = h(RHO.wrapping_mul(2 * index + 1), &odd).rotate_left(8);
            let sum = a.wrapping_add(b);
            [sum, sum.wrapping_add(b).rotate_left(9)]
        };
        let four = |[a, b]: [u32; 2], [c, d]: [u32; 2]| [a, b, c, d];
        let mut twofish = Twofish {
            tables: [[0; 256]; 4],
            before: four(subkeys(0), subkeys(1)),
            after: four(subkeys(2), subkeys(3)),
            rounds: [[0; 2]; ROUNDS],
        };
        for (index, round) in (4..).zip(&mut twofish.rounds) {
            *round = subkeys(index);
        }
        for (at, table) in twofish.tables.iter_mut().enumerate() {
            for (x, entry) in (0..=255).zip(table) {
                *entry = column(at, x, &s);
            }
        }
        Some(twofish)
    }

    /// The function F of two words, with a round's keys.
    #[inline(always)]
    fn f(&self, x: u32, y: u32, keys: &[u32; 2]) -> [u32; 2] {
        let look_up = |bytes: [u8; 4]| {
            let looked_up = self.tables.iter().zip(bytes).map(|(t, byte)| t[usize::from(byte)]);
            looked_up.fold(0, |sum, word| sum ^ word)
        };
        let t0 = look_up(x.to_le_bytes());
        let t1 = look_up(y.rotate_left(8).to_le_bytes());
        let sum = t0.wrapping_add(t1);
        [sum.wrapping_add(keys[0]), sum.wrapping_add(t1).wrapping_add(keys[1])]
    }

    /// Encrypts blocks side by side.
    #[inline(always)]
    fn encrypt<const N: usize>(&self, blocks: [Block; N]) -> [Block; N] {
        let mut blocks = blocks.map(|block| combined(words(&block), self.before));
        let (pairs, _) = self.rounds.as_chunks();
        for [first, second] in pairs {
            for [a, b, c, d] in &mut blocks {
                let [f0, f1] = self.f(*a, *b, first);
                (*c, *d) = ((*c ^ f0).rotate_right(1), d.rotate_left(1) ^ f1);
                let [f0, f1] = self.f(*c, *d, second);
                (*a, *b) = ((*a ^ f0).rotate_right(1), b.rotate_left(1) ^ f1);
            }
        }
        blocks.map(|[a, b, c, d]| block(combined([c, d, a, b], self.after)))
    }

    /// Decrypts blocks side by side.
    #[inline(always)]
    fn decrypt<const N: usize>(&self, blocks: [Block; N]) -> [Block; N] {
        let mut blocks = blocks.map(|block| {
            let [c, d, a, b] = combined(words(&block), self.after);
            [a, b, c, d]
        });
        let (pairs, _) = self.rounds.as_chunks();
        for [first, second] in pairs.iter().rev() {
            for [a, b, c, d] in &mut blocks {
                let [f0, f1] = self.f(*c, *d, second);
                (*a, *b) = (a.rotate_left(1) ^ f0, (*b ^ f1).rotate_right(1));
                let [f0, f1] = self.f(*a, *b, first);
                (*c, *d) = (c.rotate_left(1) ^ f0, (*d ^ f1).rotate_right(1));
            }
        }
        blocks.map(|words| block(combined(words, self.before)))
    }
}

/// The little-endian words of a block.
#[inline(always)]
fn words(block: &Block) -> [u32; 4] {
    let (words, _) = block.as_chunks::<4>();
    std::array::from_fn(|i| words.get(i).map_or(0, |word| u32::from_le_bytes(*word)))
}

#[inline(always)]
fn block(words: [u32; 4]) -> Block {
    let mut block = Block::default();
    let (bytes, _) = block.as_chunks_mut::<4>();
    bytes.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    block
}

#[inline(always)]
fn combined(words: [u32; 4], keys: [u32; 4]) -> [u32; 4] {
    std::array::from_fn(|i| words[i] ^ keys[i])
}

impl Drop for Twofish {
    fn drop(&mut self) {
        self.tables.zeroize();
        self.before.zeroize();
        self.after.zeroize();
        self.rounds.zeroize();
    }
}

impl BlockSizeUser for Twofish {
    type BlockSize = U16;
}

/// Two blocks side by side wait less for tables than one.
impl ParBlocksSizeUser for Twofish {
    type ParBlocksSize = U2;
}

impl BlockCipherEncrypt for Twofish {
    #[inline(always)]
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherEncBackend for Twofish {
    #[inline(always)]
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block>) {
        [*block.get_out()] = self.encrypt([*block.get_in()]);
    }

    #[inline(always)]
    fn encrypt_par_blocks(&self, mut blocks: InOut<'_, '_, ParBlocks<Self>>) {
        blocks.get_out().0 = self.encrypt(blocks.get_in().0);
    }
}

impl BlockCipherDecrypt for Twofish {
    #[inline(always)]
    fn decrypt_with_backend(&self, f: impl BlockCipherDecClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherDecBackend for Twofish {
    #[inline(always)]
    fn decrypt_block(&self, mut block: InOut<'_, '_, Block>) {
        [*block.get_out()] = self.decrypt([*block.get_in()]);
    }

    #[inline(always)]
    fn decrypt_par_blocks(&self, mut blocks: InOut<'_, '_, ParBlocks<Self>>) {
        blocks.get_out().0 = self.decrypt(blocks.get_in().0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twofish::cipher::KeyInit;

    use super::*;

    fn encrypted(key: &[u8]) -> Block {
        let twofish = Twofish::new(key).unwrap();
        let mut blocks = [Block::default()];
        twofish.encrypt_blocks(&mut blocks);
        let encrypted = blocks[0];
        twofish.decrypt_blocks(&mut blocks);
        assert_eq!(blocks[0], Block::default());
        encrypted
    }

    #[test]
    fn the_papers_vectors_come_out() {
        // Appendix A.1 and A.2: keys of 128, 192 and 256 bits.
        let key: Vec<u8> = [0x0123_4567_89ab_cdef_u64, 0xfedc_ba98_7654_3210]
            .into_iter()
            .chain([0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff])
            .flat_map(u64::to_be_bytes)
            .collect();
        for (key, expected) in [
            (&[0; 16][..], 0x9f58_9f5c_f612_2c32_b6bf_ec2f_2ae8_c35a_u128),
            (&key[..24], 0xcfd1_d2e5_a9be_9cdf_501f_13b8_92bd_2248),
            (&key[..], 0x3752_7be0_0523_34b8_9f0c_fcca_e87c_fa20),
        ] {
            assert_eq!(encrypted(key).0, expected.to_be_bytes());
        }
        for len in [0, 8, 17, 40] {
            assert!(Twofish::new(&vec![0; len]).is_none(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_cipher_that_the_crate_twofish_has(
            key in any::<[u8; 32]>(),
            len in proptest::sample::select(&[16usize, 24, 32]),
            blocks in any::<[[u8; 16]; 5]>(),
        ) {
            let theirs = twofish::Twofish::new_from_slice(&key[..len]).unwrap();
            let ours = Twofish::new(&key[..len]).unwrap();
            let plain = blocks.map(Block::from);
            let (mut a, mut b) = (plain, plain);
            theirs.encrypt_blocks(&mut a);
            ours.encrypt_blocks(&mut b);
            prop_assert_eq!(a, b);
            ours.decrypt_blocks(&mut b);
            prop_assert_eq!(b, plain);
        }
    }
}
