// SPDX-License-Identifier: Apache-2.0
//! Sectors are encrypted and decrypted in place, each by its number, many of them in one go: that is
//! what processors with instructions for AES are fast at.
use zeroize::Zeroizing;

use crate::block_cipher::{Algorithm, BLOCK, Block, BlockCipher};
use crate::cipher::{Cipher, Iv, Mode};
use crate::xts::Xts;
use crate::{Error, cbc, digest};

/// The length in bytes by which sectors are counted, and which they have where nothing else is said.
pub const SECTOR: usize = 512;
/// The longest sector, in bytes.
pub const MAX_SECTOR: usize = 4096;
/// The blocks of the longest sector.
pub(crate) const MAX_BLOCKS: usize = MAX_SECTOR / BLOCK;
/// Sectors whose numbers are encrypted in one go.
const GROUP: usize = 64;

/// A cipher with its key, which is wiped when it is dropped.
pub struct SectorCipher {
    cipher: Cipher,
    /// Blocks of a sector.
    blocks: usize,
    data: BlockCipher,
    /// For the tweaks of XTS.
    tweak: Option<BlockCipher>,
    /// For ESSIV.
    iv: Option<BlockCipher>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl SectorCipher {
    /// A cipher of sectors of 512 bytes.
    ///
    /// # Errors
    /// When the key has a length that the cipher does not take.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Self, Error> {
        Self::with_sectors(cipher, key, SECTOR)
    }

    /// A cipher of sectors of another length, in bytes: 512, 1024, 2048 or 4096.
    ///
    /// # Errors
    /// When it has another one, or the key has a length that the cipher does not take.
    pub fn with_sectors(cipher: Cipher, key: &[u8], sector: usize) -> Result<Self, Error> {
        let wrong = || {
            let text = format!(
                "the key of {cipher} has {} bytes; they can be {:?}",
                key.len(),
                cipher.key_lens()
            );
            Error::Unsupported(text)
        };
        if !is_sector_len(sector) {
            return Err(Error::Unsupported(format!(
                "sectors of {sector} bytes; they can have 512, 1024, 2048 or 4096"
            )));
        }
        if !cipher.key_lens().contains(&key.len()) {
            return Err(wrong());
        }
        let keyed = |key: &[u8]| BlockCipher::new(cipher.algorithm, key).ok_or_else(wrong);
        let (data, tweak) = match cipher.mode {
            Mode::Xts => {
                let (data, tweak) = key.split_at(key.len() / 2);
                (data, Some(keyed(tweak)?))
            }
            Mode::Cbc => (key, None),
        };
        let iv = match cipher.iv {
            Iv::EssivSha256 => {
                let hash = Zeroizing::new(digest::sha256(key));
                Some(keyed(&*hash)?)
            }
            Iv::Plain | Iv::Plain64 => None,
        };
        Ok(SectorCipher { cipher, blocks: sector / BLOCK, data: keyed(data)?, tweak, iv })
    }

    /// The cipher of qcow2's encryption method 1: AES-128 in CBC mode, the password cut or padded
    /// with zeroes to 16 bytes as key.
    ///
    /// # Errors
    /// None in practice.
    pub fn qcow2_aes(password: &[u8]) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; 16]);
        key.iter_mut().zip(password).for_each(|(byte, given)| *byte = *given);
        let algorithm = Algorithm::Aes;
        Self::new(Cipher { algorithm, mode: Mode::Cbc, iv: Iv::Plain64 }, &*key)
    }

    /// The length of a sector in bytes.
    pub fn sector(&self) -> usize {
        self.blocks * BLOCK
    }

    /// Encrypts whole sectors (what is beyond them is left alone). The first has the number `first`,
    /// in units of 512 bytes whatever the length of a sector is, as the kernel counts them.
    pub fn encrypt(&self, first: u64, data: &mut [u8]) {
        self.run(first, data, Direction::Encrypt);
    }

    /// Decrypts them.
    pub fn decrypt(&self, first: u64, data: &mut [u8]) {
        self.run(first, data, Direction::Decrypt);
    }

    fn run(&self, first: u64, data: &mut [u8], direction: Direction) {
        let (blocks, _) = data.as_chunks_mut();
        let blocks = Block::cast_slice_from_core_mut(blocks);
        let mut number = first;
        for blocks in blocks.chunks_mut(GROUP * self.blocks) {
            let sectors = blocks.len() / self.blocks;
            let mut ivs = [Block::default(); GROUP];
            let ivs = ivs.get_mut(..sectors).unwrap_or_default();
            for iv in &mut *ivs {
                *iv = self.numbered(number);
                number = number.wrapping_add((self.sector() / SECTOR) as u64);
            }
            [&self.iv, &self.tweak].into_iter().flatten().for_each(|cipher| cipher.encrypt(ivs));
            let sector = self.blocks;
            let blocks = blocks.get_mut(..sectors * sector).unwrap_or_default();
            match (self.cipher.mode, direction) {
                (Mode::Xts, Direction::Encrypt) => {
                    self.data.encrypt_with(Xts { blocks, starts: ivs, sector });
                }
                (Mode::Xts, Direction::Decrypt) => {
                    self.data.decrypt_with(Xts { blocks, starts: ivs, sector });
                }
                (Mode::Cbc, Direction::Encrypt) => {
                    self.data.encrypt_with(cbc::Encrypt { blocks, ivs, sector });
                }
                (Mode::Cbc, Direction::Decrypt) => {
                    self.data.decrypt_with(cbc::Decrypt { blocks, ivs, sector });
                }
            }
        }
    }

    /// A sector's number as its first block is combined with it, before it is encrypted.
    fn numbered(&self, sector: u64) -> Block {
        let number = match self.cipher.iv {
            Iv::Plain => sector & u64::from(u32::MAX),
            Iv::Plain64 | Iv::EssivSha256 => sector,
        };
        u128::from(number).to_le_bytes().into()
    }
}

impl std::fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SectorCipher({}, {} bytes)", self.cipher, self.sector())
    }
}

/// Whether sectors can have so many bytes.
pub(crate) fn is_sector_len(len: usize) -> bool {
    len.is_power_of_two() && (SECTOR..=MAX_SECTOR).contains(&len)
}

#[cfg(test)]
mod tests;
