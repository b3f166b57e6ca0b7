// SPDX-License-Identifier: Apache-2.0
//! Our numbers beside those of `qemu-img check`, for images that are whole and damaged ones; and
//! what is left after a repair of ours.
use std::fs;
use std::path::Path;

use qcow2::check::{Repair, Report, check};
use qcow2::create::{CreateOptions, Preallocation, create};
use qcow2::{Image, Options, Parts};
use sgl::Sgl;

use crate::memory::{COPIED, Memory, OFFSET, now, number, places, qemu_img, qemu_io, set, word};

/// What QEMU counts, and how often it could not go on.
fn theirs(directory: &Path, image: &Memory) -> (Report, u64) {
    fs::write(directory.join("image"), &*image.0.borrow()).unwrap();
    let (_, json) = qemu_img(directory, &["check", "-U", "--output=json", "image"]);
    assert!(json.contains("check-errors"), "{json}");
    let report = Report {
        corruptions: number(&json, "corruptions"),
        leaks: number(&json, "leaks"),
        total_clusters: number(&json, "total-clusters"),
        allocated_clusters: number(&json, "allocated-clusters"),
        fragmented_clusters: number(&json, "fragmented-clusters"),
        compressed_clusters: number(&json, "compressed-clusters"),
        image_end_offset: number(&json, "image-end-offset"),
        ..Report::default()
    };
    (report, number(&json, "check-errors"))
}

/// What QEMU reads in an image, if it can.
fn read_by_qemu(directory: &Path, image: &Memory) -> Option<Vec<u8>> {
    fs::write(directory.join("image"), &*image.0.borrow()).unwrap();
    let (code, _) = qemu_img(directory, &["convert", "-f", "qcow2", "-O", "raw", "image", "raw"]);
    (code == Some(0)).then(|| fs::read(directory.join("raw")).unwrap())
}

/// What we read in it.
fn read_by_us(image: &Memory) -> Vec<u8> {
    let parts = Parts { storage: image.clone(), data_file: None, backing: None };
    let options = Options { read_only: true, ..Options::default() };
    let open = now(Image::open(parts, &options)).unwrap();
    let mut bytes = vec![0; open.size() as usize];
    now(open.read(&Sgl::from_slice(&mut bytes), 0)).unwrap();
    bytes
}

fn ours(image: &Memory, repair: Repair) -> Report {
    now(check(image, repair)).unwrap()
}

fn without_words(report: Report) -> Report {
    Report { findings: Vec::new(), ..report }
}

fn sample(options: &CreateOptions) -> Memory {
    let image = Memory::default();
    now(create(&image, None, options)).unwrap();
    image
}

fn preallocated(cluster_size: u64, refcount_bits: u32) -> CreateOptions {
    CreateOptions {
        cluster_size,
        refcount_bits,
        preallocation: Preallocation::Metadata,
        ..CreateOptions::new(256 << 10)
    }
}

#[test]
fn images_that_qemu_wrote_have_its_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for options in [
        "cluster_size=65536",
        "cluster_size=512",
        "cluster_size=4096,refcount_bits=1",
        "cluster_size=4096,refcount_bits=64",
        "cluster_size=16384,extended_l2=on",
        "compat=0.10",
        "lazy_refcounts=on",
    ] {
        let (code, text) =
            qemu_img(path, &["create", "-q", "-f", "qcow2", "-o", options, "image", "1M"]);
        assert_eq!(code, Some(0), "{text}");
        qemu_io(
            path,
            "image",
            &[
                "write 0 100k",
                "write -c 512k 64k",
                "write -z 300k 64k",
                "write 200k 8k",
                "write -c 640k 64k",
                "discard 0 64k",
            ],
        );
        if !options.contains("refcount_bits=1") {
            assert_eq!(qemu_img(path, &["snapshot", "-c", "one", "image"]).0, Some(0));
            assert_eq!(
                qemu_img(path, &["bitmap", "--add", "image", "b"]).0 == Some(0),
                !options.contains("0.10")
            );
            qemu_io(path, "image", &["write 64k 70k", "write 512k 10k"]);
        }
        let image = Memory::default();
        *image.0.borrow_mut() = fs::read(path.join("image")).unwrap();
        let report = ours(&image, Repair::None);
        assert_eq!(report.findings, [""; 0], "{options}");
        assert_eq!((report, 0), theirs(path, &image), "{options}");
    }
}

/// How an image is damaged.
type Damage = (&'static str, bool, fn(&Memory));

/// With whether it is repaired here.
const DAMAGES: &[Damage] = &[
    ("a refcount is too high", true, |image| {
        let (block, _, l2) = places(image);
        put16(image, block, (word(image, l2) & OFFSET) >> 12, 2);
    }),
    ("a refcount is too low", true, |image| {
        let (block, _, l2) = places(image);
        put16(image, block, (word(image, l2) & OFFSET) >> 12, 0);
    }),
    ("the L2 table's refcount is zero", true, |image| {
        let (block, _, l2) = places(image);
        put16(image, block, l2 >> 12, 0);
    }),
    ("the header's refcount is zero", true, |image| {
        put16(image, places(image).0, 0, 0);
    }),
    ("the COPIED flag of a cluster is missing", true, |image| {
        let l2 = places(image).2;
        set(image, l2, word(image, l2) & !COPIED);
    }),
    ("the COPIED flag of an L2 table is missing", true, |image| {
        let l1 = places(image).1;
        set(image, l1, word(image, l1) & !COPIED);
    }),
    ("a mapping is lost", true, |image| set(image, places(image).2 + 8, 0)),
    ("all mappings are lost", true, |image| set(image, places(image).1, 0)),
    ("two guest clusters share one", true, |image| {
        let l2 = places(image).2;
        set(image, l2 + 8, word(image, l2));
    }),
    ("a cluster is past the end of the file", false, |image| {
        set(image, places(image).2, 1 << 40 | COPIED);
    }),
    ("a cluster is not aligned", false, |image| {
        let l2 = places(image).2;
        set(image, l2, word(image, l2) + 512);
    }),
    ("an L2 table is not aligned", false, |image| {
        let l1 = places(image).1;
        set(image, l1, word(image, l1) + 512);
    }),
    ("an L2 table is past the end of the file", false, |image| {
        set(image, places(image).1, 1 << 40 | COPIED);
    }),
    ("a guest cluster is the L1 table", true, |image| {
        let (_, l1, l2) = places(image);
        set(image, l2, l1 | COPIED);
    }),
    ("a guest cluster is its own L2 table", true, |image| {
        let l2 = places(image).2;
        set(image, l2, l2 | COPIED);
    }),
    ("a zero cluster's place is not aligned", true, |image| {
        let l2 = places(image).2;
        set(image, l2, word(image, l2) + 512 + 1);
    }),
    ("reserved bits of an L2 entry are set", false, |image| {
        let l2 = places(image).2;
        set(image, l2, word(image, l2) | 4);
    }),
    ("reserved bits of an L1 entry are set", false, |image| {
        let l1 = places(image).1;
        set(image, l1, word(image, l1) | 4);
    }),
    ("the refcount table is past the end of the file", true, |image| set(image, 48, 1 << 40)),
    ("the refcount table is the L1 table", true, |image| set(image, 48, places(image).1)),
    ("the refcount block is the L1 table", true, |image| {
        set(image, word(image, 48), places(image).1);
    }),
    ("the refcount block is a guest cluster", true, |image| {
        set(image, word(image, 48), word(image, places(image).2) & OFFSET);
    }),
    ("the refcount block is there twice", true, |image| {
        let table = word(image, 48);
        set(image, table + 8, word(image, table));
    }),
    ("reserved bits of the refcount table are set", true, |image| {
        let table = word(image, 48);
        set(image, table, word(image, table) | 4);
    }),
    ("the refcount block is missing", true, |image| {
        set(image, word(image, 48), 0);
    }),
    ("the refcount block is not aligned", true, |image| {
        let table = word(image, 48);
        set(image, table, word(image, table) + 512);
    }),
    ("the refcount block is past the end of the file", true, |image| {
        set(image, word(image, 48), 1 << 40);
    }),
];

fn put16(image: &Memory, block: u64, cluster: u64, count: u16) {
    let at = (block + cluster * 2) as usize;
    image.0.borrow_mut()[at..at + 2].copy_from_slice(&count.to_be_bytes());
}

#[test]
fn damaged_images_are_judged_as_qemu_does_and_are_clean_after_a_repair() {
    let directory = tempfile::tempdir().unwrap();
    let mut different = Vec::new();
    for (name, repairable, damage) in DAMAGES {
        let image = sample(&preallocated(4096, 16));
        damage(&image);
        let path = directory.path();
        let (report, (qemu, errors)) = (ours(&image, Repair::None), theirs(path, &image));
        let both = |r: &Report| (r.corruptions, r.leaks);
        assert_ne!(both(&report), (0, 0), "{name}");
        // What is broken is counted once here; QEMU goes on counting what follows from it.
        let same = report.corruptions > 0
            && report.findings.iter().any(|text| {
                ["not aligned", "another structure", "reserved bits"]
                    .iter()
                    .any(|w| text.contains(w))
            });
        if *repairable && both(&report) != both(&qemu) && !same
            || (report.corruptions > 0) != (qemu.corruptions + errors > 0)
        {
            different.push(format!("{name}: {:?}, QEMU {:?}", both(&report), both(&qemu)));
        }
        let before = image.0.borrow().len();
        let read = read_by_qemu(path, &image);
        let repaired = ours(&image, Repair::All);
        assert_eq!(repaired.repaired, *repairable, "{name}: {:?}", repaired.findings);
        if *repairable {
            let clean = ours(&image, Repair::None);
            assert_eq!((clean.corruptions, clean.leaks), (0, 0), "{name}: {:?}", clean.findings);
            assert_eq!((without_words(clean), 0), theirs(path, &image), "{name}");
            let again = read_by_qemu(path, &image).unwrap();
            assert_eq!(read_by_us(&image), again, "{name}");
            assert!(read.is_none_or(|read| read == again), "{name}: data changed");
        } else {
            assert_eq!(read_by_qemu(path, &image), read, "{name}: data changed");
            assert_eq!(image.0.borrow().len(), before, "{name}: clusters were given up or added");
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn an_l2_table_at_the_place_of_another_structure_is_copied_with_all_that_it_maps() {
    let directory = tempfile::tempdir().unwrap();
    for place in [0, 1, 2] {
        let image = sample(&CreateOptions { size: 64 << 10, ..preallocated(512, 16) });
        let (_, l1, _) = places(&image);
        let place = [0, l1, word(&image, 48)][place];
        // The first table still is the image's.
        set(&image, l1 + 8, place | COPIED);
        let before = read_by_qemu(directory.path(), &image);
        let report = ours(&image, Repair::All);
        if !report.repaired {
            // Taken as entries, the words of the header refer to what cannot be.
            assert_eq!(place, 0, "{:?}", report.findings);
            continue;
        }
        assert_eq!(without_words(ours(&image, Repair::None)).corruptions, 0);
        let (qemu, errors) = theirs(directory.path(), &image);
        assert_eq!((qemu.corruptions, qemu.leaks, errors), (0, 0, 0), "{place:#x}");
        let after = read_by_qemu(directory.path(), &image).unwrap();
        // What the second table maps are entries, some of which a repair changes.
        let first = 32 << 10;
        let same = before.is_none_or(|before| before[..first] == after[..first]);
        assert!(same, "{place:#x}: data changed");
    }
}

#[test]
fn leaks_alone_are_given_back_with_refcounts_of_each_width() {
    let directory = tempfile::tempdir().unwrap();
    for refcount_bits in [1, 2, 4, 8, 16, 32, 64] {
        let image = sample(&preallocated(4096, refcount_bits));
        let l2 = places(&image).2;
        set(&image, l2 + 24, 0);
        set(&image, l2 + 80, 0);
        assert_eq!(ours(&image, Repair::None).leaks, 2);
        let report = ours(&image, Repair::Leaks);
        assert!(report.repaired, "{:?}", report.findings);
        let (qemu, errors) = theirs(directory.path(), &image);
        assert_eq!((qemu.corruptions, qemu.leaks, errors), (0, 0, 0), "{refcount_bits}");
    }
}

#[test]
fn leaks_are_not_touched_where_there_are_errors_beside_them() {
    let image = sample(&preallocated(4096, 16));
    let l2 = places(&image).2;
    set(&image, l2 + 24, 0);
    set(&image, l2, word(&image, l2) & !COPIED);
    let before = image.0.borrow().clone();
    assert!(!ours(&image, Repair::Leaks).repaired);
    assert!(*image.0.borrow() == before);
}

#[test]
fn the_dirty_and_corrupt_bits_are_cleared_by_a_full_repair() {
    let image = sample(&preallocated(4096, 16));
    set(&image, 72, 3);
    assert!(ours(&image, Repair::All).repaired);
    assert_eq!(word(&image, 72), 0);
}

#[test]
fn no_damaged_byte_makes_a_check_panic() {
    let image = sample(&CreateOptions { size: 64 << 10, ..preallocated(512, 16) });
    let whole = image.0.borrow().clone();
    let mut number = 1u64;
    for _ in 0..2000 {
        (*image.0.borrow_mut()).clone_from(&whole);
        for _ in 0..3 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (number >> 33) as usize % 8192;
            image.0.borrow_mut()[at] = (number >> 20) as u8;
        }
        let _ = now(check(&image, Repair::All));
    }
}

/// Refcounts that are lower than the number of references.
fn too_low(report: &Report) -> usize {
    let numbers = report.findings.iter().filter_map(|text| {
        let (found, wanted) = text.split_once(" has refcount ")?.1.split_once(", references ")?;
        Some((found.parse::<u64>().ok()?, wanted.parse::<u64>().ok()?))
    });
    numbers.filter(|(found, wanted)| found < wanted).count()
}

#[test]
fn a_repair_that_is_cut_off_makes_nothing_worse_and_can_be_done_again() {
    let mut random = 7u64;
    let mut crashes = 0;
    for (name, repairable, damage) in DAMAGES {
        let image = sample(&preallocated(4096, 16));
        damage(&image);
        // A leak and an error at the same time.
        let l2 = word(&image, word(&image, 40)) & OFFSET;
        if l2 == 0 || !repairable {
            continue;
        }
        set(&image, l2 + 160, 0);
        set(&image, l2 + 240, word(&image, l2 + 248));
        let before = image.0.borrow().clone();
        let low = too_low(&ours(&image, Repair::None));
        image.1.borrow_mut().clear();
        assert!(ours(&image, Repair::All).repaired, "{name}");
        let after = read_by_us(&image);
        let log = std::mem::take(&mut *image.1.borrow_mut());
        for end in 0..=log.len() {
            for _ in 0..4 {
                // What was synced is there, and of the rest any sector or none.
                let synced = log[..end].iter().rposition(Option::is_none).unwrap_or(0);
                let mut bytes = before.clone();
                for (index, write) in log[..end].iter().enumerate() {
                    let Some((start, data)) = write else { continue };
                    for (number, sector) in data.chunks(512).enumerate() {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let at = start + number * 512;
                        bytes.resize(bytes.len().max(at + sector.len()), 0);
                        if index < synced || random >> 63 == 0 {
                            bytes[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
                *image.0.borrow_mut() = bytes;
                let report = ours(&image, Repair::None);
                assert!(too_low(&report) <= low, "{name}, after {end}: {:?}", report.findings);
                let again = ours(&image, Repair::All);
                let clean = again.corruptions + again.leaks == 0;
                assert!(clean || again.repaired, "{name}, after {end}: {:?}", again.findings);
                assert!(read_by_us(&image) == after, "{name}, after {end}: data changed");
                crashes += 1;
            }
        }
    }
    assert!(crashes > 100, "{crashes} crashes only");
}
