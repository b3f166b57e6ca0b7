// SPDX-License-Identifier: Apache-2.0
//! Each option of `qemu-img create`: our image and QEMU's are the same to `qemu-img info`, `map` and
//! `check`.
use std::fs;
use std::path::Path;

use qcow2::create::{CreateOptions, DataFile, Preallocation, create};
use qcow2::layout::header::{Backing, Compression};

use crate::memory::{Memory, now, qemu_img};

/// What `qemu-img info` and `map` say, without what depends on the place of clusters in the file.
fn described(directory: &Path, name: &str) -> String {
    let (code, check) = qemu_img(directory, &["check", name]);
    assert_eq!(code, Some(0), "{name}: {check}");
    assert!(check.starts_with("No errors were found"), "{check}");
    let (_, info) = qemu_img(directory, &["info", "--output=json", name]);
    let (code, map) = qemu_img(directory, &["map", "--output=json", name]);
    assert_eq!(code, Some(0), "{map}");
    let info = info.lines().filter(|line| !line.contains("actual-size"));
    let mut parts: Vec<(String, u64)> = Vec::new();
    for line in map.lines().filter(|line| line.contains("\"start\"")) {
        let field = |name: &str| {
            let rest = line.split(&format!("\"{name}\": ")).nth(1).unwrap();
            rest.split([',', '}']).next().unwrap().trim().to_owned()
        };
        // What has a place is zero where the file has a hole, which is the file system's affair.
        let zero = if field("present") == "true" { "any".to_owned() } else { field("zero") };
        let state = format!("depth {} present {} zero {zero}", field("depth"), field("present"));
        let len: u64 = field("length").parse().unwrap();
        match parts.last_mut() {
            Some((last, sum)) if *last == state => *sum += len,
            _ => parts.push((state, len)),
        }
    }
    let map = parts.iter().map(|(state, len)| format!("{len} bytes: {state}"));
    info.map(str::to_owned).chain(map).collect::<Vec<_>>().join("\n")
}

fn arguments(options: &CreateOptions) -> String {
    let on = |flag| if flag { "on" } else { "off" };
    let mut text = format!(
        "compat={},cluster_size={},refcount_bits={},extended_l2={},lazy_refcounts={},\
         compression_type={},preallocation={}",
        if options.version == 2 { "0.10" } else { "1.1" },
        options.cluster_size,
        options.refcount_bits,
        on(options.extended_l2),
        on(options.lazy_refcounts),
        if options.compression == Compression::Zstd { "zstd" } else { "zlib" },
        format!("{:?}", options.preallocation).to_lowercase(),
    );
    if let Some(backing) = &options.backing {
        text += &format!(",backing_file={}", backing.name.display());
        text += &backing.format.as_ref().map_or(String::new(), |f| format!(",backing_fmt={f}"));
    }
    if let Some(file) = &options.data_file {
        text += &format!(",data_file={},data_file_raw={}", file.name.display(), on(file.raw));
    }
    text
}

/// Whether we refuse it where QEMU does, and make the same where it does not.
fn compare(directory: &Path, options: &CreateOptions) -> bool {
    let (name, what) = ("image", arguments(options));
    let _ = fs::remove_file(directory.join(name));
    let size = options.size.to_string();
    let (code, text) =
        qemu_img(directory, &["create", "-q", "-f", "qcow2", "-o", &what, name, &size]);
    let (image, data) = (Memory::default(), Memory::default());
    let ours = now(create(&image, options.data_file.as_ref().map(|_| &data), options));
    assert_eq!(ours.is_ok(), code == Some(0), "{what}: {ours:?}; QEMU: {text}");
    if ours.is_err() {
        assert!(image.0.borrow().is_empty(), "{what}: refused, and written to");
        return false;
    }
    let theirs = described(directory, name);
    if let Some(file) = &options.data_file {
        let path = directory.join(&file.name);
        // QEMU makes it longer, to a whole cluster, with some ways of preallocation.
        let (theirs, ours) = (fs::metadata(&path).unwrap().len(), data.0.borrow().len() as u64);
        assert_eq!(ours, options.size.next_multiple_of(512), "{what}");
        assert!((ours..ours + options.cluster_size).contains(&theirs), "{what}: {theirs}");
        fs::write(path, &*data.0.borrow()).unwrap();
    }
    fs::write(directory.join(name), &*image.0.borrow()).unwrap();
    assert_eq!(described(directory, name), theirs, "{what}, {size} bytes");
    true
}

fn directory_with_base() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = qemu_img(directory.path(), &["create", "-q", "-f", "qcow2", "base", "300000"]);
    assert_eq!(made.0, Some(0), "{}", made.1);
    directory
}

#[test]
fn an_image_is_as_qemu_img_makes_it_with_every_option() {
    let directory = directory_with_base();
    let mut made = 0;
    let mut number = 0u32;
    for cluster_size in [512, 4096, 16384, 65536, 2 << 20] {
        for version in [2, 3] {
            for extended_l2 in [false, true] {
                for place in 0..5 {
                    number += 1;
                    let mut options = CreateOptions::new([1 << 20, 700_001][number as usize % 2]);
                    options.cluster_size = cluster_size;
                    options.version = version;
                    options.extended_l2 = extended_l2;
                    // The other options go round, with steps that have no common factor.
                    if version == 3 {
                        options.refcount_bits = 1 << (number % 7);
                        options.lazy_refcounts = number.is_multiple_of(2);
                        if number.is_multiple_of(3) {
                            options.compression = Compression::Zstd;
                        }
                    }
                    options.preallocation = [
                        Preallocation::Off,
                        Preallocation::Metadata,
                        Preallocation::Full,
                        Preallocation::Falloc,
                    ][(number / 5 + number) as usize % 4];
                    let format = (place == 2).then(|| "qcow2".to_owned());
                    options.backing = (place == 2).then(|| Backing { name: "base".into(), format });
                    options.data_file =
                        (place >= 3).then(|| DataFile { name: "data".into(), raw: place == 4 });
                    made += u32::from(compare(directory.path(), &options));
                }
            }
        }
    }
    assert!(made >= 30, "{made} images only were made");
}

#[test]
fn sizes_at_the_edges_are_as_qemu_img_has_them() {
    let directory = directory_with_base();
    for size in [0, 1, 511, 65536, 65537, 64 << 40] {
        assert!(compare(directory.path(), &CreateOptions::new(size)), "{size}");
    }
    let options = CreateOptions { cluster_size: 512, ..CreateOptions::new(1 << 40) };
    assert!(!compare(directory.path(), &options), "its L1 table is too large");
    for cluster_size in [0, 256, 1000, 4 << 20] {
        let options = CreateOptions { cluster_size, ..CreateOptions::new(1 << 20) };
        assert!(!compare(directory.path(), &options), "{cluster_size}");
    }
    for refcount_bits in [0, 3, 128] {
        let options = CreateOptions { refcount_bits, ..CreateOptions::new(1 << 20) };
        assert!(!compare(directory.path(), &options), "{refcount_bits}");
    }
}

#[test]
fn an_image_with_many_preallocated_clusters_has_refcounts_for_all_of_them() {
    let directory = directory_with_base();
    for refcount_bits in [1, 16, 64] {
        let options = CreateOptions {
            cluster_size: 512,
            refcount_bits,
            preallocation: Preallocation::Metadata,
            ..CreateOptions::new(5 << 20)
        };
        assert!(compare(directory.path(), &options));
    }
}
