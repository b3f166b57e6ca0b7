// SPDX-License-Identifier: Apache-2.0
//! What is wrong is refused, by name, before anything is derived from it.
use proptest::prelude::*;

use crate::common::{COPY, TEXT, header, mend, unlock, volume};

#[test]
fn a_header_that_is_right_is_read_and_a_wrong_passphrase_is_told() {
    let bytes = header(TEXT);
    let found = volume(&bytes).unwrap();
    assert_eq!(found.areas().first(), Some(&(32768..33280)));
    assert_eq!(found.payload().offset, 65536);
    let text = unlock(&bytes, b"wrong").unwrap_err().to_string();
    assert!(text.starts_with("the passphrase opens none of its 1 key slots in use"), "{text}");
}

#[test]
fn what_is_wrong_in_the_text_is_named() {
    for (from, to, text) in [
        ("\"keyslots\":{", "\"keyslots\":[", "the JSON of its LUKS header: "),
        ("\"0\":{\"type\":\"luks2\"", "\"0x\":{\"type\":\"luks2\"", "is not a number in a text"),
        ("\"type\":\"luks2\"", "\"type\":\"reencrypt\"", "key slot 0 is of type \"reencrypt\""),
        (
            "\"key_size\":64,\n  \"af\"",
            "\"key_size\":48,\n  \"af\"",
            "the key of key slot 0 has 48",
        ),
        ("\"stripes\":8", "\"stripes\":0", "key slot 0 has 0 stripes"),
        ("\"stripes\":8", "\"stripes\":4001", "key slot 0 has 4001 stripes"),
        ("\"stripes\":8", "\"stripes\":18446744073709551615", "has 18446744073709551615 stripes"),
        ("\"stripes\":8", "\"stripes\":-1", "the JSON of its LUKS header: "),
        (
            "\"hash\":\"sha256\"},\n  \"area\"",
            "\"hash\":\"tiger\"},\n  \"area\"",
            "is \"tiger\"; known",
        ),
        ("\"offset\":\"32768\"", "\"offset\":\"4096\"", "it has to have 512 between 32768"),
        ("\"offset\":\"32768\"", "\"offset\":\"18446744073709551615\"", "has 4096 bytes at 18446"),
        ("\"offset\":\"32768\"", "\"offset\":\"+1\"", "is not a number in a text"),
        ("\"size\":\"4096\"", "\"size\":\"511\"", "the area of key slot 0 has 511 bytes"),
        ("\"size\":\"4096\"", "\"size\":\"8192\"", "the area of key slot 0 has 8192 bytes"),
        ("\"memory\":64", "\"memory\":4194304", "over 4194304 KiB of memory"),
        ("\"memory\":64", "\"memory\":7", "over 7 KiB in 1 lanes, which is not possible"),
        ("\"time\":4", "\"time\":4294967295", "takes 4294967295 passes"),
        ("\"cpus\":1", "\"cpus\":1000000", "in 1000000 lanes"),
        ("\"time\":4,", "", "key slot 0 of its LUKS header has no \"time\""),
        ("argon2id", "scrypt", "key slot 0 derives its key by \"scrypt\""),
        ("cpus\":1,\"salt\":\"AAEC", "cpus\":1,\"salt\":\"*AEC", "a text is not base64"),
        ("cpus\":1,\"salt\":\"AAECAwQFBgcICQoLDA0ODw==", "cpus\":1,\"salt\":\"AA==", "has 1 bytes"),
        ("\"type\":\"crypt\"", "\"type\":\"linear\"", "segment of type \"linear\", not crypt"),
        ("\"size\":\"dynamic\"", "\"size\":\"1000\"", "it has to consist of sectors of 512 bytes"),
        (
            "\"size\":\"dynamic\"",
            "\"size\":\"9223372036854775296\"",
            "it has to consist of sectors",
        ),
        ("\"offset\":\"65536\"", "\"offset\":\"65537\"", "it has to consist of sectors of 512"),
        ("\"sector_size\":512", "\"sector_size\":8192", "its sectors have 8192 bytes"),
        ("\"sector_size\":512", "\"sector_size\":0", "its sectors have 0 bytes"),
        (
            "\"sector_size\":512",
            "\"sector_size\":512,\"integrity\":{\"type\":\"hmac(sha256)\"}",
            "its data have integrity tags (\"hmac(sha256)\")",
        ),
        ("\"sector_size\":512", "\"flags\":[\"backup-final\"]", "has the flag \"backup-final\""),
        (
            "\"segments\":{\"0\"",
            "\"segments\":{\"1\"",
            "has 1 segments of data; it has to have one",
        ),
        (
            "\"encryption\":\"aes-xts-plain64\",\"sector",
            "\"encryption\":\"aes\\u001b-adiantum\",\"sector",
            "its segment of data is \"aes\\u{1b}-adiantum\"",
        ),
        ("\"segments\":[\"0\"]", "\"segments\":[]", "no digest of its LUKS header is that of"),
        ("\"keyslots\":[\"0\"]", "\"keyslots\":[\"1\"]", "has no key slot that is in use"),
        ("\"iterations\":1000", "\"iterations\":0", "the iterations of digest 0 are 0"),
        ("\"iterations\":1000", "\"iterations\":4294967296", "digest 0 of its LUKS header takes"),
        (
            "\"keyslots_size\":\"4096\"",
            "\"keyslots_size\":\"134217729\"",
            "they can have 134217728",
        ),
        (
            "\"json_size\"",
            "\"requirements\":{\"mandatory\":[\"online-reencrypt-v2\"]},\"json_size\"",
            "`cryptsetup reencrypt --resume-only`",
        ),
        (
            "\"json_size\"",
            "\"requirements\":{\"mandatory\":[\"opal\"]},\"json_size\"",
            "it requires \"opal\", which is unknown",
        ),
    ] {
        assert!(TEXT.contains(from), "{from}");
        let error = volume(&header(&TEXT.replace(from, to))).unwrap_err().to_string();
        assert!(error.contains(text), "{to}: {error}");
    }
}

#[test]
fn lists_are_not_long_whatever_the_text_says() {
    let slots: Vec<_> = (1..40).map(|n| format!("\"{n}\":{{\"type\":\"x\"}}")).collect();
    let many =
        TEXT.replace("\"keyslots\":{\"0\"", &format!("\"keyslots\":{{{},\"0\"", slots.join(",")));
    let error = volume(&header(&many)).unwrap_err().to_string();
    assert!(error.contains("an object has more than 32 entries"), "{error}");
    let twice = TEXT.replace(
        "\"segments\":{\"0\"",
        "\"segments\":{\"00\":{\"type\":\"crypt\",\
                             \"offset\":\"0\",\"size\":\"dynamic\"},\"0\"",
    );
    let error = volume(&header(&twice)).unwrap_err().to_string();
    assert!(error.contains("the key 0 is there twice"), "{error}");
    let deep = TEXT.replace("\"tokens\":{}", &format!("\"tokens\":{}", "[".repeat(5000)));
    let error = volume(&header(&deep)).unwrap_err().to_string();
    assert!(error.contains("the JSON of its LUKS header: expected value"), "{error}");
}

#[test]
fn a_slot_that_cannot_be_tried_is_told_of_when_no_other_opens() {
    let two = TEXT
        .replace("\"keyslots\":{\"0\"", "\"keyslots\":{\"1\":{\"type\":\"luks3\"},\"0\"")
        .replace("\"keyslots\":[\"0\"]", "\"keyslots\":[\"0\",\"1\"]");
    let text = unlock(&header(&two), b"wrong").unwrap_err().to_string();
    assert!(
        text.ends_with("(not tried: key slot 1 is of type \"luks3\", which is unknown)"),
        "{text}"
    );
}

#[test]
fn a_copy_is_used_only_if_its_checksum_is_right() {
    let whole = header(TEXT);
    let wrong = |offsets: &[usize]| {
        let mut bytes = whole.clone();
        offsets.iter().for_each(|offset| bytes[*offset] ^= 1);
        volume(&bytes).map(|volume| volume.copies())
    };
    use luks::Copies;
    assert_eq!(wrong(&[]).unwrap(), Copies::All);
    assert_eq!(wrong(&[0]).unwrap(), Copies::NoPrimary);
    assert_eq!(wrong(&[5000]).unwrap(), Copies::NoPrimary);
    assert_eq!(wrong(&[COPY]).unwrap(), Copies::NoSecondary);
    assert_eq!(wrong(&[COPY + 5000]).unwrap(), Copies::NoSecondary);
    let text = wrong(&[5000, COPY + 5000]).unwrap_err().to_string();
    assert!(text.contains("both copies") && text.contains("its checksum is wrong"), "{text}");
    let text = wrong(&[0, COPY]).unwrap_err().to_string();
    assert!(text.contains("there is no LUKS header: it begins with MUKS"), "{text}");
    let mut version = whole.clone();
    version[7] = 3;
    let text = volume(&version).unwrap_err().to_string();
    assert!(text.contains("version 3; known are 1 and 2"), "{text}");
}

#[test]
fn of_two_copies_the_one_that_was_written_later_counts() {
    let mut bytes = header(TEXT);
    let later = header(&TEXT.replace("65536", "69632"));
    bytes[COPY..].copy_from_slice(&later[COPY..]);
    assert_eq!(volume(&bytes).unwrap().payload().offset, 65536);
    bytes[COPY + 23] = 2;
    mend(&mut bytes[COPY..]);
    assert_eq!(volume(&bytes).unwrap().payload().offset, 69632);
}

proptest! {
    #[test]
    fn no_header_makes_it_panic_or_take_much_memory(
        changes in proptest::collection::vec((0..4096 + TEXT.len(), any::<u8>()), 0..6),
        digits in proptest::collection::vec((4096..4096 + TEXT.len(), b'0'..=b'9'), 0..6),
    ) {
        let mut bytes = header(TEXT);
        bytes.resize(bytes.len() + 4096, 7);
        for (offset, byte) in changes {
            bytes[offset] = byte;
        }
        for (offset, digit) in digits {
            if bytes[offset].is_ascii_digit() {
                bytes[offset] = digit;
            }
        }
        luks::fuzz::header(&bytes);
    }
}
