// SPDX-License-Identifier: Apache-2.0
//! Images that were written with `compress=on`, as QEMU sees them.
use std::fs;
use std::path::Path;
use std::time::Duration;

use qcow2::{Image, Mapping, Options, Parts};
use sgl::Sgl;

use crate::memory::{Memory, now, qemu_img};

/// An image that QEMU made, and how it is opened.
fn opened(directory: &Path) -> (Memory, Image<Memory>) {
    let storage = Memory::default();
    *storage.0.borrow_mut() = fs::read(directory.join("image")).unwrap();
    let parts = Parts { storage: storage.clone(), data_file: None, backing: None };
    let options = Options { compress: true, discard: true, ..Options::default() };
    (storage, now(Image::open(parts, &options)).unwrap())
}

fn create(directory: &Path, options: &str, size: usize) {
    let size = size.to_string();
    let (code, text) =
        qemu_img(directory, &["create", "-q", "-f", "qcow2", "-o", options, "image", &size]);
    assert_eq!(code, Some(0), "{text}");
}

/// Words, and here and there what cannot be compressed.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let number = random();
        if bytes.len() / 100_000 % 4 == 3 {
            bytes.extend(number.to_le_bytes());
        } else {
            bytes.extend(format!("item {:x} of {:x}, ", number % 4096, number >> 50).bytes());
        }
    }
    bytes.truncate(len);
    bytes
}

fn write(image: &Image<Memory>, content: &[u8], offset: usize) {
    let mut data = content.to_vec();
    now(image.write(&Sgl::from_slice(&mut data), offset as u64)).unwrap();
}

/// QEMU finds `content`, and nothing wrong.
fn judge(directory: &Path, storage: &Memory, content: &[u8]) {
    fs::write(directory.join("image"), &*storage.0.borrow()).unwrap();
    fs::write(directory.join("raw"), content).unwrap();
    let compare = ["compare", "-f", "qcow2", "-F", "raw", "image", "raw"];
    for arguments in [&["check", "image"][..], &compare] {
        let (code, text) = qemu_img(directory, arguments);
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn a_compressed_image_is_as_small_as_one_of_qemu() {
    for options in ["compression_type=zlib", "compression_type=zstd"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let content = sample(4 << 20);
        create(path, options, content.len());
        let (storage, image) = opened(path);
        for (number, part) in content.chunks(1 << 20).enumerate() {
            write(&image, part, number << 20);
        }
        assert!(matches!(now(image.map(0, 1)).unwrap().0, Mapping::Compressed));
        now(image.close()).unwrap();
        judge(path, &storage, &content);
        let convert = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, "raw", "theirs"];
        assert_eq!(qemu_img(path, &convert).0, Some(0));
        // Free clusters inside of the file have been zeroed.
        let used = |name: &str| {
            let bytes = fs::read(path.join(name)).unwrap();
            bytes.chunks(65536).filter(|cluster| cluster.iter().any(|byte| *byte != 0)).count()
        };
        let (ours, theirs) = (used("image"), used("theirs"));
        eprintln!("{options}: {ours} clusters, and QEMU's {theirs}");
        assert!(ours * 100 <= theirs * 105, "{options}: {ours} clusters, and QEMU's {theirs}");
    }
}

#[test]
fn parts_of_compressed_clusters_can_be_written_zeroed_and_discarded() {
    for options in [
        "cluster_size=65536",
        "cluster_size=4096,refcount_bits=1",
        "cluster_size=16384,extended_l2=on,compression_type=zstd",
        "cluster_size=512",
        "compat=0.10",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut content = sample((1 << 20) + 512);
        create(path, options, content.len());
        let (storage, image) = opened(path);
        write(&image, &content, 0);
        let mut state = 7u64;
        for round in 0..60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (state >> 33) as usize % (content.len() / 512) * 512;
            let end = (start + 512 * (1 + (state >> 20) as usize % 200)).min(content.len());
            match round % 4 {
                0 | 1 => {
                    let new = sample(end - start + 99).split_off(99);
                    content[start..end].copy_from_slice(&new);
                    write(&image, &new, start);
                }
                2 => {
                    content[start..end].fill(0);
                    let (start, len) = (start as u64, (end - start) as u64);
                    now(image.write_zeroes(start, len, round % 8 == 2)).unwrap();
                }
                _ => {
                    let (start, end) = (start / 65536 * 65536, end / 65536 * 65536);
                    if start < end {
                        content[start..end].fill(0);
                        now(image.discard(start as u64, (end - start) as u64)).unwrap();
                    }
                }
            }
            if round % 20 == 19 {
                now(image.close()).unwrap();
                judge(path, &storage, &content);
            }
        }
    }
}

#[test]
fn what_cannot_be_compressed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    create(path, "data_file=data", 1 << 20);
    let storage = Memory::default();
    *storage.0.borrow_mut() = fs::read(path.join("image")).unwrap();
    let parts = Parts { storage, data_file: Some(Memory::default()), backing: None };
    let options = Options { compress: true, ..Options::default() };
    let error = now(Image::open(parts, &options)).unwrap_err().to_string();
    assert!(error.contains("compress=on"), "{error}");
}

#[test]
fn a_snapshot_is_made_of_an_image_that_is_being_compressed_with_narrow_refcounts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    create(path, "refcount_bits=2", 1 << 20);
    let (storage, image) = opened(path);
    let content = vec![1; 1 << 20];
    write(&image, &content[..64 << 10], 0);
    now(image.create_snapshot("one", Duration::ZERO)).unwrap();
    write(&image, &content, 0);
    now(image.close()).unwrap();
    judge(path, &storage, &content);
    let (code, text) = qemu_img(path, &["snapshot", "-a", "one", "image"]);
    assert_eq!(code, Some(0), "{text}");
    *storage.0.borrow_mut() = fs::read(path.join("image")).unwrap();
    let mut before = vec![0; 1 << 20];
    before[..64 << 10].fill(1);
    judge(path, &storage, &before);
}
