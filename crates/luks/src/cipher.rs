// SPDX-License-Identifier: Apache-2.0
//! Sectors are encrypted and decrypted in place, each by its number. XTS is that of IEEE 1619,
//! written over blocks in batches, which is what the processor's AES instructions are fast at.
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use zeroize::Zeroizing;

use crate::{Error, digest};

/// The length of a sector in bytes.
pub const SECTOR: usize = 512;
const BLOCK: usize = 16;
const BLOCKS: usize = SECTOR / BLOCK;

/// How the blocks of a sector are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each is combined with a tweak of its own.
    Xts,
    /// Each is combined with the one before.
    Cbc,
}

/// What a sector's number becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iv {
    /// Its low 32 bits, little endian.
    Plain,
    /// 64 bits, little endian.
    Plain64,
    /// These encrypted with the SHA-256 of the key.
    EssivSha256,
}

/// An algorithm of AES, without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cipher {
    /// How blocks are joined.
    pub mode: Mode,
    /// What the first is combined with.
    pub iv: Iv,
}

const MODES: [(&str, Cipher); 6] = [
    ("xts-plain64", Cipher { mode: Mode::Xts, iv: Iv::Plain64 }),
    ("xts-plain", Cipher { mode: Mode::Xts, iv: Iv::Plain }),
    ("xts-essiv:sha256", Cipher { mode: Mode::Xts, iv: Iv::EssivSha256 }),
    ("cbc-essiv:sha256", Cipher { mode: Mode::Cbc, iv: Iv::EssivSha256 }),
    ("cbc-plain64", Cipher { mode: Mode::Cbc, iv: Iv::Plain64 }),
    ("cbc-plain", Cipher { mode: Mode::Cbc, iv: Iv::Plain }),
];

impl Cipher {
    /// The name of its mode in a header.
    pub fn mode_name(self) -> &'static str {
        MODES.iter().find(|(_, cipher)| *cipher == self).map_or("", |(name, _)| name)
    }

    pub(crate) fn of_mode_name(name: &str) -> Option<Self> {
        MODES.iter().find(|(known, _)| *known == name).map(|(_, cipher)| *cipher)
    }

    /// All names, for messages.
    pub(crate) fn mode_names() -> String {
        MODES.map(|(name, _)| name).join(", ")
    }

    /// The lengths, in bytes, that its key may have.
    pub fn key_lens(self) -> &'static [usize] {
        match self.mode {
            Mode::Xts => &[32, 64],
            Mode::Cbc => &[16, 24, 32],
        }
    }
}

/// AES with a key.
enum Aes {
    K128(Aes128),
    K192(Aes192),
    K256(Aes256),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Aes::K128(Aes128::new_from_slice(key).ok()?),
            24 => Aes::K192(Aes192::new_from_slice(key).ok()?),
            32 => Aes::K256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    fn encrypt(&self, blocks: &mut [[u8; BLOCK]]) {
        let blocks = Block::cast_slice_from_core_mut(blocks);
        match self {
            Aes::K128(aes) => aes.encrypt_blocks(blocks),
            Aes::K192(aes) => aes.encrypt_blocks(blocks),
            Aes::K256(aes) => aes.encrypt_blocks(blocks),
        }
    }

    fn encrypt_one(&self, block: &mut [u8; BLOCK]) {
        let block = block.into();
        match self {
            Aes::K128(aes) => aes.encrypt_block(block),
            Aes::K192(aes) => aes.encrypt_block(block),
            Aes::K256(aes) => aes.encrypt_block(block),
        }
    }

    fn decrypt(&self, blocks: &mut [[u8; BLOCK]]) {
        let blocks = Block::cast_slice_from_core_mut(blocks);
        match self {
            Aes::K128(aes) => aes.decrypt_blocks(blocks),
            Aes::K192(aes) => aes.decrypt_blocks(blocks),
            Aes::K256(aes) => aes.decrypt_blocks(blocks),
        }
    }
}

/// A cipher with its key, which is wiped when it is dropped.
pub struct SectorCipher {
    cipher: Cipher,
    data: Aes,
    /// For the tweaks of XTS.
    tweak: Option<Aes>,
    /// For ESSIV.
    iv: Option<Aes>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl SectorCipher {
    /// # Errors
    /// When the key has a length that the cipher does not take.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Self, Error> {
        let wrong = || {
            let text = format!(
                "the key of aes-{} has {} bytes; they can be {:?}",
                cipher.mode_name(),
                key.len(),
                cipher.key_lens()
            );
            Error::Unsupported(text)
        };
        if !cipher.key_lens().contains(&key.len()) {
            return Err(wrong());
        }
        let (data, tweak) = match cipher.mode {
            Mode::Xts => {
                let (data, tweak) = key.split_at(key.len() / 2);
                (data, Some(Aes::new(tweak).ok_or_else(wrong)?))
            }
            Mode::Cbc => (key, None),
        };
        let iv = match cipher.iv {
            Iv::EssivSha256 => {
                let hash = Zeroizing::new(digest::sha256(key));
                Some(Aes::new(&*hash).ok_or_else(wrong)?)
            }
            Iv::Plain | Iv::Plain64 => None,
        };
        Ok(SectorCipher { cipher, data: Aes::new(data).ok_or_else(wrong)?, tweak, iv })
    }

    /// The cipher of qcow2's encryption method 1: AES-128 in CBC mode, the password cut or padded
    /// with zeroes to 16 bytes as key.
    ///
    /// # Errors
    /// None in practice.
    pub fn qcow2_aes(password: &[u8]) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; 16]);
        key.iter_mut().zip(password).for_each(|(byte, given)| *byte = *given);
        Self::new(Cipher { mode: Mode::Cbc, iv: Iv::Plain64 }, &*key)
    }

    /// Encrypts whole sectors (what is beyond them is left alone), the first of which has the
    /// number `sector`.
    pub fn encrypt(&self, sector: u64, data: &mut [u8]) {
        self.run(sector, data, Direction::Encrypt);
    }

    /// Decrypts them.
    pub fn decrypt(&self, sector: u64, data: &mut [u8]) {
        self.run(sector, data, Direction::Decrypt);
    }

    fn run(&self, first: u64, data: &mut [u8], direction: Direction) {
        let (blocks, _) = data.as_chunks_mut::<BLOCK>();
        let (sectors, _) = blocks.as_chunks_mut::<BLOCKS>();
        for (number, blocks) in (0u64..).zip(sectors) {
            let iv = self.iv(first.wrapping_add(number));
            match &self.tweak {
                Some(tweak) => xts(&self.data, tweak, iv, blocks, direction),
                None if direction == Direction::Encrypt => cbc_encrypt(&self.data, iv, blocks),
                None => cbc_decrypt(&self.data, iv, blocks),
            }
        }
    }

    fn iv(&self, sector: u64) -> [u8; BLOCK] {
        let number = match self.cipher.iv {
            Iv::Plain => sector & u64::from(u32::MAX),
            Iv::Plain64 | Iv::EssivSha256 => sector,
        };
        let mut iv = [u128::from(number).to_le_bytes()];
        if let Some(aes) = &self.iv {
            aes.encrypt(&mut iv);
        }
        iv[0]
    }
}

impl std::fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SectorCipher(aes-{})", self.cipher.mode_name())
    }
}

fn xor(block: &mut [u8; BLOCK], other: &[u8; BLOCK]) {
    *block = (u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(*other)).to_ne_bytes();
}

fn xts(
    data: &Aes,
    tweak: &Aes,
    iv: [u8; BLOCK],
    blocks: &mut [[u8; BLOCK]; BLOCKS],
    direction: Direction,
) {
    let mut first = [iv];
    tweak.encrypt(&mut first);
    let mut power = u128::from_le_bytes(first[0]);
    let mut tweaks = [[0; BLOCK]; BLOCKS];
    for (tweak, block) in tweaks.iter_mut().zip(blocks.iter_mut()) {
        *tweak = power.to_le_bytes();
        // The next power of the field's generator.
        power = (power << 1) ^ ((power >> 127) * 0x87);
        xor(block, tweak);
    }
    match direction {
        Direction::Encrypt => data.encrypt(blocks),
        Direction::Decrypt => data.decrypt(blocks),
    }
    blocks.iter_mut().zip(&tweaks).for_each(|(block, tweak)| xor(block, tweak));
}

fn cbc_encrypt(data: &Aes, iv: [u8; BLOCK], blocks: &mut [[u8; BLOCK]; BLOCKS]) {
    let mut before = iv;
    for block in blocks {
        xor(block, &before);
        data.encrypt_one(block);
        before = *block;
    }
}

fn cbc_decrypt(data: &Aes, iv: [u8; BLOCK], blocks: &mut [[u8; BLOCK]; BLOCKS]) {
    let encrypted = *blocks;
    data.decrypt(blocks);
    let before = std::iter::once(&iv).chain(&encrypted);
    blocks.iter_mut().zip(before).for_each(|(block, before)| xor(block, before));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
    }

    #[test]
    fn xts_gives_vectors_of_ieee_1619() {
        // Vector 4: a data unit of 512 bytes, number 0; vector 10: AES-256, number 0xff.
        let plain: Vec<u8> = (0..=255).cycle().take(SECTOR).collect();
        for (key, number, begin) in [
            (
                "2718281828459045235360287471352631415926535897932384626433832795",
                0,
                "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c",
            ),
            (
                "2718281828459045235360287471352662497757247093699959574966967627\
                 3141592653589793238462643383279502884197169399375105820974944592",
                0xff,
                "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
            ),
        ] {
            let cipher = Cipher { mode: Mode::Xts, iv: Iv::Plain64 };
            let cipher = SectorCipher::new(cipher, &hex(key)).unwrap();
            let mut data = plain.clone();
            cipher.encrypt(number, &mut data);
            assert_eq!(data[..32], hex(begin), "{number}");
            cipher.decrypt(number, &mut data);
            assert_eq!(data, plain);
        }
    }

    #[test]
    fn a_key_of_a_wrong_length_is_refused() {
        let cipher = Cipher { mode: Mode::Xts, iv: Iv::Plain64 };
        let text = SectorCipher::new(cipher, &[0; 48]).unwrap_err().to_string();
        assert_eq!(text, "the key of aes-xts-plain64 has 48 bytes; they can be [32, 64]");
    }

    #[test]
    fn plain_ivs_wrap_at_32_bits_and_others_do_not() {
        for (iv, same) in [(Iv::Plain, true), (Iv::Plain64, false), (Iv::EssivSha256, false)] {
            let cipher = SectorCipher::new(Cipher { mode: Mode::Cbc, iv }, &[7; 32]).unwrap();
            let (mut low, mut high) = ([1; SECTOR], [1; SECTOR]);
            cipher.encrypt(5, &mut low);
            cipher.encrypt(5 + (1 << 32), &mut high);
            assert_eq!(low == high, same, "{iv:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encrypted_in_one_go_is_decrypted_by_the_sector(
            which in 0..MODES.len(),
            longest in any::<bool>(),
            first in any::<u64>(),
            mut data in proptest::collection::vec(any::<u8>(), 0..4 * SECTOR),
        ) {
            let cipher = MODES[which].1;
            let lens = cipher.key_lens();
            let key: Vec<u8> = (1..).take(lens[if longest { lens.len() - 1 } else { 0 }]).collect();
            let cipher = SectorCipher::new(cipher, &key).unwrap();
            let plain = data.clone();
            cipher.encrypt(first, &mut data);
            let whole = data.len() / SECTOR * SECTOR;
            prop_assert_eq!(&data[whole..], &plain[whole..]);
            for (number, sector) in (0u64..).zip(data[..whole].chunks_mut(SECTOR)) {
                cipher.decrypt(first.wrapping_add(number), sector);
            }
            prop_assert_eq!(data, plain);
        }
    }
}
