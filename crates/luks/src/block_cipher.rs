// SPDX-License-Identifier: Apache-2.0
//! Block ciphers of 16 bytes, by name and with a key.
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use serpent::Serpent;
use twofish::Twofish;

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
            (Algorithm::Twofish, 16 | 24 | 32) => {
                BlockCipher::Twofish(Box::new(Twofish::new_from_slice(key).ok()?))
            }
            _ => return None,
        })
    }

    pub(crate) fn encrypt(&self, blocks: &mut [[u8; BLOCK]]) {
        let blocks = Block::cast_slice_from_core_mut(blocks);
        with!(self, keyed => keyed.encrypt_blocks(blocks));
    }

    pub(crate) fn encrypt_one(&self, block: &mut [u8; BLOCK]) {
        let block = block.into();
        with!(self, keyed => keyed.encrypt_block(block));
    }

    pub(crate) fn decrypt(&self, blocks: &mut [[u8; BLOCK]]) {
        let blocks = Block::cast_slice_from_core_mut(blocks);
        with!(self, keyed => keyed.decrypt_blocks(blocks));
    }
}
