// SPDX-License-Identifier: Apache-2.0
//! Vectors, and a cipher that is written by the standards' words.
use proptest::prelude::*;

use super::*;
use crate::cipher::MODES;

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

const E_AND_PI: &str = "2718281828459045235360287471352631415926535897932384626433832795";
const E_AND_PI_256: &str = "2718281828459045235360287471352662497757247093699959574966967627\
                            3141592653589793238462643383279502884197169399375105820974944592";

/// Key, number, and the first 32 bytes of what comes out.
type Vector = (&'static str, u64, &'static str);

/// Vectors 1, 2 and 3 of IEEE 1619: data units of 32 bytes, all of the same one. What follows does not
/// change them.
const SHORT: [(u8, Vector); 3] = [
    (
        0,
        (
            "0000000000000000000000000000000000000000000000000000000000000000",
            0,
            "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e",
        ),
    ),
    (
        0x44,
        (
            "1111111111111111111111111111111122222222222222222222222222222222",
            0x33_3333_3333,
            "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
        ),
    ),
    (
        0x44,
        (
            "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f022222222222222222222222222222222",
            0x33_3333_3333,
            "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89",
        ),
    ),
];

/// Vectors 4 and 10: data units of 512 bytes, and their last 32 bytes.
const LONG: [(Vector, &str); 2] = [
    (
        (E_AND_PI, 0, "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"),
        "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568",
    ),
    (
        (E_AND_PI_256, 0xff, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"),
        "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151",
    ),
];

#[test]
fn xts_gives_vectors_of_ieee_1619() {
    let encrypted = |(key, number, begin): Vector, plain: Vec<u8>| {
        let cipher = SectorCipher::new(Cipher::AES_XTS, &hex(key)).unwrap();
        let mut data = plain.clone();
        cipher.encrypt(number, &mut data);
        assert_eq!(data[..32], hex(begin), "{number}");
        let encrypted = data.clone();
        cipher.decrypt(number, &mut data);
        assert_eq!(data, plain);
        encrypted
    };
    for (byte, vector) in SHORT {
        encrypted(vector, vec![byte; SECTOR]);
    }
    for (vector, end) in LONG {
        let plain = (0..=255).cycle().take(SECTOR).collect();
        assert_eq!(encrypted(vector, plain)[SECTOR - 32..], hex(end));
    }
}

/// Times x, as IEEE 1619 5.2 has it: byte by byte.
fn times_x(tweak: Block) -> Block {
    let mut product = Block::default();
    let mut carry = 0;
    for (new, old) in product.iter_mut().zip(tweak) {
        *new = (old << 1) | carry;
        carry = old >> 7;
    }
    product[0] ^= 0x87 * carry;
    product
}

/// Encrypts a sector block by block, with AES by the key's halves or its whole, as the standards say.
fn encrypted_by_the_block(cipher: Cipher, key: &[u8], number: u64, sector: &[u8]) -> Vec<u8> {
    let keyed = |key: &[u8]| BlockCipher::new(cipher.algorithm, key).unwrap();
    let one = |keyed: &BlockCipher, block: Block| {
        let mut blocks = [block];
        keyed.encrypt(&mut blocks);
        blocks[0]
    };
    let combined = |a: Block, b: Block| Block::from_fn(|i| a[i] ^ b[i]);
    let number = match cipher.iv {
        Iv::Plain => number % (1 << 32),
        _ => number,
    };
    let mut iv: Block = u128::from(number).to_le_bytes().into();
    if cipher.iv == Iv::EssivSha256 {
        iv = one(&keyed(&digest::sha256(key)), iv);
    }
    let blocks = sector.chunks(BLOCK).map(|block| Block::try_from(block).unwrap());
    match cipher.mode {
        Mode::Xts => {
            let (data, tweak) = key.split_at(key.len() / 2);
            let (data, mut tweak) = (keyed(data), one(&keyed(tweak), iv));
            let encrypted = blocks.map(|block| {
                let encrypted = combined(one(&data, combined(block, tweak)), tweak);
                tweak = times_x(tweak);
                encrypted
            });
            encrypted.flatten().collect()
        }
        Mode::Cbc => {
            let data = keyed(key);
            let encrypted = blocks.map(|block| {
                iv = one(&data, combined(block, iv));
                iv
            });
            encrypted.flatten().collect()
        }
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
            SectorCipher::new(Cipher { mode: Mode::Cbc, iv, ..Cipher::AES_XTS }, &[7; 32]).unwrap();
        let (mut low, mut high) = ([1; SECTOR], [1; SECTOR]);
        cipher.encrypt(5, &mut low);
        cipher.encrypt(5 + (1 << 32), &mut high);
        assert_eq!(low == high, same, "{iv:?}");
    }
}

proptest! {
    #[test]
    fn many_sectors_become_what_each_becomes_block_by_block(
        which in 0..MODES.len(),
        algorithm in proptest::sample::select(Algorithm::ALL),
        key in proptest::sample::select(&[0usize, 1, 2]),
        sector in proptest::sample::select(&[512usize, 1024, 2048, 4096]),
        // Beyond a group of sectors, and with what is no whole sector behind them.
        sectors in 0usize..=2 * GROUP + 3,
        rest in 0..SECTOR,
        first in any::<u64>(),
        seed in any::<u8>(),
    ) {
        let cipher = Cipher::of_mode_name(algorithm, MODES[which].0).unwrap();
        let lens = cipher.key_lens();
        let key: Vec<u8> = (seed..=255).cycle().take(lens[key % lens.len()]).collect();
        let whole = (sectors % (2 * GROUP * SECTOR / sector + 3)) * sector;
        let plain: Vec<u8> =
            (0..whole + rest).map(|i| (i / 3).to_le_bytes()[0].wrapping_mul(seed)).collect();
        let by_number = SectorCipher::with_sectors(cipher, &key, sector).unwrap();
        let mut data = plain.clone();
        by_number.encrypt(first, &mut data);
        for (index, (plain, data)) in
            (0u64..).zip(plain[..whole].chunks(sector).zip(data[..whole].chunks(sector)))
        {
            let number = first.wrapping_add(index * (sector / SECTOR) as u64);
            let expected = encrypted_by_the_block(cipher, &key, number, plain);
            prop_assert!(expected == data, "{cipher}, sector {index} of {sector} bytes");
        }
        prop_assert_eq!(&data[whole..], &plain[whole..]);
        by_number.decrypt(first, &mut data);
        prop_assert!(data == plain, "{} is not decrypted", cipher);
    }
}
