// SPDX-License-Identifier: Apache-2.0
//! The mark of an image that was closed: whoever made the image, it gets one; whoever writes to it
//! afterwards, QEMU too, takes it away.
use std::fs;
use std::path::Path;

use qcow2::layout::header::autoclear;
use qcow2::{Image, Options, Parts};
use sgl::Sgl;

use crate::memory::{Memory, now, places, qemu_img, qemu_io, set, word};

fn load(path: &Path) -> Memory {
    let image = Memory::default();
    *image.0.borrow_mut() = fs::read(path).unwrap();
    image
}

fn open(image: &Memory) -> Image<Memory> {
    let parts = Parts { storage: image.clone(), data_file: None, backing: None };
    now(Image::open(parts, &Options::default())).unwrap()
}

fn write(image: &Image<Memory>, offset: u64) {
    now(image.write(&Sgl::from_slice(&mut [5; 512]), offset)).unwrap();
}

fn is_marked(image: &Memory) -> bool {
    word(image, 88) & autoclear::CLEAN != 0
}

fn refcount(image: &Memory, cluster: u64) -> u16 {
    let at = (places(image).0 + cluster * 2) as usize;
    u16::from_be_bytes(image.0.borrow()[at..at + 2].try_into().unwrap())
}

#[test]
fn an_image_of_qemu_is_marked_when_it_is_closed_until_qemu_writes_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let (directory, path) = (directory.path(), directory.path().join("image"));
    assert_eq!(qemu_img(directory, &["create", "-q", "-f", "qcow2", "image", "1M"]).0, Some(0));
    let image = load(&path);
    let opened = open(&image);
    write(&opened, 0);
    assert!(!is_marked(&image));
    now(opened.close()).unwrap();
    assert!(is_marked(&image));
    fs::write(&path, &*image.0.borrow()).unwrap();
    for read_only in [&["check", "image"][..], &["info", "image"], &["map", "image"]] {
        assert_eq!(qemu_img(directory, read_only).0, Some(0));
        assert!(is_marked(&load(&path)), "{read_only:?}");
    }
    qemu_io(directory, "image", &["write 512 512"]);
    assert!(!is_marked(&load(&path)));
}

#[test]
fn a_marked_image_is_not_looked_through_and_one_without_the_mark_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    qemu_img(directory.path(), &["create", "-q", "-f", "qcow2", "image", "1M"]);
    qemu_io(directory.path(), "image", &["write 0 128k"]);
    for marked in [true, false] {
        let image = load(&path);
        let l2 = places(&image).2;
        let leaked = (word(&image, l2 + 8) & !(1 << 63)) >> 16;
        set(&image, l2 + 8, 0);
        set(&image, 88, if marked { autoclear::CLEAN } else { 0 });
        drop(open(&image));
        assert_eq!(refcount(&image, leaked), u16::from(marked));
    }
}

#[test]
fn the_mark_goes_before_anything_is_allocated_and_stays_for_what_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    qemu_img(directory.path(), &["create", "-q", "-f", "qcow2", "image", "1M"]);
    let image = load(&directory.path().join("image"));
    let opened = open(&image);
    write(&opened, 0);
    now(opened.close()).unwrap();
    let opened = open(&image);
    write(&opened, 512);
    assert!(is_marked(&image), "it has the same clusters as before");
    image.1.borrow_mut().clear();
    write(&opened, 512 << 10);
    assert!(!is_marked(&image));
    let log = image.1.borrow();
    let first = log.iter().flatten().next().unwrap();
    assert_eq!(first.0, 0, "the header is written first");
    assert_eq!(log.iter().position(Option::is_none), Some(1), "and is stable then");
}

#[test]
fn images_of_version_2_have_no_mark() {
    let directory = tempfile::tempdir().unwrap();
    let create = ["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "image", "1M"];
    qemu_img(directory.path(), &create);
    let image = load(&directory.path().join("image"));
    let before = word(&image, 88);
    let opened = open(&image);
    write(&opened, 0);
    now(opened.close()).unwrap();
    assert_eq!(word(&image, 88), before);
}
