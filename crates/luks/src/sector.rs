// SPDX-License-Identifier: Apache-2.0
//! Sectors are encrypted and decrypted in place, each by its number. XTS is that of IEEE 1619,
//! written over blocks in batches of many sectors, which is what the processor's AES instructions
//! are fast at.
use zeroize::Zeroizing;

use crate::block_cipher::{Algorithm, BLOCK, BlockCipher};
use crate::cipher::{Cipher, Iv, Mode};
use crate::{Error, digest};

/// The length in bytes by which sectors are counted, and which they have where nothing else is said.
pub const SECTOR: usize = 512;
/// The longest sector, in bytes.
pub const MAX_SECTOR: usize = 4096;
/// Blocks that are worked on at once: a multiple of those of any sector. An implementation of AES may
/// do 8, 30 or 64 in one go, and what is left over one by one.
const BATCH: usize = 512;
/// The most sectors of a batch.
const BATCH_SECTORS: usize = BATCH * BLOCK / SECTOR;

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

type Block = [u8; BLOCK];

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
        let (blocks, _) = data.as_chunks_mut::<BLOCK>();
        let whole = blocks.len() - blocks.len() % self.blocks;
        let Some(blocks) = blocks.get_mut(..whole) else { return };
        if let Some(tweak) = &self.tweak {
            return self.xts(tweak, first, blocks, direction);
        }
        for (number, sector) in (0u64..).zip(blocks.chunks_exact_mut(self.blocks)) {
            let iv = self.iv(self.number(first, number));
            match direction {
                Direction::Encrypt => cbc_encrypt(&self.data, iv, sector),
                Direction::Decrypt => cbc_decrypt(&self.data, iv, sector),
            }
        }
    }

    /// The number of the sector that is `index` behind the one of number `first`.
    fn number(&self, first: u64, index: u64) -> u64 {
        first.wrapping_add(index.wrapping_mul((self.sector() / SECTOR) as u64))
    }

    fn iv(&self, sector: u64) -> Block {
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

    fn xts(&self, tweak: &BlockCipher, first: u64, blocks: &mut [Block], direction: Direction) {
        let mut tweaks = [[0; BLOCK]; BATCH];
        let mut done = 0;
        for batch in blocks.chunks_mut(BATCH) {
            // The tweaks of the sectors' first blocks come out of one go, too.
            let mut starts = [[0; BLOCK]; BATCH_SECTORS];
            let sectors = batch.len() / self.blocks;
            let starts = starts.get_mut(..sectors).unwrap_or_default();
            for (index, start) in (done..).zip(starts.iter_mut()) {
                *start = self.iv(self.number(first, index));
            }
            done += sectors as u64;
            tweak.encrypt(starts);
            for (tweaks, start) in tweaks.chunks_exact_mut(self.blocks).zip(starts) {
                let mut power = u128::from_le_bytes(*start);
                for tweak in tweaks {
                    *tweak = power.to_le_bytes();
                    // The next power of the field's generator.
                    power = (power << 1) ^ ((power >> 127) * 0x87);
                }
            }
            xor_all(batch, &tweaks);
            match direction {
                Direction::Encrypt => self.data.encrypt(batch),
                Direction::Decrypt => self.data.decrypt(batch),
            }
            xor_all(batch, &tweaks);
        }
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

fn xor(block: &mut Block, other: &Block) {
    *block = (u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(*other)).to_ne_bytes();
}

fn xor_all(blocks: &mut [Block], others: &[Block]) {
    blocks.iter_mut().zip(others).for_each(|(block, other)| xor(block, other));
}

fn cbc_encrypt(data: &BlockCipher, iv: Block, blocks: &mut [Block]) {
    let mut before = iv;
    for block in blocks {
        xor(block, &before);
        data.encrypt_one(block);
        before = *block;
    }
}

fn cbc_decrypt(data: &BlockCipher, iv: Block, blocks: &mut [Block]) {
    let mut before = [iv; MAX_SECTOR / BLOCK + 1];
    before.iter_mut().skip(1).zip(&*blocks).for_each(|(before, block)| *before = *block);
    data.decrypt(blocks);
    xor_all(blocks, &before);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cipher::MODES;

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
    fn a_sector_of_another_length_is_one_unit_and_is_counted_by_512_bytes() {
        let key: Vec<u8> = (1..=64).collect();
        let [short, long] =
            [512, 4096].map(|len| SectorCipher::with_sectors(Cipher::AES_XTS, &key, len).unwrap());
        let (mut by_short, mut by_long) = ([7; 2 * MAX_SECTOR], [7; 2 * MAX_SECTOR]);
        short.encrypt(8, &mut by_short);
        long.encrypt(8, &mut by_long);
        // The second long sector has the number that the ninth short one has.
        for at in [0, MAX_SECTOR] {
            assert_eq!(by_short[at..at + SECTOR], by_long[at..at + SECTOR]);
        }
        assert_ne!(by_short[SECTOR..2 * SECTOR], by_long[SECTOR..2 * SECTOR]);
        assert!(SectorCipher::with_sectors(Cipher::AES_XTS, &key, 8192).is_err());
        assert!(SectorCipher::with_sectors(Cipher::AES_XTS, &key, 520).is_err());
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
            sector in proptest::sample::select(&[512usize, 1024, 2048, 4096]),
            first in any::<u64>(),
            mut data in proptest::collection::vec(any::<u8>(), 0..6 * MAX_SECTOR),
        ) {
            let cipher = Cipher::of_mode_name(algorithm, MODES[which].0).unwrap();
            let lens = cipher.key_lens();
            let key: Vec<u8> = (1..).take(lens[if longest { lens.len() - 1 } else { 0 }]).collect();
            let cipher = SectorCipher::with_sectors(cipher, &key, sector).unwrap();
            let plain = data.clone();
            cipher.encrypt(first, &mut data);
            let whole = data.len() / sector * sector;
            prop_assert_eq!(&data[whole..], &plain[whole..]);
            for (number, bytes) in (0u64..).zip(data[..whole].chunks_mut(sector)) {
                let number = number * (sector / SECTOR) as u64;
                cipher.decrypt(first.wrapping_add(number), bytes);
            }
            prop_assert_eq!(data, plain);
        }
    }
}
