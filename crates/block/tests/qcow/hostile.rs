// SPDX-License-Identifier: Apache-2.0
//! Images with bytes changed at random: whatever is in them, opening and using them ends, soon,
//! without a panic and without much memory.
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use block::{AnyStore, Error, OpenOptions, Store, open};

use crate::common::*;

/// The most memory that this process ever had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn use_it(store: &AnyStore, random: &mut Random) -> Result<(), Error> {
    let size = store.facts().size.min(1 << 40);
    if size < 8192 {
        return store.close().await;
    }
    for _ in 0..12 {
        let (at, len) = random.range(size / 512 * 512, 256 * KIB);
        // Errors are answers here.
        let _ = match random.below(6) {
            0 => store.discard(at, len).await,
            1 => store.write_zeroes(at, len, false).await,
            2 | 3 => write(store, at, &random.bytes(usize::try_from(len).unwrap())).await,
            4 => store.provisioning(at, len).await.map(drop),
            _ => read(store, at, usize::try_from(len).unwrap()).await.map(drop),
        };
    }
    let _ = store.resize(size + 70 * KIB).await;
    store.close().await
}

/// Changes some bytes, most of them where metadata is.
fn mutate(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let places = [112, 512, bytes.len() as u64];
        let end = places[usize::try_from(random.below(3)).unwrap()].min(bytes.len() as u64);
        let at = usize::try_from(random.below(end)).unwrap();
        match random.below(4) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 => bytes[at] ^= 1 << random.below(8),
            // Numbers that are at some edge.
            2 => {
                let at = at / 8 * 8;
                let edges = [0, 1, u64::MAX, 1 << 63, 1 << 62 | 0xffff, 0x8000_0000_0000_0200, 511];
                let number = edges[usize::try_from(random.below(7)).unwrap()];
                if let Some(place) = bytes.get_mut(at..at + 8) {
                    place.copy_from_slice(&number.to_be_bytes());
                }
            }
            // A table entry goes somewhere else.
            _ => {
                let from = usize::try_from(random.below(bytes.len() as u64 / 8)).unwrap() * 8;
                let at = at / 8 * 8;
                if at + 8 <= bytes.len() && from + 8 <= bytes.len() {
                    bytes.copy_within(from..from + 8, at);
                }
            }
        }
    }
}

/// Opens images that are made from one.
fn attack(image: &Path, rounds: u64, seed: u64) {
    let original = std::fs::read(image).unwrap();
    let victim = image.with_extension("victim");
    let mut random = Random(seed);
    let (mut opened, mut slowest) = (0, Duration::ZERO);
    for round in 0..rounds {
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut random);
        std::fs::write(&victim, &bytes).unwrap();
        let begin = Instant::now();
        let checked = check_config(&config(&victim));
        on_engine(async {
            let options = OpenOptions { read_only: round % 4 == 0, ..OpenOptions::default() };
            match open(&config(&victim), &options).await {
                Ok(store) => {
                    checked.unwrap();
                    opened += 1;
                    let _ = use_it(&store, &mut random).await;
                }
                Err(e) => assert!(!e.to_string().is_empty()),
            }
        });
        let took = begin.elapsed();
        slowest = slowest.max(took);
        assert!(took < Duration::from_secs(30), "round {round} of seed {seed} took {took:?}");
    }
    let peak = peak_memory();
    println!("{}: {opened} of {rounds} opened, slowest {slowest:?}, {peak} KiB", image.display());
    assert!(opened > 0 && opened < rounds);
    assert!(peak < 1 << 20, "{peak} KiB");
}

#[test]
fn damaged_images_with_small_clusters_do_no_harm() {
    let dir = Dir::new();
    let image = dir.create("image", "cluster_size=512", 200 * KIB);
    qemu_io(&image, &["write -P 1 0 20k", "write -c -P 2 32k 512", "write -z 40k 4k"]);
    attack(&image, 1500, 1);
}

#[test]
fn damaged_images_on_backing_files_do_no_harm() {
    let dir = Dir::new();
    let raw = dir.path("raw");
    std::fs::write(&raw, vec![3; 100_000]).unwrap();
    let options = format!("cluster_size=4096,backing_file={},backing_fmt=raw", raw.display());
    let image = dir.create("image", &options, 300 * KIB);
    qemu_io(&image, &["write -P 1 0 20k", "write -c -P 2 32k 4096", "write -z 40k 4k"]);
    qemu_img(&["snapshot", "-c", "s", image.to_str().unwrap()]);
    qemu_io(&image, &["write -P 5 4k 4k"]);
    attack(&image, 700, 2);
}

#[test]
fn damaged_images_of_old_versions_do_no_harm() {
    let dir = Dir::new();
    let image = dir.create("two", "cluster_size=1024,compat=0.10", 100 * KIB);
    qemu_io(&image, &["write -P 1 0 20k", "write -c -P 2 32k 1024"]);
    attack(&image, 700, 3);
    let image = dir.path("one");
    qemu_img(&["create", "-q", "-f", "qcow", image.to_str().unwrap(), "100k"]);
    let commands = ["write -c -P 3 0 4k", "write -P 5 16k 4k", "write -c -P 4 92k 4k"];
    qemu_io_on("qcow", &image, &commands);
    attack(&image, 700, 4);
}

/// Sizes in the header that would need memory or time are refused before either is spent.
#[test]
fn headers_that_claim_to_be_huge_are_refused() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    let original = std::fs::read(&image).unwrap();
    let before = peak_memory();
    for (name, offset, bytes) in [
        ("cluster bits", 20, &31u32.to_be_bytes()[..]),
        ("size", 24, &u64::MAX.to_be_bytes()[..]),
        ("L1 entries", 36, &u32::MAX.to_be_bytes()[..]),
        ("L1 entries", 36, &(4u32 << 20).to_be_bytes()[..]),
        ("L1 offset", 40, &(1u64 << 62).to_be_bytes()[..]),
        ("refcount table", 48, &(1u64 << 62).to_be_bytes()[..]),
        ("refcount table at 0", 48, &0u64.to_be_bytes()[..]),
        ("refcount clusters", 56, &u32::MAX.to_be_bytes()[..]),
        ("refcount clusters", 56, &0u32.to_be_bytes()[..]),
        ("snapshots", 60, &u32::MAX.to_be_bytes()[..]),
        ("refcount order", 96, &7u32.to_be_bytes()[..]),
        ("header length", 100, &u32::MAX.to_be_bytes()[..]),
        ("extension", 116, &u32::MAX.to_be_bytes()[..]),
    ] {
        std::fs::write(&image, &original).unwrap();
        let file = std::fs::File::options().write(true).open(&image).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        let checked = check_config(&config(&image)).expect_err(name).to_string();
        let opened = on_engine(async { try_open_image(&image).await.map(drop) });
        assert_eq!(opened.unwrap_err().to_string(), checked, "{name}");
    }
    assert!(peak_memory() < before + (32 << 10));
}
