// SPDX-License-Identifier: Apache-2.0
//! What has to be the same in images that had the same operations: content, size, and which ranges
//! are data, in which image of the chain, as far as the guest can see. Checks find nothing, so that
//! every cluster has as many references as its refcount says.
//!
//! Where a range is zero, the engines may differ in how:
//! - QEMU gives a zero flag to clusters that nobody allocated and nothing lies below; ours leaves
//!   them alone. With version 2 on another image, QEMU writes zeroes past the end of that one.
//! - Zeroes that may be unmapped and that touch a part of a cluster, the rest of which is zero
//!   already: QEMU frees the cluster, ours leaves it as it is.
//! - Zeroes over subclusters and compressed clusters together: QEMU writes all of them as data.
//! - In a raw external data file, ours makes a hole and leaves the mapping; QEMU unmaps as well.
//! - Where a new cluster is not written to, QEMU writes zeroes and ours leaves a hole in the file.
//!
//! So there is as much compressed in ours as in QEMU's, or less: ours clears the rest of the last
//! cluster when an image grows, which takes a compressed one apart. In a session that compresses it
//! may be more: ours compresses a cluster a part of which becomes zero, and QEMU takes it apart.
//!
//! QEMU's check and ours say the same of each image: clusters, those with a place, fragments,
//! compressed ones, and where the image ends in the file.
use std::ops::Range;

use qcow2::check::Report;
use serde_json::Value;

use crate::tools::look;
use crate::world::World;

/// A part of the guest in `qemu-img map`, and how far below its data is; `None` is zero.
type Part = (Range<usize>, Option<u64>);

fn map(world: &World<'_>, image: &str) -> Vec<Part> {
    let map = look(world.path(), &["map", "--output=json"], &[image]);
    let map: Value = serde_json::from_str(&map).unwrap();
    let parts = map.as_array().unwrap().iter().map(|entry| {
        let number = |field: &str| entry[field].as_u64().unwrap();
        let [start, len] = ["start", "length"].map(|f| usize::try_from(number(f)).unwrap());
        let data = entry["data"] == true;
        assert!(data || entry["zero"] == true, "{image}: {entry}");
        (start..start + len, data.then(|| number("depth")))
    });
    parts.collect()
}

/// Compares two maps of images with this content, where that is not zero.
fn compare_maps(content: &[u8], theirs: &[Part], ours: &[Part]) -> Result<(), String> {
    let (mut theirs, mut ours) = (theirs.iter().peekable(), ours.iter().peekable());
    let mut at = 0;
    while let (Some((a, there)), Some((b, here))) = (theirs.peek(), ours.peek()) {
        let end = a.end.min(b.end);
        if there != here && content[at..end].iter().any(|byte| *byte != 0) {
            return Err(format!("{at}..{end} is {here:?}, not {there:?}"));
        }
        at = end;
        theirs.next_if(|(range, _)| range.end == end);
        ours.next_if(|(range, _)| range.end == end);
    }
    if at == content.len() { Ok(()) } else { Err(format!("the map ends at {at}")) }
}

/// What QEMU's check says of an image, in which it finds no errors.
fn check(world: &World<'_>, image: &str) -> Report {
    let text = look(world.path(), &["check", "--output=json"], &[image]);
    let check: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(check["check-errors"], 0, "{image}: {text}");
    let number = |field: &str| check[field].as_u64().unwrap_or(0);
    Report {
        corruptions: number("corruptions"),
        leaks: number("leaks"),
        total_clusters: number("total-clusters"),
        allocated_clusters: number("allocated-clusters"),
        fragmented_clusters: number("fragmented-clusters"),
        compressed_clusters: number("compressed-clusters"),
        image_end_offset: number("image-end-offset"),
        ..Report::default()
    }
}

/// Compares images with the first, which is QEMU's; each with what our check says of it.
pub(crate) fn images(world: &World<'_>, images: &[(String, Report)]) {
    for (image, ours) in images {
        assert_eq!(check(world, image), *ours, "{}: {image}: QEMU's check and ours", world.what);
    }
    let ((first, theirs), others) = images.split_first().unwrap();
    let their_map = map(world, first);
    for (image, ours) in others {
        look(world.path(), &["compare"], &[first, image]);
        let what = format!("{}: {image}", world.what);
        assert_eq!(ours.total_clusters, theirs.total_clusters, "{what}: clusters");
        let [ours, theirs] = [ours, theirs].map(|report| report.compressed_clusters);
        assert!(
            world.compressed || ours <= theirs,
            "{what}: {ours} compressed clusters, and {theirs} of QEMU's"
        );
        let same = compare_maps(&world.model, &their_map, &map(world, image));
        same.unwrap_or_else(|difference| panic!("{what}: {difference}"));
    }
}
