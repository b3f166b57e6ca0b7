// SPDX-License-Identifier: Apache-2.0
//! A new header of version 1, with a random key that the first slot has.
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::cipher::Cipher;
use crate::digest::Digest;
use crate::header::{HEADER_LEN, Header, Slot};
use crate::kdf::MAX_ITERATIONS;
use crate::sector::{SECTOR, SectorCipher};
use crate::{Error, Secret, split};

/// How many stripes a key is split into (specification 2.4).
const STRIPES: u32 = 4000;
/// Header, key materials, and payload begin at multiples of it, in bytes.
const ALIGNMENT: usize = 4096;
/// The fewest rounds of PBKDF2 (specification 4.1).
const MIN_ITERATIONS: u32 = 1000;

/// How a header is made. The default is that of `qemu-img` and `cryptsetup`.
#[derive(Clone, Debug)]
pub struct Format {
    /// The algorithm.
    pub cipher: Cipher,
    /// The length of the key in bytes.
    pub key_len: usize,
    /// The hash.
    pub digest: Digest,
    /// The rounds that a passphrase takes; by default what takes this machine two seconds.
    pub iterations: Option<u32>,
}

impl Default for Format {
    fn default() -> Self {
        Format { cipher: Cipher::AES_XTS, key_len: 64, digest: Digest::Sha256, iterations: None }
    }
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|e| Error::Random(e.to_string()))
}

/// The rounds that take two seconds.
fn measured(digest: Digest, key_len: usize) -> u32 {
    const WANTED: Duration = Duration::from_secs(2);
    let mut key = Zeroizing::new(vec![0; key_len]);
    let mut rounds = MIN_ITERATIONS;
    loop {
        let start = Instant::now();
        digest.pbkdf2(b"measure", &[0; 32], rounds, &mut key);
        let took = start.elapsed();
        if took > Duration::from_millis(50) || rounds >= MAX_ITERATIONS / 2 {
            let wanted = u128::from(rounds) * WANTED.as_micros() / took.as_micros().max(1);
            let wanted = u32::try_from(wanted).unwrap_or(MAX_ITERATIONS);
            return wanted.clamp(MIN_ITERATIONS, MAX_ITERATIONS);
        }
        rounds *= 2;
    }
}

/// Makes a header, and the cipher that it holds the key of. Returned are its bytes, which include
/// all key materials; the payload begins where they end.
///
/// # Errors
/// When the key's length does not fit, and when there are no random numbers.
pub fn format(options: &Format, passphrase: &Secret) -> Result<(Vec<u8>, SectorCipher), Error> {
    let mut key = Zeroizing::new(vec![0; options.key_len]);
    random(&mut key)?;
    let cipher = SectorCipher::new(options.cipher, &key)?;
    let iterations = match options.iterations {
        Some(iterations) => iterations.clamp(MIN_ITERATIONS, MAX_ITERATIONS),
        None => measured(options.digest, options.key_len),
    };
    let material_len = (options.key_len * STRIPES as usize).next_multiple_of(ALIGNMENT);
    let sectors = |bytes: usize| u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX);
    let first = HEADER_LEN.next_multiple_of(ALIGNMENT);
    let offset = |number: usize| sectors(first + number * material_len);
    let slot = |number| Slot {
        enabled: number == 0,
        iterations: if number == 0 { iterations } else { 0 },
        salt: [0; 32],
        offset: offset(number),
        stripes: STRIPES,
    };
    let mut header = Header {
        cipher: options.cipher,
        digest: options.digest,
        payload_offset: offset(8),
        key_len: options.key_len,
        key_digest: [0; 20],
        key_digest_salt: [0; 32],
        key_digest_iterations: (iterations / 8).max(MIN_ITERATIONS),
        uuid: uuid::Uuid::new_v4().to_string(),
        slots: std::array::from_fn(slot),
    };
    random(&mut header.key_digest_salt)?;
    random(&mut header.slots[0].salt)?;
    header.key_digest = header.digest_of(&key);
    let mut material = Zeroizing::new(vec![0; material_len]);
    let split_len = options.key_len * STRIPES as usize;
    let (split_key, _) = material.split_at_mut(split_len);
    random(split_key)?;
    split::split(&key, split_key, options.digest);
    let slot = &header.slots[0];
    let encrypted = split_len.next_multiple_of(SECTOR);
    let (whole, _) = material.split_at_mut(encrypted);
    header.slot_cipher(slot, passphrase)?.encrypt(0, whole);
    let mut bytes = header.to_bytes();
    bytes.resize(first, 0);
    bytes.extend_from_slice(&material);
    bytes.resize(first + 8 * material_len, 0);
    Ok((bytes, cipher))
}
