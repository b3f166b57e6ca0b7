// SPDX-License-Identifier: Apache-2.0
//! Headers that are wrong are refused, by name of the field, before anything is derived from them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use luks::{Format, HEADER_LEN, Header, Secret};
use proptest::prelude::*;

fn header() -> Vec<u8> {
    let options = Format { iterations: Some(1000), ..Format::default() };
    luks::format(&options, &Secret::new(b"abc".to_vec())).unwrap().0
}

#[test]
fn what_is_wrong_is_named() {
    let good = header();
    for (offset, bytes, text) in [
        (0, &b"XUKS"[..], "there is no LUKS header: it begins with XUKS\\xba\\xbe"),
        (6, &[0, 2], "its LUKS header has version 2; only version 1 can be read"),
        (8, b"cast5\0\0\0", "its cipher is cast5; known are aes, serpent, twofish"),
        (40, b"ctr-plain\0\0\0", "its cipher mode is ctr-plain; known are xts-plain64, xts-plain"),
        (72, b"tiger\0", "its hash is tiger; known are sha1, sha224, sha256, sha384, sha512, "),
        (72, b"a\xffb", "the hash of its LUKS header is no name: \"a\\xffb256\""),
        (108, &[0xff; 4], "its key has 4294967295 bytes; with aes-xts-plain64 they can be"),
        (164, &[0; 4], "the iterations of the digest of the key are 0 in its LUKS header"),
        (208, &[1; 4], "the state of key slot 0 of its LUKS header is 0x1010101"),
        (212, &[0xff; 4], "key slot 0 of its LUKS header takes 4294967295 iterations, more than"),
        (
            248,
            &[0; 4],
            "the key material of slot 0 of its LUKS header has 4000 stripes at sector 0",
        ),
        (248, &[0xff; 4], "4000 stripes at sector 4294967295; it has to be after the header"),
        (252, &[0; 4], "the key material of slot 0 of its LUKS header has 0 stripes"),
        (252, &[0xff; 4], "has 4294967295 stripes at sector 8"),
    ] {
        let mut bad = good.clone();
        bad[offset..offset + bytes.len()].copy_from_slice(bytes);
        let error = Header::parse(&bad).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(Header::parse(&good[..HEADER_LEN - 1]).is_err());
}

#[test]
fn key_material_that_was_cut_off_is_refused() {
    let good = header();
    let header = Header::parse(&good).unwrap();
    let error = header.unlock(&good[..8192], &Secret::new(b"abc".to_vec())).unwrap_err();
    let text = "the key material of its LUKS header ends at 260096, after the 8192 bytes";
    assert!(error.to_string().contains(text), "{error}");
}

proptest! {
    #[test]
    fn no_header_makes_it_panic_or_take_much_memory(
        changes in proptest::collection::vec((0..HEADER_LEN, any::<u8>()), 0..8)
    ) {
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut bytes = GOOD.get_or_init(header).clone();
        for (offset, byte) in changes {
            bytes[offset] = byte;
        }
        luks::fuzz::header(&bytes);
    }
}
