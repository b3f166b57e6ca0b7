// SPDX-License-Identifier: Apache-2.0
//! Images that are right, and such as are not.
use super::refcounts::refcount;
use super::*;
use crate::crash::image::{Below, Filled, Format, create, set_refcount};

const FORMAT: Format = Format {
    version: 3,
    cluster_bits: 9,
    refcount_order: 4,
    extended_l2: false,
    lazy_refcounts: false,
    data_file: false,
    below: Below::Nothing,
    bitmaps: None,
    unknown: false,
    filled: Filled { data: 0, preallocated: 0, zero: 0, compressed: 0 },
};

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn a_new_image_is_without_errors_and_leaks() {
    let filled =
        Filled { data: 200_000, preallocated: 200_000, zero: 200_000, compressed: 200_000 };
    for filled in [Filled::default(), filled] {
        for refcount_order in 0..=6 {
            for cluster_bits in [9, 12, 16] {
                let bitmaps = Some(9).filter(|_| refcount_order > 3);
                let format = Format { refcount_order, cluster_bits, filled, bitmaps, ..FORMAT };
                let (image, _) = create(&format, &vec![7; 1 << 20], 3);
                assert_eq!(check(&image), Ok(Found::default()), "{format:?}");
            }
        }
    }
}

#[test]
fn two_owners_a_lost_refcount_and_a_reference_to_nowhere_are_errors_and_a_leak_is_none() {
    let (image, _) = create(&FORMAT, &vec![0; 1 << 16], 0);
    let mut entry = image.clone();
    set_refcount(&mut entry[1024..1536], 4, 9, 1);
    // What is past the end takes no space.
    assert_eq!(check(&entry).map(|found| found.leaks), Ok(0));
    let mut leak = entry.clone();
    leak.resize(10 * 512, 0);
    assert_eq!(check(&leak).map(|found| found.leaks), Ok(1));
    put(&mut entry, 3 * 512, &(COPIED | (9 * 512)).to_be_bytes());
    assert!(check(&entry).unwrap_err().contains("past the end"));
    entry.resize(10 * 512, 0);
    assert_eq!(check(&entry).map(|found| found.leaks), Ok(0));
    let mut twice = entry.clone();
    put(&mut twice, 9 * 512, &(COPIED | 512).to_be_bytes());
    assert!(check(&twice).unwrap_err().contains("the refcount table and guest cluster 0"));
    put(&mut entry, 1024 + 18, &[0, 0]);
    assert!(check(&entry).unwrap_err().contains("refcount 0"));
}

#[test]
fn a_cluster_that_two_compressed_ones_share_counts_twice() {
    let filled = Filled { compressed: 1_000_000, ..Filled::default() };
    let (image, _) = create(&Format { filled, ..FORMAT }, &[7; 4096], 0);
    assert_eq!(check(&image), Ok(Found::default()));
    let counts = &image[1024..1536];
    let shared = (0..256).find(|&n| refcount(counts, 4, n) == 2).unwrap();
    let mut less = image.clone();
    put(&mut less, 1024 + 2 * shared, &[0, 1]);
    assert!(check(&less).unwrap_err().contains("refcount 1 and 2 owners"));
    put(&mut less, 1024 + 2 * shared, &[0, 3]);
    assert_eq!(check(&less).map(|found| found.leaks), Ok(1));
}

#[test]
fn what_a_snapshot_and_the_disk_share_has_two_owners_and_no_flags() {
    let filled = Filled { data: 1_000_000, ..Filled::default() };
    let (mut image, _) = create(&Format { filled, ..FORMAT }, &[7; 1024], 0);
    // Header, refcounts, L1 table, L2 table, two guest clusters; then what the snapshot has.
    let end = image.len() as u64;
    let [l1, table] = [end, end + 512];
    image.resize(image.len() + 1024, 0);
    let l2 = u64::from_be_bytes(image[1536..1544].try_into().unwrap()) & OFFSET;
    put(&mut image, index(l1), &l2.to_be_bytes());
    put(&mut image, index(table), &l1.to_be_bytes());
    put(&mut image, index(table) + 8, &1u32.to_be_bytes());
    put(&mut image, 60, &1u32.to_be_bytes());
    put(&mut image, 64, &table.to_be_bytes());
    for cluster in [l1 / 512, table / 512] {
        set_refcount(&mut image[1024..1536], 4, index(cluster), 1);
    }
    let why = check(&image).unwrap_err();
    assert!(why.contains("refcount 1 and 2 owners"), "{why}");
    let guests = [0, 8].map(|slot| {
        let at = index(l2) + slot;
        u64::from_be_bytes(image[at..at + 8].try_into().unwrap()) & OFFSET
    });
    for cluster in [l2, guests[0], guests[1]] {
        put(&mut image, 1024 + 2 * index(cluster / 512), &[0, 2]);
    }
    let why = check(&image).unwrap_err();
    assert!(why.contains("says of refcount 1, but its cluster has 2 owners"), "{why}");
    put(&mut image, 1536, &l2.to_be_bytes());
    for (slot, guest) in [0, 8].into_iter().zip(guests) {
        put(&mut image, index(l2) + slot, &guest.to_be_bytes());
    }
    assert_eq!(check(&image), Ok(Found::default()));
    // Once the snapshot is gone, flags are missing, which is told, and clusters are leaked.
    put(&mut image, 60, &0u32.to_be_bytes());
    assert_eq!(check(&image), Ok(Found { leaks: 5, ..Found::default() }));
    for cluster in [l2, guests[0], guests[1]] {
        put(&mut image, 1024 + 2 * index(cluster / 512), &[0, 1]);
    }
    assert_eq!(check(&image), Ok(Found { leaks: 2, flags: 3, dirty: false }));
}
