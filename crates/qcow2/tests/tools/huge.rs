// SPDX-License-Identifier: Apache-2.0
//! Images of 64 TiB, on files that are mostly holes.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use qcow2::check::{Repair, check};
use qcow2::{Extent, Image, Options, Parts, Storage};
use sgl::Sgl;

use crate::memory::{now, qemu_img, qemu_io};

/// A file, without a runtime.
#[derive(Clone)]
struct Disk(Rc<File>);

impl Disk {
    fn open(path: &Path) -> Self {
        Disk(Rc::new(File::options().read(true).write(true).open(path).unwrap()))
    }

    /// Of a cluster that the first block counts.
    fn refcount(&self, cluster: u64) -> u16 {
        let mut bytes = [0; 2];
        self.0.read_exact_at(&mut bytes, self.word(self.word(48)) + cluster * 2).unwrap();
        u16::from_be_bytes(bytes)
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    }
}

impl Storage for Disk {
    async fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let mut bytes = vec![0; data.len()];
        let mut done = 0;
        while done < bytes.len() {
            match self.0.read_at(&mut bytes[done..], offset + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        data.write_at(0, &bytes);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let mut bytes = vec![0; data.len()];
        data.read_at(0, &mut bytes);
        self.0.write_all_at(&bytes, offset)
    }

    async fn zero(&self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        self.0.write_all_at(&vec![0; len as usize], offset)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn map(&self, _: u64, len: u64) -> io::Result<(Extent, u64)> {
        Ok((Extent::Data, len))
    }
}

fn open(disk: &Disk) -> Image<Disk> {
    let parts = Parts { storage: disk.clone(), data_file: None, backing: None };
    now(Image::open(parts, &Options::default())).unwrap()
}

fn content(offset: u64) -> Vec<u8> {
    offset.to_le_bytes().repeat(64)
}

fn write(image: &Image<Disk>, offset: u64) {
    now(image.write(&Sgl::from_slice(&mut content(offset)), offset)).unwrap();
}

fn assert_content(image: &Image<Disk>, offset: u64) {
    let mut bytes = vec![0; 512];
    now(image.read(&Sgl::from_slice(&mut bytes), offset)).unwrap();
    assert!(bytes == content(offset), "{offset:#x}");
}

/// Offsets all over the image, its last sector among them.
fn offsets(count: u64, end: u64) -> Vec<u64> {
    let mut number = 7u64;
    let mut next = || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (number >> 16) % (end / 512) * 512
    };
    (1..count).map(|_| next()).chain([end - 512]).collect()
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn assert_clean(directory: &Path, disk: &Disk) {
    let report = now(check(disk, Repair::None)).unwrap();
    assert_eq!((report.corruptions, report.leaks), (0, 0), "{:?}", report.findings);
    let (code, text) = qemu_img(directory, &["check", "-q", "image"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn an_image_grows_to_64_tib_and_is_written_everywhere_with_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let create = ["create", "-q", "-f", "qcow2", "-o", "preallocation=off", "image", "63T"];
    assert_eq!(qemu_img(path, &create).0, Some(0));
    let disk = Disk::open(&path.join("image"));
    let image = open(&disk);
    let (small, large) = (63 << 40, 64 << 40);
    let first = offsets(40, small);
    first.iter().for_each(|at| write(&image, *at));
    now(image.resize(large)).unwrap();
    let second = offsets(40, large);
    second.iter().for_each(|at| write(&image, *at));
    let cache = image.cache();
    assert!(cache.bytes <= 32 << 20, "{cache:?}");
    now(image.close()).unwrap();
    drop(image);
    assert_clean(path, &disk);
    let image = open(&disk);
    assert_eq!(image.size(), large);
    first.iter().chain(&second).for_each(|at| assert_content(&image, *at));
    now(image.close()).unwrap();
    drop(image);
    let last = format!("read -v {} 512", large - 512);
    qemu_io(path, "image", &[&last]);
    let peak = peak_memory();
    assert!(peak < 600 << 20, "{peak} bytes");
}

#[test]
fn more_than_256_mib_of_tables_are_looked_through_when_an_image_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // Each table of 2 MiB maps 512 GiB.
    let create = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", "image", "72T"];
    assert_eq!(qemu_img(path, &create).0, Some(0));
    let disk = Disk::open(&path.join("image"));
    let image = open(&disk);
    let places = (0..140).map(|table| table << 39);
    places.for_each(|at| write(&image, at));
    now(image.close()).unwrap();
    drop(image);
    // The last cluster is leaked, and the mark is taken away.
    let table = disk.word(disk.word(40) + 139 * 8) & !(1 << 63);
    let leaked = (disk.word(table) & !(1 << 63)) >> 21;
    disk.0.write_all_at(&[0; 8], table).unwrap();
    disk.0.write_all_at(&[0; 8], 88).unwrap();
    assert_eq!(disk.refcount(leaked), 1);
    drop(open(&disk));
    assert_eq!(disk.refcount(leaked), 0);
}

#[test]
fn a_file_that_is_a_hole_of_many_terabytes_takes_no_memory_to_be_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let create = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "image", "1M"];
    assert_eq!(qemu_img(path, &create).0, Some(0));
    qemu_io(path, "image", &["write 0 64k"]);
    let disk = Disk::open(&path.join("image"));
    disk.0.set_len(15 << 40).unwrap();
    let report = now(check(&disk, Repair::None)).unwrap();
    assert_eq!((report.corruptions, report.leaks), (0, 0), "{:?}", report.findings);
    drop(open(&disk));
    let peak = peak_memory();
    assert!(peak < 600 << 20, "{peak} bytes");
}
