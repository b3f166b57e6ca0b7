// SPDX-License-Identifier: Apache-2.0
//! Hostile images: each is refused, or read and written to, and takes no memory out of proportion.
//! Short runs of what `fuzz/` does for long, from the same seeds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests' helpers")]

use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;

/// What is tried with an image, and the image.
type Case = (fn(&[u8]), Vec<u8>);

/// The seeds of both fuzzers.
fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        let mut cases: Vec<Case> = Vec::new();
        for (name, fuzz) in
            [("qcow2", qcow2::fuzz::read as fn(&[u8])), ("qcow2_write", qcow2::fuzz::write_to)]
        {
            let files = std::fs::read_dir(seeds.join(name)).unwrap();
            let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
            files.sort();
            for file in files {
                let seed = std::fs::read(file).unwrap();
                // Large ones take long here.
                if seed.len() < 10_000 {
                    cases.push((fuzz, seed));
                }
            }
        }
        assert!(cases.len() > 10, "{} seeds", cases.len());
        cases
    })
}

/// Values that fields and entries of tables are wrong with.
const EDGES: [u64; 10] =
    [0, 1, 0x200, 0x7fff_ffff, 1 << 40, 1 << 62 | 0x200, 1 << 63, 1 << 63 | 0x600, 511, u64::MAX];

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn every_field_of_a_header_may_have_any_value_and_takes_no_memory() {
    let before = peak_memory();
    for (fuzz, image) in cases() {
        fuzz(image);
        for at in (8..112).step_by(4) {
            for edge in EDGES {
                let mut image = image.clone();
                let wide = edge > u64::from(u32::MAX);
                let bytes = &edge.to_be_bytes()[if wide { 0 } else { 4 }..];
                image[at..at + bytes.len()].copy_from_slice(bytes);
                fuzz(&image);
            }
        }
    }
    let more = peak_memory() - before;
    assert!(more < 128 << 20, "{more} bytes more");
}

#[test]
fn data_at_the_place_of_a_table_is_an_error_though_its_refcount_is_high_enough() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/qcow2_write");
    let mut image = std::fs::read(seeds.join("small")).unwrap();
    // High refcounts of the first clusters; the first guest cluster is the refcount table.
    image[0x400..0x408].fill(0xff);
    image[0x800..0x808].copy_from_slice(&0x200_u64.to_be_bytes());
    qcow2::fuzz::write_to(&image);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_anywhere_are_refused_or_do_no_harm(
        which in any::<Index>(),
        bytes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        words in prop::collection::vec((any::<Index>(), any::<Index>()), 0..4),
        moved in prop::option::of((any::<Index>(), any::<Index>())),
    ) {
        let (fuzz, image) = which.get(cases());
        let mut image = image.clone();
        for (at, byte) in bytes {
            let at = at.index(image.len());
            image[at] = byte;
        }
        for (at, edge) in words {
            let at = at.index(image.len() / 8) * 8;
            image[at..at + 8].copy_from_slice(&edge.get(&EDGES).to_be_bytes());
        }
        // An entry of a table goes somewhere else.
        if let Some((from, to)) = moved {
            let [from, to] = [from, to].map(|at| at.index(image.len() / 8) * 8);
            image.copy_within(from..from + 8, to);
        }
        fuzz(&image);
    }
}
