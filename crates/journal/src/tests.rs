// SPDX-License-Identifier: Apache-2.0
//! Journals made here: compressions that today's systemd does not make, and damage.

use super::*;
use proptest::prelude::*;

/// Makes a file: entries with one field each, whose object has these flags.
fn file(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; format::HEADER];
    out[..8].copy_from_slice(format::SIGNATURE);
    out[format::header::INCOMPATIBLE..][..4].copy_from_slice(&0b1111_u32.to_le_bytes());
    out[format::header::SEQNUM_ID] = 1;
    let mut entries = Vec::new();
    for (i, (flags, payload)) in (1..).zip(fields) {
        let data = out.len() as u64;
        let mut body = vec![0; format::PAYLOAD - format::object::HEAD];
        body.extend_from_slice(payload);
        object(&mut out, format::object::DATA, *flags, &body);
        entries.push(out.len() as u64);
        let body: [u64; 8] = [i, 1000 + i, i, 7, 7, i, data, 0];
        object(&mut out, format::object::ENTRY, 0, &words(&body));
    }
    // Two arrays in a chain.
    let (one, two) = entries.split_at(entries.len() / 2);
    let first = out.len() as u64;
    let next = first + format::array::ITEMS as u64 + 8 * one.len() as u64;
    object(&mut out, format::object::ENTRY_ARRAY, 0, &words(&[&[next], one].concat()));
    object(&mut out, format::object::ENTRY_ARRAY, 0, &words(&[&[0], two].concat()));
    let arena = (out.len() - format::HEADER) as u64;
    for (at, number) in [
        (format::header::HEADER_SIZE, format::HEADER as u64),
        (format::header::ARENA_SIZE, arena),
        (format::header::N_ENTRIES, entries.len() as u64),
        (format::header::ENTRY_ARRAY, first),
    ] {
        out[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    out
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn object(out: &mut Vec<u8>, kind: u8, flags: u8, body: &[u8]) {
    let size = (format::object::HEAD + body.len()) as u64;
    out.extend([kind, flags, 0, 0, 0, 0, 0, 0]);
    out.extend(size.to_le_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// All entries' fields.
fn read(bytes: Vec<u8>) -> Vec<Vec<Vec<u8>>> {
    let mut journal = Journal::default();
    journal.add(bytes).unwrap();
    let mut entries = Vec::new();
    while journal.next().unwrap() {
        let mut fields = Vec::new();
        let read = journal.fields(|field| {
            fields.push(field.to_vec());
            Ok::<(), Error>(())
        });
        read.unwrap();
        entries.push(fields);
    }
    entries
}

/// `xz -9` of `LONG=` and 2000 times `a`.
const XZ: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x00, 0xff, 0x12, 0xd9, 0x41, 0x02, 0x00, 0x21, 0x01,
    0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0xe0, 0x07, 0xd4, 0x00, 0x17, 0x5d, 0x00, 0x26,
    0x13, 0xc5, 0xf7, 0x19, 0xf5, 0x76, 0x15, 0xb3, 0x12, 0xe0, 0x13, 0x53, 0xdd, 0x39, 0xb0, 0x34,
    0xf1, 0x0b, 0xfc, 0xae, 0x41, 0x00, 0x00, 0x00, 0x00, 0x01, 0x2b, 0xd5, 0x0f, 0x00, 0x00, 0x00,
    0x57, 0xc1, 0x48, 0xb7, 0xa8, 0x00, 0x0a, 0xfc, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x59, 0x5a,
];

fn sample() -> Vec<u8> {
    let long = [b"LONG=", &[b'a'; 2000][..]].concat();
    let block = lz4_flex::block::compress(&long);
    let lz4 = [&(long.len() as u64).to_le_bytes()[..], &block].concat();
    file(&[(0, b"A=1"), (2, &lz4), (0, b"B=\n2"), (1, XZ), (0, b"C=3")])
}

#[test]
fn fields_of_every_compression_are_read() {
    let long = [b"LONG=", &[b'a'; 2000][..]].concat();
    let expected: [&[u8]; 5] = [b"A=1", &long, b"B=\n2", &long, b"C=3"];
    assert_eq!(read(sample()), expected.map(|field| vec![field.to_vec()]));
}

#[test]
fn a_field_that_claims_to_be_huge_is_left_out() {
    let lz4 = [&u64::MAX.to_le_bytes()[..], &[0; 64]].concat();
    let fields = read(file(&[(2, &lz4), (3, b"A=1"), (1, b"no xz"), (4, b"no zst"), (0, b"B=2")]));
    assert_eq!(fields, [vec![], vec![], vec![], vec![], vec![b"B=2".to_vec()]]);
}

#[test]
fn entries_that_make_no_sense_are_passed_over() {
    let mut bytes = sample();
    // Time and number of the second entry are gone.
    let entry = bytes.windows(8).position(|w| w == 1002_u64.to_le_bytes()).unwrap();
    bytes[entry - 8..entry + 8].fill(0);
    assert_eq!(read(bytes).len(), 4);
}

#[test]
fn what_is_no_journal_is_refused() {
    let open = |bytes: Vec<u8>| Journal::default().add(bytes);
    assert!(matches!(open(Vec::new()), Err(Error::NotAJournal(_))));
    assert!(matches!(open(vec![0; 4096]), Err(Error::NotAJournal(_))));
    let mut unknown = sample();
    unknown[format::header::INCOMPATIBLE] |= 0x20;
    assert!(matches!(open(unknown), Err(Error::NotAJournal(_))));
    let mut cut = sample();
    cut.truncate(cut.len() - 8);
    assert!(matches!(open(cut), Err(Error::NotAJournal(_))));
}

#[test]
fn before_the_first_entry_there_is_none() {
    let mut journal = Journal::default();
    journal.add(sample()).unwrap();
    assert!(matches!(journal.realtime(), Err(Error::NoEntry)));
    assert!(journal.next().unwrap());
    assert_eq!(journal.realtime().unwrap(), 1001);
    assert!(!journal.previous().unwrap());
    assert_eq!(journal.realtime().unwrap(), 1001);
}

proptest! {
    #[test]
    fn a_damaged_journal_does_no_harm(part: u8, changes: Vec<(u16, u8)>) {
        let mut bytes = [sample(), sample()].concat();
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        fuzz::journal(&[&[part], &bytes[..]].concat());
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(part: u8, bytes: Vec<u8>) {
        fuzz::journal(&[&[part], &format::SIGNATURE[..], &bytes].concat());
    }
}
