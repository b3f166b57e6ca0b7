// SPDX-License-Identifier: Apache-2.0
//! Sectors are encrypted and decrypted in place, each by its number. XTS is that of IEEE 1619,
//! written over blocks in batches, which is what the processor's AES instructions are fast at.
use zeroize::Zeroizing;

use crate::block_cipher::{Algorithm, BLOCK, BlockCipher};

use crate::{Error, digest};

/// The length of a sector in bytes.
pub const SECTOR: usize = 512;
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

/// How sectors are encrypted, without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cipher {
    /// What blocks are encrypted with.
    pub algorithm: Algorithm,
    /// How blocks are joined.
    pub mode: Mode,
    /// What the first is combined with.
    pub iv: Iv,
}

const MODES: [(&str, Mode, Iv); 6] = [
    ("xts-plain64", Mode::Xts, Iv::Plain64),
    ("xts-plain", Mode::Xts, Iv::Plain),
    ("xts-essiv:sha256", Mode::Xts, Iv::EssivSha256),
    ("cbc-essiv:sha256", Mode::Cbc, Iv::EssivSha256),
    ("cbc-plain64", Mode::Cbc, Iv::Plain64),
    ("cbc-plain", Mode::Cbc, Iv::Plain),
];

impl Cipher {
    /// AES in XTS mode, as `cryptsetup` and `qemu-img` have it where nothing else is asked for.
    pub const AES_XTS: Self =
        Cipher { algorithm: Algorithm::Aes, mode: Mode::Xts, iv: Iv::Plain64 };

    /// The name of its mode in a header.
    pub fn mode_name(self) -> &'static str {
        let is_meant = |row: &&(&str, Mode, Iv)| (row.1, row.2) == (self.mode, self.iv);
        MODES.iter().find(is_meant).map_or("", |row| row.0)
    }

    /// With the mode of that name.
    pub(crate) fn of_mode_name(algorithm: Algorithm, name: &str) -> Option<Self> {
        let &(_, mode, iv) = MODES.iter().find(|row| row.0 == name)?;
        Some(Cipher { algorithm, mode, iv })
    }

    /// All names, for messages.
    pub(crate) fn mode_names() -> String {
        MODES.map(|row| row.0).join(", ")
    }

    /// The lengths, in bytes, that its key may have.
    pub fn key_lens(self) -> &'static [usize] {
        match self.mode {
            Mode::Xts => &[32, 64],
            Mode::Cbc => &[16, 24, 32],
        }
    }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.algorithm.name(), self.mode_name())
    }
}

/// A cipher with its key, which is wiped when it is dropped.
pub struct SectorCipher {
    cipher: Cipher,
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
    /// # Errors
    /// When the key has a length that the cipher does not take.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Self, Error> {
        let wrong = || {
            let text = format!(
                "the key of {cipher} has {} bytes; they can be {:?}",
                key.len(),
                cipher.key_lens()
            );
            Error::Unsupported(text)
        };
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
        Ok(SectorCipher { cipher, data: keyed(data)?, tweak, iv })
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
        if let Some(cipher) = &self.iv {
            cipher.encrypt(&mut iv);
        }
        iv[0]
    }
}

impl std::fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SectorCipher({})", self.cipher)
    }
}

fn xor(block: &mut [u8; BLOCK], other: &[u8; BLOCK]) {
    *block = (u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(*other)).to_ne_bytes();
}

fn xts(
    data: &BlockCipher,
    tweak: &BlockCipher,
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

fn cbc_encrypt(data: &BlockCipher, iv: [u8; BLOCK], blocks: &mut [[u8; BLOCK]; BLOCKS]) {
    let mut before = iv;
    for block in blocks {
        xor(block, &before);
        data.encrypt_one(block);
        before = *block;
    }
}

fn cbc_decrypt(data: &BlockCipher, iv: [u8; BLOCK], blocks: &mut [[u8; BLOCK]; BLOCKS]) {
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
            let cipher = SectorCipher::new(Cipher::AES_XTS, &hex(key)).unwrap();
            let mut data = plain.clone();
            cipher.encrypt(number, &mut data);
            assert_eq!(data[..32], hex(begin), "{number}");
            cipher.decrypt(number, &mut data);
            assert_eq!(data, plain);
        }
    }

    #[test]
    fn a_key_of_a_wrong_length_is_refused() {
        let text = SectorCipher::new(Cipher::AES_XTS, &[0; 48]).unwrap_err().to_string();
        assert_eq!(text, "the key of aes-xts-plain64 has 48 bytes; they can be [32, 64]");
    }

    #[test]
    fn plain_ivs_wrap_at_32_bits_and_others_do_not() {
        for (iv, same) in [(Iv::Plain, true), (Iv::Plain64, false), (Iv::EssivSha256, false)] {
            let cipher =
                SectorCipher::new(Cipher { mode: Mode::Cbc, iv, ..Cipher::AES_XTS }, &[7; 32])
                    .unwrap();
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
            algorithm in proptest::sample::select(Algorithm::ALL),
            longest in any::<bool>(),
            first in any::<u64>(),
            mut data in proptest::collection::vec(any::<u8>(), 0..4 * SECTOR),
        ) {
            let cipher = Cipher::of_mode_name(algorithm, MODES[which].0).unwrap();
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
