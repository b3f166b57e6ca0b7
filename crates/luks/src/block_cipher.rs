// SPDX-License-Identifier: Apache-2.0
//! Block ciphers of 16 bytes, by name and with a key. A mode of operation is [`Work`]: it is compiled
//! for each cipher, and for each set of instructions that the crate `aes` knows, and runs with what that
//! crate has found the processor to have. So its loops over blocks use the wide registers, too.
use aes::cipher::array::{Array, ArraySize};
use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit, ParBlocks,
};
use aes::{Aes128, Aes192, Aes256};
use serpent::Serpent;

use crate::twofish::Twofish;

pub(crate) use aes::Block;

pub(crate) const BLOCK: usize = 16;

/// A block cipher, without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// FIPS 197.
    Aes,
    /// Of Anderson, Biham and Knudsen.
    Serpent,
    /// Of Schneier and others.
    Twofish,
}

const NAMES: [(Algorithm, &str); 3] =
    [(Algorithm::Aes, "aes"), (Algorithm::Serpent, "serpent"), (Algorithm::Twofish, "twofish")];

impl Algorithm {
    /// All of them.
    pub const ALL: &[Algorithm] = &[Algorithm::Aes, Algorithm::Serpent, Algorithm::Twofish];

    /// The name in a header.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(algorithm, _)| *algorithm == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        NAMES.map(|(_, name)| name).join(", ")
    }
}

/// A block cipher with its key, which is wiped when it is dropped.
pub(crate) enum BlockCipher {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
    Serpent(Box<Serpent>),
    Twofish(Box<Twofish>),
}

/// A block cipher that encrypts, or one that decrypts.
pub(crate) trait Keyed {
    /// How many blocks it changes in one go.
    type AtOnce: ArraySize;

    /// Changes so many.
    fn change(&self, blocks: &mut Array<Block, Self::AtOnce>);

    /// Changes fewer.
    fn change_fewer(&self, blocks: &mut [Block]);

    /// Changes any number of them.
    #[inline(always)]
    fn change_all(&self, blocks: &mut [Block]) {
        let (groups, rest) = Array::slice_as_chunks_mut(blocks);
        groups.iter_mut().for_each(|group| self.change(group));
        self.change_fewer(rest);
    }
}

/// What is done with a block cipher. All of it has to be inlined into the function that may use the
/// processor's instructions: hence `#[inline(always)]` down to the loops.
pub(crate) trait Work {
    /// Does it.
    fn run<C: Keyed>(self, cipher: &C);
}

/// [`Work`] as the crate `cipher` takes it.
struct Closure<W>(W);

impl<W> BlockSizeUser for Closure<W> {
    type BlockSize = U16;
}

/// Either direction of what the crate `cipher` hands to a closure.
macro_rules! direction {
    ($name:ident, $backend:ident, $closure:ident, $change:ident, $change_fewer:ident) => {
        struct $name<'a, B>(&'a B);

        impl<B: $backend<BlockSize = U16>> Keyed for $name<'_, B> {
            type AtOnce = B::ParBlocksSize;

            #[inline(always)]
            fn change(&self, blocks: &mut ParBlocks<B>) {
                self.0.$change(blocks);
            }

            #[inline(always)]
            fn change_fewer(&self, blocks: &mut [Block]) {
                self.0.$change_fewer(blocks);
            }
        }

        impl<W: Work> $closure for Closure<W> {
            #[inline(always)]
            fn call<B: $backend<BlockSize = U16>>(self, backend: &B) {
                self.0.run(&$name(backend));
            }
        }
    };
}

direction!(
    Encrypting,
    BlockCipherEncBackend,
    BlockCipherEncClosure,
    encrypt_par_blocks_inplace,
    encrypt_tail_blocks_inplace
);
direction!(
    Decrypting,
    BlockCipherDecBackend,
    BlockCipherDecClosure,
    decrypt_par_blocks_inplace,
    decrypt_tail_blocks_inplace
);

/// Does the same with whichever it is.
macro_rules! with {
    ($cipher:expr, $keyed:ident => $what:expr) => {
        match $cipher {
            BlockCipher::Aes128($keyed) => $what,
            BlockCipher::Aes192($keyed) => $what,
            BlockCipher::Aes256($keyed) => $what,
            BlockCipher::Serpent($keyed) => $what,
            BlockCipher::Twofish($keyed) => $what,
        }
    };
}

impl BlockCipher {
    /// Takes keys of 16, 24 and 32 bytes.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        Some(match (algorithm, key.len()) {
            (Algorithm::Aes, 16) => BlockCipher::Aes128(Aes128::new_from_slice(key).ok()?),
            (Algorithm::Aes, 24) => BlockCipher::Aes192(Aes192::new_from_slice(key).ok()?),
            (Algorithm::Aes, 32) => BlockCipher::Aes256(Aes256::new_from_slice(key).ok()?),
            (Algorithm::Serpent, 16 | 24 | 32) => {
                BlockCipher::Serpent(Box::new(Serpent::new_from_slice(key).ok()?))
            }
            (Algorithm::Twofish, _) => BlockCipher::Twofish(Box::new(Twofish::new(key)?)),
            _ => return None,
        })
    }

    /// Does `work` with the cipher that encrypts.
    pub(crate) fn encrypt_with(&self, work: impl Work) {
        with!(self, keyed => keyed.encrypt_with_backend(Closure(work)));
    }

    /// Does `work` with the cipher that decrypts.
    pub(crate) fn decrypt_with(&self, work: impl Work) {
        with!(self, keyed => keyed.decrypt_with_backend(Closure(work)));
    }

    /// Encrypts blocks each for itself.
    pub(crate) fn encrypt(&self, blocks: &mut [Block]) {
        with!(self, keyed => keyed.encrypt_blocks(blocks));
    }
}

/// Combines a block with another one.
#[inline(always)]
pub(crate) fn xor(block: &mut Block, other: &Block) {
    block.0 = (u128::from_ne_bytes(block.0) ^ u128::from_ne_bytes(other.0)).to_ne_bytes();
}

/// Combines each block with the other one at its place.
#[inline(always)]
pub(crate) fn xor_all(blocks: &mut [Block], others: &[Block]) {
    blocks.iter_mut().zip(others).for_each(|(block, other)| xor(block, other));
}
