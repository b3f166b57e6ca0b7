// SPDX-License-Identifier: Apache-2.0
//! Our engine beside QEMU's: the same operations, drawn from a seed, on copies of one image. One
//! copy is ours alone, one is QEMU's alone, and on the third the two take turns. After each session
//! (all that happens between opening and closing) the three have the same content and size; at the
//! end `qemu-img map` says the same of them and `qemu-img check` finds nothing.
//!
//! The kinds of images stand in [`cases`]; where the engines may differ, in [`compare`] and
//! [`operations::Limits`]. Each kind runs with one seed. With more, as `cargo xtask test --full`
//! does: `LUNETTE_SEEDS=20 cargo test -p qcow2 --test differential -- --include-ignored`; with
//! `LUNETTE_SEEDS=7..7` it is the seed 7 alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests' helpers")]

mod cases;
mod compare;
mod layer;
mod operations;
mod tools;
mod world;

#[test]
fn images_of_both_versions_and_all_sizes_of_clusters_are_the_same_to_qemu() {
    world::run(cases::CLUSTERS, 0);
}

#[test]
fn images_with_refcounts_of_all_widths_are_the_same_to_qemu() {
    world::run(cases::REFCOUNTS, 0);
}

#[test]
fn images_with_subclusters_are_the_same_to_qemu() {
    world::run(cases::SUBCLUSTERS, 0);
}

#[test]
fn preallocated_images_are_the_same_to_qemu() {
    world::run(cases::PREALLOCATED, 0);
}

#[test]
fn images_with_an_external_data_file_are_the_same_to_qemu() {
    world::run(cases::DATA_FILES, 0);
}

#[test]
fn images_with_compressed_clusters_are_the_same_to_qemu() {
    world::run(cases::COMPRESSED, 0);
}

#[test]
fn images_with_a_snapshot_are_the_same_to_qemu() {
    world::run(cases::SNAPSHOTS, 0);
}

#[test]
fn images_on_a_raw_file_are_the_same_to_qemu() {
    world::run(cases::ON_RAW, 0);
}

#[test]
fn images_on_another_qcow2_image_are_the_same_to_qemu() {
    world::run(cases::ON_QCOW2, 0);
}

#[test]
fn encrypted_images_are_the_same_to_qemu() {
    world::run(cases::ENCRYPTED, 0);
}

#[test]
fn the_last_cluster_is_discarded_though_the_image_ends_in_it() {
    let case = &cases::COMPRESSED[5];
    assert!(case.has("extended_l2"));
    let (cluster, size) = (case.cluster_size(), case.size());
    let at = size / cluster * cluster;
    let mut world = world::World::new(case, 2);
    let tail = usize::try_from(at).unwrap()..;
    assert!(world.model[tail].iter().any(|byte| *byte != 0), "it has data");
    world.session(1, &[operations::Operation::Discard { at, len: size - at }]);
    world.compare();
}

#[test]
#[ignore = "takes a minute for each of LUNETTE_SEEDS"]
fn all_kinds_of_images_are_the_same_to_qemu_with_more_seeds() {
    let seeds = std::env::var("LUNETTE_SEEDS").unwrap_or_else(|_| "10".into());
    let (first, end) = seeds.split_once("..").unwrap_or(("1", &seeds));
    for seed in first.parse().unwrap()..=end.parse::<u64>().unwrap() {
        for cases in cases::ALL {
            world::run(cases, seed);
        }
    }
}
