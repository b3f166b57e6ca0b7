// SPDX-License-Identifier: Apache-2.0
//! Bitmaps that QEMU made, and what QEMU finds in them after this engine wrote to the image.
use std::cell::Cell;
use std::path::Path;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fs, io};

use qcow2::check::{Repair, check};
use qcow2::{Extent, Image, Options, Parts, Storage};
use sgl::Sgl;

use crate::memory::{Memory, now, qemu_img, qemu_io};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The dirty ranges of a bitmap, as QEMU's server tells its clients: start and end in KiB.
fn dirty(directory: &Path, bitmap: &str) -> Vec<(u64, u64)> {
    let socket = directory.join("socket");
    let _ = fs::remove_file(&socket);
    let server = Command::new("qemu-nbd")
        .args(["-r", "-f", "qcow2", "-B", bitmap, "-k"])
        .arg(&socket)
        .arg("image")
        .current_dir(directory)
        .spawn()
        .expect("the tests need qemu-nbd: install the package qemu-utils");
    let _server = Server(server);
    let end = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(Instant::now() < end, "qemu-nbd does not serve {bitmap}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let options = format!(
        "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}",
        socket.display()
    );
    let (code, text) = qemu_img(directory, &["map", "--output=json", "--image-opts", &options]);
    assert_eq!(code, Some(0), "{text}");
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    // What is dirty is told as a hole.
    for line in text.lines().filter(|line| line.contains("\"data\": false")) {
        let number = |field: &str| -> u64 {
            let after = line.split(&format!("\"{field}\": ")).nth(1).unwrap();
            after.split([',', '}']).next().unwrap().trim().parse().unwrap()
        };
        let (start, len) = (number("start") / 1024, number("length") / 1024);
        match ranges.last_mut() {
            Some((_, end)) if *end == start => *end += len,
            _ => ranges.push((start, start + len)),
        }
    }
    ranges
}

fn create(directory: &Path, options: &str, size: &str) {
    let (code, text) =
        qemu_img(directory, &["create", "-q", "-f", "qcow2", "-o", options, "image", size]);
    assert_eq!(code, Some(0), "{text}");
}

fn add(directory: &Path, arguments: &[&str]) {
    let arguments = [&["bitmap", "--add"], arguments].concat();
    assert_eq!(qemu_img(directory, &arguments).0, Some(0), "{arguments:?}");
}

fn load(directory: &Path) -> Memory {
    let image = Memory::default();
    *image.0.borrow_mut() = fs::read(directory.join("image")).unwrap();
    image
}

/// What is done to an image, in KiB.
enum Step {
    Write(u64, u64),
    Zero(u64, u64),
    Discard(u64, u64),
    Resize(u64),
    Close,
}

/// Has this engine do that; without [`Step::Close`] at the end it is as after a kill.
fn ours(directory: &Path, steps: &[Step]) {
    let storage = load(directory);
    let parts = Parts { storage: storage.clone(), data_file: None, backing: None };
    let image = now(Image::open(parts, &Options { discard: true, ..Options::default() })).unwrap();
    for step in steps {
        match *step {
            Step::Write(start, len) => {
                let mut data = vec![0x5a; (len << 10) as usize];
                now(image.write(&Sgl::from_slice(&mut data), start << 10)).unwrap();
            }
            Step::Zero(start, len) => {
                now(image.write_zeroes(start << 10, len << 10, true)).unwrap();
            }
            Step::Discard(start, len) => now(image.discard(start << 10, len << 10)).unwrap(),
            Step::Resize(size) => now(image.resize(size << 10)).unwrap(),
            Step::Close => now(image.close()).unwrap(),
        }
    }
    fs::write(directory.join("image"), &*storage.0.borrow()).unwrap();
}

fn flags(directory: &Path) -> String {
    let (code, text) = qemu_img(directory, &["info", "-U", "image"]);
    assert_eq!(code, Some(0), "{text}");
    let flags = text.lines().filter(|line| line.contains("]: in-use") || line.contains("name: "));
    flags.map(|line| line.trim().trim_start_matches("[0]: ")).collect::<Vec<_>>().join(" ")
}

fn is_clean(directory: &Path) {
    let (code, text) = qemu_img(directory, &["check", "image"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_bitmap_tells_qemu_of_exactly_what_was_written() {
    for options in ["cluster_size=65536", "cluster_size=512", "cluster_size=16384,extended_l2=on"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        create(path, options, "20M");
        add(path, &["-g", "65536", "image", "coarse"]);
        add(path, &["-g", "4096", "image", "fine"]);
        add(path, &["-g", "65536", "--disable", "image", "off"]);
        // What QEMU writes is told of already.
        qemu_io(path, "image", &["write 0 4k"]);
        ours(
            path,
            &[
                Step::Write(1024 + 1, 6),
                Step::Zero(4096, 64),
                Step::Write(8192, 200),
                Step::Discard(8192 + 64, 64),
                Step::Close,
                Step::Write(20 * 1024 - 1, 1),
                Step::Close,
            ],
        );
        is_clean(path);
        assert_eq!(flags(path), "name: coarse name: fine name: off", "{options}");
        let fine = [(0, 4), (1024, 1032), (4096, 4160), (8192, 8392), (20476, 20480)];
        assert_eq!(dirty(path, "fine"), fine, "{options}");
        let coarse =
            fine.map(|(start, end): (u64, u64)| (start / 64 * 64, end.next_multiple_of(64)));
        assert_eq!(dirty(path, "coarse"), coarse, "{options}");
        assert_eq!(dirty(path, "off"), [], "{options}");
        // And QEMU goes on with it.
        qemu_io(path, "image", &["write 2M 4k"]);
        assert!(dirty(path, "fine").contains(&(2048, 2052)));
    }
}

#[test]
fn a_bitmap_of_an_image_that_was_not_closed_stays_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    create(path, "cluster_size=65536", "20M");
    add(path, &["image", "on"]);
    add(path, &["--disable", "image", "off"]);
    ours(path, &[Step::Write(0, 64)]);
    assert_eq!(flags(path), "in-use name: on name: off");
    ours(path, &[Step::Write(1024, 64), Step::Resize(40 << 10), Step::Close]);
    assert_eq!(flags(path), "in-use name: on name: off");
    is_clean(path);
    assert_eq!(dirty(path, "off"), []);
}

#[test]
fn bitmaps_have_the_size_of_their_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    create(path, "cluster_size=512", "3M");
    add(path, &["-g", "512", "image", "on"]);
    add(path, &["-g", "512", "--disable", "image", "off"]);
    qemu_io(path, "image", &["write 0 1k", "write 2500k 1k"]);
    // Tables of two entries, then of 128, in several clusters, then of one.
    for (size, expected) in [
        (256u64 << 10, [(0, 1), (2500, 2501), (3072, 256 << 10)].as_slice()),
        (1500, &[(0, 1)]),
        (3072, &[(0, 1), (1500, 3072)]),
    ] {
        ours(path, &[Step::Resize(size), Step::Close]);
        is_clean(path);
        assert_eq!(flags(path), "name: on name: off");
        assert_eq!(dirty(path, "on"), expected, "{size}");
        assert_eq!(dirty(path, "off"), [], "{size}");
    }
}

#[test]
fn a_bitmap_that_is_too_large_to_be_kept_is_marked_as_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    create(path, "cluster_size=65536", "300G");
    add(path, &["-g", "512", "image", "large"]);
    add(path, &["image", "small"]);
    ours(path, &[Step::Write(0, 64), Step::Close]);
    assert_eq!(flags(path), "in-use name: large name: small");
    is_clean(path);
    assert_eq!(dirty(path, "small"), [(0, 64)]);
}

#[test]
fn no_damaged_byte_of_bitmaps_makes_writing_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    create(path, "cluster_size=4096", "64M");
    add(path, &["-g", "512", "image", "b"]);
    qemu_io(path, "image", &["write 0 4k", "write 60M 4k"]);
    let whole = load(path).0.borrow().clone();
    let word = |at: usize| u64::from_be_bytes(whole[at..at + 8].try_into().unwrap()) as usize;
    let extension = (112..4096).step_by(8).find(|at| word(*at) == 0x2385_2875_0000_0018).unwrap();
    let entries = word(extension + 24);
    let places = (extension..extension + 32).chain(entries..entries + 32);
    let table = word(entries);
    for at in places.chain(table..table + 40) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let storage = Memory::default();
            *storage.0.borrow_mut() = whole.clone();
            storage.0.borrow_mut()[at] = value;
            let parts = Parts { storage: storage.clone(), data_file: None, backing: None };
            // It may be refused.
            let Ok(image) = now(Image::open(parts, &Options::default())) else { continue };
            for offset in [0, 30 << 20] {
                let _ = now(image.write(&Sgl::from_slice(&mut [7; 4096]), offset));
            }
            let _ = now(image.resize(65 << 20));
            let _ = now(image.close());
            assert!(storage.0.borrow().len() < 16 << 20, "{at:#x} {value:#x}");
        }
    }
}

#[test]
fn clusters_of_bitmaps_that_do_not_count_are_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    create(path, "cluster_size=65536", "20M");
    add(path, &["image", "b"]);
    qemu_io(path, "image", &["write 0 4k"]);
    let stale = load(path);
    // Somebody who does not know bitmaps has written to it.
    stale.0.borrow_mut()[88..96].fill(0);
    fs::write(path.join("image"), &*stale.0.borrow()).unwrap();
    let (code, text) = qemu_img(path, &["check", "image"]);
    assert_eq!(code, Some(3), "{text}");
    assert_eq!(now(check(&stale, Repair::Leaks)).unwrap().leaks, 3);
    assert_eq!(now(check(&stale, Repair::None)).unwrap().leaks, 0);
    for _ in 0..2 {
        ours(path, &[Step::Write(64, 64), Step::Close]);
        let (code, text) = qemu_img(path, &["check", "image"]);
        assert_eq!(code, Some(0), "{text}");
    }
    qemu_io(path, "image", &["write 1M 4k"]);
    is_clean(path);
}

/// Storage of which one write fails: that after so many.
struct Failing(Memory, Rc<Cell<Option<u32>>>);

impl Storage for Failing {
    async fn length(&self) -> io::Result<u64> {
        self.0.length().await
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        self.0.read(data, offset).await
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        match self.1.get() {
            Some(0) => {
                self.1.set(None);
                Err(io::Error::other("a write failed"))
            }
            left => {
                self.1.set(left.map(|left| left - 1));
                self.0.write(data, offset).await
            }
        }
    }

    async fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.0.zero(offset, len, unmap).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.0.sync().await
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        self.0.map(offset, len).await
    }
}

#[test]
fn a_bitmap_tells_of_what_went_before_shrinking_failed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut told = 0;
    for n in 0.. {
        create(path, "cluster_size=65536", "2M");
        qemu_io(path, "image", &["write -P 17 0 2M"]);
        add(path, &["-g", "65536", "image", "b"]);
        let (storage, left) = (load(path), Rc::new(Cell::new(None)));
        let failing = Failing(storage.clone(), left.clone());
        let parts = Parts { storage: failing, data_file: None, backing: None };
        let image = now(Image::open(parts, &Options::default())).unwrap();
        left.set(Some(n));
        let resized = now(image.resize(1 << 20));
        left.set(None);
        if resized.is_ok() {
            assert!(
                n > 0 && told > 0,
                "{n} writes, and {told} failures that bitmaps had to tell of"
            );
            return;
        }
        // Where it cannot be closed, the bitmap is marked as in use.
        let _ = now(image.close());
        fs::write(path.join("image"), &*storage.0.borrow()).unwrap();
        if flags(path).contains("in-use") {
            continue;
        }
        assert_eq!(qemu_img(path, &["convert", "-O", "raw", "image", "raw"]).0, Some(0));
        let content = fs::read(path.join("raw")).unwrap();
        let dirty = dirty(path, "b");
        for (at, granule) in (0..).step_by(64).zip(content.chunks(65536)) {
            let changed = granule.iter().any(|&byte| byte != 17);
            let tells = dirty.iter().any(|&(start, end)| start <= at && at < end);
            assert!(
                tells || !changed,
                "write {n} failed: {at} KiB has changed, the bitmap says {dirty:?}"
            );
            told += u32::from(changed);
        }
    }
}
