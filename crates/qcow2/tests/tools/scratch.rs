// SPDX-License-Identifier: Apache-2.0
//! Images that nobody wants after a loss of power: they are written like any other, and nothing of
//! them is brought to stable storage.
use std::fs;

use qcow2::create::{CreateOptions, create};
use qcow2::layout::header::Backing;
use qcow2::{Image, Options, Parts};
use sgl::Sgl;

use crate::memory::{Memory, now, qemu_img, qemu_io};

/// Makes an image, over a backing file of ones, and writes to it in different ways. Returns the syncs
/// that this took, and what the file has then.
fn written(scratch: bool) -> (usize, Vec<u8>) {
    let storage = Memory::default();
    let base = Backing { name: "base".into(), format: Some("raw".into()) };
    let options = CreateOptions { backing: Some(base), ..CreateOptions::new(4 << 20) };
    now(create(&storage, None, &options)).unwrap();
    storage.1.borrow_mut().clear();
    let backing = Memory::default();
    backing.0.borrow_mut().resize(4 << 20, 1);
    let parts = Parts { storage: storage.clone(), data_file: None, backing: Some(backing) };
    let options = Options { scratch, discard: true, ..Options::default() };
    let image = now(Image::open(parts, &options)).unwrap();
    let data = Sgl::zeroed(4096);
    data.fill(0..4096, 0x5a);
    for round in 0..2 {
        for cluster in 0..64 {
            now(image.write(&data, cluster << 16 | round << 14)).unwrap();
        }
        now(image.discard(0, 32 << 16)).unwrap();
        now(image.flush()).unwrap();
    }
    now(image.close()).unwrap();
    let syncs = storage.1.borrow().iter().filter(|write| write.is_none()).count();
    (syncs, storage.0.take())
}

#[test]
fn nothing_of_a_scratch_image_is_synced_and_its_clusters_are_used_again() {
    let (syncs, _) = written(false);
    assert!(syncs > 64, "copies over a backing file are synced: {syncs}");
    let (syncs, bytes) = written(true);
    assert_eq!(syncs, 0);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image"), &bytes).unwrap();
    fs::write(dir.path().join("base"), vec![1; 4 << 20]).unwrap();
    let (code, text) = qemu_img(dir.path(), &["check", "image"]);
    assert_eq!(code, Some(0), "{text}");
    qemu_io(dir.path(), "image", &["read -P 0x5a 2M 4k", "read -P 0 0 16k"]);
    assert!(bytes.len() < 6 << 20, "what was discarded is used again: {} bytes", bytes.len());
}
