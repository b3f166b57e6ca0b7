// SPDX-License-Identifier: Apache-2.0
//! What is said of damaged images: bytes of a good one are changed, and the error names the field,
//! its value, and one remedy. The remedy is then carried out by QEMU, and helps.
use std::fs;
use std::path::Path;

use io_engine::{Backend, Engine, File};
use qcow2::check::{Repair, check};
use qcow2::{Error, Image, Options, Parts, Storage};
use sgl::Sgl;

use crate::memory::{COPIED, Memory, now, places, qemu_img, qemu_io, set, word};

const CLUSTER: u64 = 4096;

/// What an error says to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    Check,
    Salvage,
    Convert,
    Rename,
    NewerQemu,
    AnotherCopy,
}

/// Each with the words that are in an error of it, and in no other.
const REMEDIES: [(Remedy, &str); 6] = [
    (Remedy::Check, "; keep a copy and run `qemu-img check -r all PATH`"),
    (
        Remedy::Salvage,
        "; if there is no other copy, run `qemu-img convert --salvage -O qcow2 PATH NEW`",
    ),
    (Remedy::Convert, "; run `qemu-img convert -O qcow2 PATH NEW` and use NEW"),
    (Remedy::Rename, "; if you know the file, run `qemu-img rebase -u -b FILE -F FORMAT PATH`"),
    (Remedy::NewerQemu, "; if a newer QEMU made the image, run its `qemu-img convert"),
    (Remedy::AnotherCopy, "; nothing repairs that: use another copy of the image"),
];

/// What is wrong in the error's words, how the image is damaged, and what helps.
type Row = (&'static str, fn(&Memory), Remedy);

fn put(image: &Memory, at: u64, bytes: &[u8]) {
    let at = at as usize;
    image.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put32(image: &Memory, at: u64, value: u32) {
    put(image, at, &value.to_be_bytes());
}

fn change(image: &Memory, at: u64, change: fn(u64) -> u64) {
    set(image, at, change(word(image, at)));
}

fn l1(image: &Memory) -> u64 {
    places(image).1
}

fn l2(image: &Memory) -> u64 {
    places(image).2
}

fn reftable(image: &Memory) -> u64 {
    word(image, 48)
}

const INCOMPATIBLE: u64 = 72;

const HEADER: &[Row] = &[
    ("its version is 9, and", |i| put32(i, 4, 9), Remedy::NewerQemu),
    ("encryption method 7 is not known", |i| put32(i, 32, 7), Remedy::NewerQemu),
    ("(incompatible feature bit 40)", |i| set(i, INCOMPATIBLE, 1 << 40), Remedy::NewerQemu),
    (
        "compression type 9 is not known",
        |i| {
            set(i, INCOMPATIBLE, 8);
            put(i, 104, &[9]);
        },
        Remedy::NewerQemu,
    ),
    ("cluster size of 2^40 bytes", |i| put32(i, 20, 40), Remedy::AnotherCopy),
    ("header length is 96;", |i| put32(i, 100, 96), Remedy::AnotherCopy),
    ("refcount order is 7, and", |i| put32(i, 96, 7), Remedy::AnotherCopy),
    ("compression type (Deflate)", |i| set(i, INCOMPATIBLE, 8), Remedy::AnotherCopy),
    ("clusters of 4096 bytes", |i| set(i, INCOMPATIBLE, 16), Remedy::AnotherCopy),
    ("extension 0x12345678 of 16777216 bytes", |i| extension(i, 1 << 24), Remedy::AnotherCopy),
    ("its size of 1152921504606846976 bytes", |i| set(i, 24, 1 << 60), Remedy::AnotherCopy),
    ("L1 table of 1073741824 entries", |i| put32(i, 36, 1 << 30), Remedy::AnotherCopy),
    ("L1 table of 1 entries is too small", |i| put32(i, 36, 1), Remedy::AnotherCopy),
    ("is not aligned to a cluster", |i| set(i, 40, l1(i) + 512), Remedy::AnotherCopy),
    ("L1 table is at 0,", |i| set(i, 40, 0), Remedy::AnotherCopy),
    ("bytes at 0x10000000000 lies outside", |i| set(i, 40, 1 << 40), Remedy::Salvage),
    ("is not aligned to a cluster", |i| set(i, 48, reftable(i) + 512), Remedy::AnotherCopy),
    ("refcount table of 1 clusters at 0x0", |i| set(i, 48, 0), Remedy::Check),
    ("refcount table of 0 clusters at 0x1000", |i| put32(i, 56, 0), Remedy::Check),
    ("refcount table of 4096 bytes at 0x10000000000", |i| set(i, 48, 1 << 40), Remedy::Check),
    ("refcount table of 1073741824 clusters", |i| put32(i, 56, 1 << 30), Remedy::AnotherCopy),
    ("to have 70000 snapshots", |i| put32(i, 60, 70_000), Remedy::AnotherCopy),
    ("is not aligned to a cluster", |i| set(i, 64, word(i, 64) + 512), Remedy::AnotherCopy),
    ("snapshot table is at 0,", |i| set(i, 64, 0), Remedy::Convert),
    ("marked as corrupt (incompatible feature bit 1)", |i| set(i, INCOMPATIBLE, 2), Remedy::Check),
    ("backing file, 5000 bytes at 0x258,", |i| backing(i, 600, 5000), Remedy::AnotherCopy),
    ("backing file has 0 bytes", |i| backing(i, 600, 0), Remedy::Rename),
    ("not valid text: \"\\x00\\x00", |i| backing(i, 3000, 5), Remedy::Rename),
];

const TABLES: &[Row] = &[
    ("entry 0 of L1 table 0", |i| change(i, l1(i), |entry| entry + 512), Remedy::Salvage),
    ("bytes at 0x10000000000, past", |i| set(i, l1(i), COPIED | 1 << 40), Remedy::Salvage),
    ("has reserved bits set", |i| change(i, l1(i), |entry| entry | 1), Remedy::Salvage),
    ("entry 0 of the L2 table", |i| change(i, l2(i), |entry| entry + 512), Remedy::Salvage),
    ("bytes at 0x10000000000, past", |i| set(i, l2(i), COPIED | 1 << 40), Remedy::Salvage),
    ("has reserved bits set", |i| change(i, l2(i), |entry| entry | 2), Remedy::Salvage),
    ("is compressed, and has COPIED", |i| set(i, l2(i), COPIED | 1 << 62), Remedy::Salvage),
    ("place of several", |i| set(i, l2(i), COPIED | l1(i)), Remedy::Convert),
    ("entry 0 of the refcount table", |i| change(i, reftable(i), |at| at + 512), Remedy::Convert),
    ("cluster 0x0 of the file", |i| set(i, reftable(i), 1 << 40), Remedy::Check),
    ("has the refcount 0", |i| refcount(i, l2(i), 0), Remedy::Check),
    (
        "16777215 bytes of extra data",
        |i| put32(i, word(i, 64) + 36, 0xff_ffff),
        Remedy::AnotherCopy,
    ),
    ("the snapshot 1, whose record is at", |i| put32(i, 60, 2), Remedy::Convert),
    ("the snapshot 0's L1 table", |i| change(i, word(i, 64), |at| at + 512), Remedy::Salvage),
];

fn extension(image: &Memory, len: u32) {
    put32(image, 112, 0x1234_5678);
    put32(image, 116, len);
}

fn backing(image: &Memory, offset: u64, len: u32) {
    set(image, 8, offset);
    put32(image, 16, len);
}

fn refcount(image: &Memory, offset: u64, count: u16) {
    put(image, places(image).0 + offset / CLUSTER * 2, &count.to_be_bytes());
}

/// An image with data and a snapshot, as QEMU leaves it.
fn sample(directory: &Path) -> Memory {
    let make = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "image", "64M"];
    assert_eq!(qemu_img(directory, &make).0, Some(0));
    qemu_io(directory, "image", &["write -P 7 0 200k", "write -P 8 40M 8k"]);
    assert_eq!(qemu_img(directory, &["snapshot", "-c", "before", "image"]).0, Some(0));
    qemu_io(directory, "image", &["write -P 9 0 8k"]);
    load(directory, "image")
}

fn load(directory: &Path, name: &str) -> Memory {
    let image = Memory::default();
    *image.0.borrow_mut() = fs::read(directory.join(name)).unwrap();
    image
}

/// Opens it to be written to, and reads its first cluster and its last.
async fn open_and_read<S: Storage + 'static>(storage: S, backing: Option<S>) -> Result<(), Error> {
    let parts = Parts { storage, data_file: None, backing };
    let image = Image::open(parts, &Options::default()).await?;
    image.read(&Sgl::zeroed(4096), 0).await?;
    image.read(&Sgl::zeroed(4096), (64 << 20) - 4096).await?;
    image.close().await
}

fn open(image: &Memory) -> Result<(), Error> {
    now(open_and_read(image.clone(), None))
}

/// As [`open`], of what QEMU may have made too long to be in memory.
fn open_file(path: &Path, backing: Option<&Path>) -> Result<(), Error> {
    let file =
        |path: &Path| File::from(fs::OpenOptions::new().read(true).write(true).open(path).unwrap());
    let work = open_and_read(file(path), backing.map(file));
    Engine::new(Backend::Auto).unwrap().block_on(work).unwrap()
}

/// The remedy that an error names, if it is one.
fn named(error: &str) -> Option<Remedy> {
    let mut found = REMEDIES.iter().filter(|(_, words)| error.contains(words));
    let first = found.next().map(|(remedy, _)| *remedy);
    first.filter(|_| found.next().is_none() && error.matches("qemu-img").count() <= 1)
}

/// Does what an error says, and tells what is left of the image in the directory.
fn cure(directory: &Path, remedy: Remedy) -> Result<(), String> {
    let check = ["check", "-r", "all", "image"];
    let convert = ["convert", "-O", "qcow2", "image", "new"];
    let salvage = ["convert", "--salvage", "-O", "qcow2", "image", "new"];
    let rename = ["rebase", "-u", "-b", "base", "-F", "raw", "image"];
    let (command, left): (&[_], _) = match remedy {
        // Nothing may help, or there would be a better remedy.
        Remedy::Check | Remedy::AnotherCopy | Remedy::NewerQemu => (&check, "image"),
        Remedy::Salvage => (&salvage, "new"),
        Remedy::Convert => (&convert, "new"),
        Remedy::Rename => (&rename, "image"),
    };
    let (code, text) = qemu_img(directory, command);
    if code != Some(0) {
        return Err(format!("{command:?}: {}", text.lines().last().unwrap_or_default()));
    }
    let base = directory.join("base");
    let backing = (remedy == Remedy::Rename).then_some(&*base);
    open_file(&directory.join(left), backing).map_err(|error| error.to_string())
}

#[test]
fn each_damage_is_named_with_one_remedy_and_the_remedy_helps() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let good = sample(path);
    open(&good).unwrap();
    fs::write(path.join("base"), []).unwrap();
    let mut wrong = Vec::new();
    for (number, (what, damage, remedy)) in HEADER.iter().chain(TABLES).enumerate() {
        let image = Memory::default();
        image.0.borrow_mut().clone_from(&good.0.borrow());
        damage(&image);
        fs::write(path.join("image"), &*image.0.borrow()).unwrap();
        let error = match open(&image) {
            Err(error) => error.to_string(),
            Ok(()) => String::new(),
        };
        let helps = !matches!(remedy, Remedy::AnotherCopy | Remedy::NewerQemu);
        let cured = cure(path, *remedy);
        if !error.contains(what) || named(&error) != Some(*remedy) || cured.is_ok() != helps {
            wrong.push(format!("row {number} ({what}, {remedy:?}): {error}\nafter it: {cured:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Damages of bitmaps: QEMU opens none of these images, not even to check them.
const BITMAPS: &[fn(&Memory, u64)] = &[
    |image, extension| set(image, extension + 8, 1 << 40),
    |image, extension| set(image, extension + 16, 0),
    |image, extension| change(image, extension + 16, |offset| offset + 512),
    |image, extension| set(image, extension + 16, 1 << 40),
    |image, extension| set(image, word(image, extension + 16), 512),
    |image, extension| put(image, word(image, extension + 16) + 18, &[0xff; 2]),
];

#[test]
fn an_image_whose_bitmaps_are_damaged_loses_them_and_nothing_else_when_it_is_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    sample(path);
    assert_eq!(qemu_img(path, &["bitmap", "--add", "image", "tracks"]).0, Some(0));
    qemu_io(path, "image", &["write -P 5 12M 8k"]);
    let good = load(path, "image");
    let kind = 0x2385_2875_u32.to_be_bytes();
    let extension = good.0.borrow()[..512].windows(4).position(|bytes| bytes == kind).unwrap();
    for (number, damage) in BITMAPS.iter().enumerate() {
        for checked in [false, true] {
            let name = format!("row {number}, checked: {checked}");
            let image = Memory::default();
            image.0.borrow_mut().clone_from(&good.0.borrow());
            damage(&image, extension as u64 + 8);
            fs::write(path.join("image"), &*image.0.borrow()).unwrap();
            assert_ne!(qemu_img(path, &["check", "image"]).0, Some(0), "{name}");
            if checked {
                let report = now(check(&image, Repair::All)).unwrap();
                assert!(report.corruptions > 0 && report.repaired, "{name}: {report:?}");
            }
            let parts = Parts { storage: image.clone(), data_file: None, backing: None };
            let opened = now(Image::open(parts, &Options::default())).expect(&name);
            now(opened.write(&Sgl::zeroed(512), 30 << 20)).unwrap();
            now(opened.close()).unwrap();
            drop(opened);
            // What the bitmaps took is given back by the next opening, if their place is known.
            open(&image).unwrap();
            fs::write(path.join("image"), &*image.0.borrow()).unwrap();
            let (code, text) = qemu_img(path, &["check", "image"]);
            assert!(matches!(code, Some(0 | 3)), "{name}: {text}");
            let (_, snapshots) = qemu_img(path, &["snapshot", "-l", "image"]);
            assert!(snapshots.contains("before"), "{name}: {snapshots}");
            qemu_io(path, "image", &["read -P 5 12M 8k", "read -P 9 0 8k"]);
        }
    }
}
