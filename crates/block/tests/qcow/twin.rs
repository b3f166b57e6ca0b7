// SPDX-License-Identifier: Apache-2.0
//! Random operations on an image and on its twin, a piece of memory: both have to be the same at
//! any time, for us and for QEMU, and the image without errors.
use std::path::{Path, PathBuf};

use block::{AnyStore, Provisioning, Store};
use io_engine::{Backend, Started, TaskSet};
use sgl::Sgl;

use crate::common::*;

const SIZE: u64 = 24 * MIB + 3 * KIB;

/// What an image is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Nothing,
    /// Metadata is allocated for all of it.
    Preallocated,
    /// A raw file, shorter than the image.
    Raw,
    /// A qcow2 image with other clusters, on a raw file.
    Chain,
    /// Compressed clusters.
    Compressed,
    /// There is a snapshot of it.
    Snapshot,
}

/// Makes an image; returns what is in it.
fn make(dir: &Dir, base: Base, options: &str, random: &mut Random) -> (PathBuf, Vec<u8>) {
    let mut twin = vec![0; usize::try_from(SIZE).unwrap()];
    let image = dir.path("image");
    let raw = dir.path("raw");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    // Data in about a third of the places, so that there are zeroes as well.
    let scatter = |bytes: &mut [u8], random: &mut Random| {
        for _ in 0..20 {
            let (at, len) = random.range(bytes.len() as u64 / 512 * 512, MIB);
            let (at, len) = (usize::try_from(at).unwrap(), usize::try_from(len).unwrap());
            bytes[at..at + len].copy_from_slice(&random.bytes(len));
        }
    };
    match base {
        Base::Nothing => drop(dir.create("image", options, SIZE)),
        Base::Preallocated => {
            dir.create("image", &format!("{options},preallocation=metadata"), SIZE);
        }
        Base::Raw | Base::Chain => {
            let short = twin.len() * 3 / 4 / 512 * 512;
            scatter(&mut twin[..short], random);
            std::fs::write(&raw, &twin[..short]).unwrap();
            let mut below = format!("backing_file={},backing_fmt=raw", path(&raw));
            if base == Base::Chain {
                let middle = dir.create("middle", &format!("cluster_size=4096,{below}"), SIZE);
                for _ in 0..10 {
                    let (at, len) = random.range(SIZE / 512 * 512, 100 * KIB);
                    let byte = random.below(255) + 1;
                    qemu_io(&middle, &[&format!("write -P {byte} {at} {len}")]);
                }
                qemu_io(&middle, &["write -z 1M 300k"]);
                twin = content(&middle);
                // A name that is relative to the image.
                below = "backing_file=middle,backing_fmt=qcow2".into();
            }
            dir.create("image", &format!("{options},{below}"), SIZE);
        }
        Base::Compressed => {
            scatter(&mut twin, random);
            std::fs::write(&raw, &twin).unwrap();
            let (raw, image) = (path(&raw), path(&image));
            qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, &raw, &image]);
        }
        Base::Snapshot => {
            dir.create("image", options, SIZE);
            for _ in 0..10 {
                let (at, len) = random.range(SIZE / 512 * 512, MIB);
                qemu_io(&image, &[&format!("write -P {} {at} {len}", random.below(255) + 1)]);
            }
            twin = content(&image);
            qemu_img(&["snapshot", "-c", "before", &path(&image)]);
        }
    }
    (image, twin)
}

async fn compare(store: &AnyStore, twin: &[u8], at: u64, len: u64, what: &str) {
    let len = usize::try_from(len).unwrap();
    let at_usize = usize::try_from(at).unwrap();
    let got = read(store, at, len).await.unwrap();
    let want = &twin[at_usize..at_usize + len];
    if let Some(i) = got.iter().zip(want).position(|(a, b)| a != b) {
        panic!("{what}: differs at {} of {at}+{len}: {} not {}", at + i as u64, got[i], want[i]);
    }
}

/// One random operation on both.
async fn step(store: &AnyStore, twin: &mut [u8], random: &mut Random, what: &str) {
    let size = twin.len() as u64;
    let (at, len) = random.range(size / 512 * 512, 3 * MIB);
    let (from, n) = (usize::try_from(at).unwrap(), usize::try_from(len).unwrap());
    match random.below(20) {
        0..8 => {
            let mut data = random.bytes(n);
            twin[from..from + n].copy_from_slice(&data);
            // In pieces, as a guest's data is.
            let cut = n / 3;
            let (a, b) = data.split_at_mut(cut);
            let fua = random.below(8) == 0;
            store.write(&Sgl::from_slices([a, b]), at, fua).await.unwrap();
        }
        8..13 => compare(store, twin, at, len, what).await,
        13..15 => match store.facts().discard {
            Some(discard) => {
                assert!(discard.zeroes);
                store.discard(at, len).await.unwrap();
                twin[from..from + n].fill(0);
            }
            None => {
                store.discard(at, len).await.unwrap_err();
            }
        },
        15..17 => {
            store.write_zeroes(at, len, random.below(2) == 0).await.unwrap();
            twin[from..from + n].fill(0);
        }
        17 => {
            let (kind, n) = store.provisioning(at, len).await.unwrap();
            assert!((1..=len).contains(&n));
            if kind == Provisioning::Deallocated {
                let range = from..from + usize::try_from(n).unwrap();
                assert!(twin[range].iter().all(|&b| b == 0), "{what}: data where there is none");
            }
        }
        18 => store.flush().await.unwrap(),
        // The end of the image, which need not be at a cluster's end.
        _ => {
            let tail = size - random.below(80 * KIB).max(512);
            match random.below(3) {
                0 => store.write_zeroes(tail, size - tail, true).await.unwrap(),
                1 => {
                    let data = random.bytes(usize::try_from(size - tail).unwrap());
                    write(store, tail, &data).await.unwrap();
                    twin[usize::try_from(tail).unwrap()..].copy_from_slice(&data);
                    return;
                }
                _ => return compare(store, twin, tail, size - tail, what).await,
            }
            twin[usize::try_from(tail).unwrap()..].fill(0);
        }
    }
}

fn run(base: Base, options: &str, seed: u64, steps: u32) {
    let what = format!("{base:?} {options} seed {seed}");
    let mut random = Random(seed);
    let dir = Dir::new();
    let (image, mut twin) = make(&dir, base, options, &mut random);
    let before = twin.clone();
    let backends = [Backend::IoUring, Backend::Pool];
    for backend in backends {
        with(backend, async {
            let store = open_image(&image).await;
            assert_eq!(store.facts().size, twin.len() as u64);
            for i in 0..steps {
                step(&store, &mut twin, &mut random, &format!("{what} step {i}")).await;
            }
            let version_2 = options.contains("compat=0.10");
            if base != Base::Snapshot && !(version_2 && base == Base::Raw) {
                let grown = twin.len() as u64 + 512 * random.below(4000);
                store.resize(grown).await.unwrap();
                twin.resize(usize::try_from(grown).unwrap(), 0);
                for i in 0..steps / 4 {
                    step(&store, &mut twin, &mut random, &format!("{what} grown, step {i}")).await;
                }
            }
            compare(&store, &twin, 0, twin.len() as u64, &what).await;
            store.close().await.unwrap();
        });
        assert_eq!(check(&image), Check::Clean, "{what}");
        assert!(content(&image) == twin, "{what}: QEMU reads something else");
    }
    if base == Base::Snapshot {
        qemu_img(&["snapshot", "-a", "before", image.to_str().unwrap()]);
        assert!(content(&image) == before, "{what}: the snapshot has changed");
        assert_eq!(check(&image), Check::Clean, "{what}");
    }
}

/// All kinds of images for one size of clusters.
fn run_all(cluster_size: &str, steps: u32) {
    let options = |compat| format!("cluster_size={cluster_size},compat={compat}");
    let kinds = [
        Base::Nothing,
        Base::Preallocated,
        Base::Raw,
        Base::Chain,
        Base::Compressed,
        Base::Snapshot,
    ];
    for (i, base) in (0..).zip(kinds) {
        run(base, &options("1.1"), 100 + i, steps);
        run(base, &options("0.10"), 200 + i, steps);
    }
    run(Base::Nothing, &format!("{},refcount_bits=1", options("1.1")), 300, steps);
    run(Base::Compressed, &format!("{},refcount_bits=64", options("1.1")), 301, steps);
}

#[test]
fn an_image_with_clusters_of_512_bytes_equals_its_twin() {
    run_all("512", 60);
}

#[test]
fn an_image_with_clusters_of_4_kib_equals_its_twin() {
    run_all("4096", 120);
}

#[test]
fn an_image_with_clusters_of_64_kib_equals_its_twin() {
    run_all("65536", 200);
}

#[test]
fn an_image_with_clusters_of_2_mib_equals_its_twin() {
    run_all("2097152", 200);
}

/// Many at once: each has a region of its own, whose bytes it knows; regions share clusters.
#[test]
fn concurrent_operations_do_not_disturb_each_other() {
    const REGION: u64 = 24 * KIB;
    const WORKERS: u64 = 32;
    for (backend, options) in [
        (Backend::IoUring, "cluster_size=4096"),
        (Backend::IoUring, "cluster_size=65536"),
        (Backend::Pool, "cluster_size=65536"),
        (Backend::Pool, "cluster_size=4096,compat=0.10"),
    ] {
        let dir = Dir::new();
        let image = dir.create("image", options, WORKERS * REGION * 8);
        let twin = with(backend, async {
            let store = open_image(&image).await;
            let mut set = TaskSet::new();
            let mut results = Vec::new();
            for worker in 0..WORKERS {
                // One that never waits is finished at once.
                if let Started::Done(result) = set.push(work(&store, worker, REGION, WORKERS)) {
                    results.push(result);
                }
            }
            while !set.is_empty() {
                results.push(set.next().await.1);
            }
            let mut twin = vec![0; usize::try_from(WORKERS * REGION * 8).unwrap()];
            for (worker, regions) in results {
                for (i, region) in (0..).zip(regions) {
                    let at = usize::try_from((i * WORKERS + worker) * REGION).unwrap();
                    twin[at..at + region.len()].copy_from_slice(&region);
                }
            }
            drop(set);
            store.close().await.unwrap();
            twin
        });
        assert_eq!(check(&image), Check::Clean, "{options}");
        assert!(content(&image) == twin, "{options}: QEMU reads something else");
    }
}

/// Works on every `workers`th region; returns their content.
async fn work(store: &AnyStore, worker: u64, region: u64, workers: u64) -> (u64, Vec<Vec<u8>>) {
    let mut random = Random(worker);
    let mut regions = vec![vec![0; usize::try_from(region).unwrap()]; 8];
    for _ in 0..150 {
        let number = random.below(8);
        let twin = &mut regions[usize::try_from(number).unwrap()];
        let base = (number * workers + worker) * region;
        let (at, len) = random.range(region, region);
        let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
        match random.below(10) {
            0..5 => {
                let data = random.bytes(range.len());
                write(store, base + at, &data).await.unwrap();
                twin[range].copy_from_slice(&data);
            }
            5 => {
                store.discard(base + at, len).await.unwrap();
                twin[range].fill(0);
            }
            6 => {
                store.write_zeroes(base + at, len, true).await.unwrap();
                twin[range].fill(0);
            }
            _ => {
                let got = read(store, base + at, range.len()).await.unwrap();
                assert!(got == twin[range], "worker {worker} reads what it did not write");
            }
        }
    }
    (worker, regions)
}
