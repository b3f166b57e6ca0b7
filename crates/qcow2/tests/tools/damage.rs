// SPDX-License-Identifier: Apache-2.0
//! What an open image meets that cannot be: the operation fails, the corrupt bit is set where the
//! image may be written to, and nothing is written to it any more.
use qcow2::create::{CreateOptions, Preallocation, create};
use qcow2::layout::header::autoclear;
use qcow2::{Error, ErrorKind, Image, Options, Parts};
use sgl::Sgl;

use crate::memory::{COPIED, Memory, OFFSET, now, places, set, word};

const CLUSTER: u64 = 4096;
/// The bit "corrupt" of the incompatible features.
const CORRUPT: u64 = 2;

/// An image with mappings of its first cluster, a zero cluster and a compressed one behind it.
fn sample() -> Memory {
    let image = Memory::default();
    let options = CreateOptions {
        cluster_size: CLUSTER,
        preallocation: Preallocation::Metadata,
        ..CreateOptions::new(64 << 10)
    };
    now(create(&image, None, &options)).unwrap();
    // As if it had been closed: it is not looked through when it is opened.
    set(&image, 88, autoclear::CLEAN);
    image
}

fn open(image: &Memory, read_only: bool) -> Image<Memory> {
    let parts = Parts { storage: image.clone(), data_file: None, backing: None };
    now(Image::open(parts, &Options { read_only, ..Options::default() })).unwrap()
}

fn read(image: &Image<Memory>) -> Result<(), Error> {
    now(image.read(&Sgl::zeroed(512), 0))
}

fn write(image: &Image<Memory>) -> Result<(), Error> {
    now(image.write(&Sgl::zeroed(512), 0))
}

fn zero(image: &Image<Memory>) -> Result<(), Error> {
    now(image.write_zeroes(0, CLUSTER, true))
}

fn discard(image: &Image<Memory>) -> Result<(), Error> {
    now(image.discard(0, CLUSTER))
}

fn map(image: &Image<Memory>) -> Result<(), Error> {
    now(image.map(0, 512)).map(drop)
}

type Operation = fn(&Image<Memory>) -> Result<(), Error>;

fn change_l1(image: &Memory, change: fn(u64) -> u64) {
    let l1 = places(image).1;
    set(image, l1, change(word(image, l1)));
}

fn change_l2(image: &Memory, change: fn(u64) -> u64) {
    let l2 = places(image).2;
    set(image, l2, change(word(image, l2)));
}

const READS: &[Operation] = &[read, map, write, zero, discard];
const DATA: &[Operation] = &[read, write, zero];
const WRITES: &[Operation] = &[write, zero];

/// What is wrong, how the image is damaged, and what meets it.
type Place = (&'static str, fn(&Memory), &'static [Operation]);

const PLACES: &[Place] = &[
    ("not aligned", |image| change_l1(image, |entry| entry + 512), READS),
    ("past its end", |image| change_l1(image, |_| 1 << 40 | COPIED), READS),
    ("not aligned", |image| change_l2(image, |entry| entry + 512), READS),
    ("past its end", |image| change_l2(image, |_| 1 << 40 | COPIED), DATA),
    ("past its end", |image| change_l2(image, |_| 1 << 62 | 1 << 40), &[read, write]),
    ("where the header", |image| change_l2(image, |_| 1 << 62 | 100), &[read, write]),
    ("where the L1 table", |image| set(image, places(image).2, places(image).1 | COPIED), DATA),
    ("where the refcount table", |image| set(image, places(image).2, word(image, 48)), DATA),
    ("where the", |image| set(image, places(image).2, places(image).2 | COPIED), WRITES),
    ("where the", |image| set(image, places(image).2, places(image).0 | COPIED), WRITES),
    ("whose refcount is 0", |image| make_free(image, places(image).2), WRITES),
    ("whose refcount is 0", |image| make_free(image, word(image, places(image).2)), WRITES),
    ("where the L1 table", |image| set(image, places(image).1, places(image).1 | COPIED), WRITES),
];

/// The refcount of the cluster to which an entry refers is 0.
fn make_free(image: &Memory, entry: u64) {
    let at = (places(image).0 + (entry & OFFSET) / CLUSTER * 2) as usize;
    image.0.borrow_mut()[at..at + 2].fill(0);
}

#[test]
fn each_place_that_cannot_be_is_an_error_and_marks_the_image_as_corrupt() {
    for (number, (what, damage, operations)) in PLACES.iter().enumerate() {
        for (nth, operation) in operations.iter().enumerate() {
            let name = format!("place {number} ({what}), operation {nth}");
            let image = sample();
            damage(&image);
            let opened = open(&image, false);
            let e = operation(&opened).expect_err(&name);
            assert!(matches!(e.kind, ErrorKind::Invalid(_)), "{name}: {e}");
            assert!(e.to_string().contains(what), "{name}: {e}");
            assert_eq!(word(&image, 72), CORRUPT, "{name}: {e}");
            let before = image.0.borrow().clone();
            for operation in [write, zero, discard] {
                assert!(operation(&opened).is_err(), "{name}: it is written to");
            }
            now(opened.close()).unwrap();
            assert!(*image.0.borrow() == before, "{name}: it was written to");
        }
    }
}

#[test]
fn an_image_that_is_only_read_is_never_marked() {
    for (number, (what, damage, operations)) in PLACES.iter().enumerate() {
        let image = sample();
        damage(&image);
        let before = image.0.borrow().clone();
        let opened = open(&image, true);
        if operations.len() > 2 || operations.len() == 2 && what.contains("end") {
            let e = read(&opened).expect_err(what);
            assert!(e.to_string().contains(what), "place {number}: {e}");
        } else {
            let _ = read(&opened);
        }
        assert!(*image.0.borrow() == before, "place {number}: it was written to");
    }
}

#[test]
fn metadata_that_counts_as_free_is_not_given_out() {
    let image = sample();
    let opened = open(&image, false);
    let l2 = places(&image).2;
    // A hole, so that a cluster has to be found for it.
    set(&image, l2, 0);
    make_free(&image, l2);
    let e = write(&opened).unwrap_err();
    assert!(e.to_string().contains("refcount 0") || e.to_string().contains("refcount is 0"), "{e}");
    assert_eq!(word(&image, 72), CORRUPT);
}

#[test]
fn a_last_cluster_that_the_file_has_in_part_is_read_with_zeroes_behind() {
    let image = sample();
    let opened = open(&image, false);
    now(opened.write(&Sgl::from_slice(&mut [7; 65536]), 0)).unwrap();
    now(opened.close()).unwrap();
    let len = image.0.borrow().len();
    image.0.borrow_mut().truncate(len - 3584);
    let last = (64 << 10) - CLUSTER;
    let mut bytes = vec![1; CLUSTER as usize];
    now(open(&image, true).read(&Sgl::from_slice(&mut bytes), last)).unwrap();
    assert_eq!(bytes, [vec![7; 512], vec![0; 3584]].concat());
    image.0.borrow_mut().truncate(len - CLUSTER as usize);
    let opened = open(&image, true);
    now(opened.read(&Sgl::from_slice(&mut bytes), last - CLUSTER)).unwrap();
    let e = now(opened.read(&Sgl::from_slice(&mut bytes), last)).unwrap_err().to_string();
    assert!(e.contains(&format!("it has {} bytes", len as u64 - CLUSTER)), "{e}");
}
