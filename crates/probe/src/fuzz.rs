// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: disks with partition tables, and superblocks.

use crate::partition_table::{Geometry, Table, read, read_beyond_doubt};
use crate::{iso9660, superblock};
use std::io::Cursor;

/// A disk with a partition table; the first byte says how large its sectors are.
pub fn partitions(input: &[u8]) {
    let Some((choice, disk)) = input.split_first() else { return };
    let sector = if choice & 1 == 0 { 512 } else { 4096 };
    let geometry = Geometry { sector, size: disk.len() as u64 };
    // A disk that ends before its size says is an error, and no more.
    let seen = read(&mut Cursor::new(disk), geometry).ok().flatten();
    for entry in seen.iter().flat_map(Table::entries) {
        assert!(seen.as_ref().and_then(|t| t.entry(entry.number())).is_some());
        if let Some((start, length)) = entry.shown(geometry) {
            assert!(start + length <= geometry.size, "what is shown is inside the disk");
        }
        entry.uuid();
        entry.may_hold_filesystem();
    }
    let sound = read_beyond_doubt(&mut Cursor::new(disk), geometry).ok().flatten();
    assert!(sound.is_none() || sound == seen, "doubt is all that is between them");
    match sound {
        Some(Table::Mbr(table)) => {
            assert!(table.partitions.iter().all(|p| p.last() < geometry.sectors()));
        }
        Some(Table::Gpt(table)) => {
            assert!(table.partitions().iter().all(|p| p.last < geometry.sectors()));
            let mut written = disk.to_vec();
            table.write(&mut Cursor::new(&mut written), geometry, |_| Ok(())).ok();
            assert!(written.len() == disk.len(), "a table is written within the disk");
        }
        None => {}
    }
}

/// The beginning of a device: superblocks, and an ISO's volume descriptor.
pub fn superblocks(bytes: &[u8]) {
    superblock::of_bytes(bytes);
    if let Some(superblock) = bytes.first_chunk() {
        superblock::btrfs::of_superblock(superblock);
    }
    if let Some(descriptor) = bytes.first_chunk() {
        iso9660::primary_volume(descriptor);
    }
}
