// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: disks with partition tables, superblocks, and LVM's metadata.

use crate::lvm::{self, Survey, area, group, label};
use crate::partition_table::{Geometry, Table, read, read_beyond_doubt};
use crate::superblock::Found;
use crate::{iso9660, mdstat, superblock};
use std::io::Cursor;
use std::path::Path;

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

/// LVM's metadata: as the first byte says, the text of a group, or a label and what is in its metadata area, which get
/// the checksums that they should have.
pub fn lvm(input: &[u8]) {
    /// Where the area is, and bytes of it.
    const AREA: (usize, usize) = (4096, 1 << 20);
    let Some((choice, rest)) = input.split_first() else { return };
    if choice & 1 == 0 {
        let text = String::from_utf8_lossy(rest);
        if let Ok(group) = group::parse(&text) {
            assert!(group.volumes.is_sorted(), "volumes are in LVM's order");
            assert!(!group.name.contains('/'), "a name is a part of a path");
        }
        return;
    }
    let mut device = vec![0; 2 << 20];
    let (sector, ring) = rest.split_at(rest.len().min(label::SECTOR));
    let at = label::SECTOR;
    device[at..at + sector.len()].copy_from_slice(sector);
    let ring = &ring[..ring.len().min(AREA.1)];
    let (begin, end) = (AREA.0, AREA.0 + AREA.1);
    device[begin..begin + ring.len()].copy_from_slice(ring);
    device[begin + 4..begin + 20].copy_from_slice(area::MAGIC);
    area::seal(&mut device[begin..end]);
    device[at..at + label::MAGIC.len()].copy_from_slice(label::MAGIC);
    if let Some(sector) = device[at..].first_chunk_mut() {
        label::seal(sector);
    }
    let Ok(Some(physical)) = lvm::device::of_bytes(&device) else { return };
    let mut survey = Survey::default();
    if survey.add(Path::new("/dev/sda"), physical).is_ok()
        && let Ok(known) = survey.finish()
    {
        assert_eq!(known.physical, [Path::new("/dev/sda")]);
        assert!(known.volumes.is_sorted() && known.groups.len() <= 1, "all is in LVM's order");
    }
}

/// A superblock of md, wherever there may be one, and the kernel's table of arrays.
pub fn md(input: &[u8]) {
    const MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";
    const SIZE: usize = 0x40000;
    let input = &input[..input.len().min(4096)];
    for at in [0, 0x1000, SIZE - 0x10000, SIZE - 0x2000] {
        let mut device = vec![0; SIZE];
        device[at..at + input.len()].copy_from_slice(input);
        device[at..at + MAGIC.len()].copy_from_slice(MAGIC);
        match superblock::of_bytes(&device) {
            Found::Known(contents) => assert_eq!(contents.fstype(), "linux_raid_member"),
            found => assert_eq!(found, Found::Unsure, "there is something"),
        }
    }
    let table = String::from_utf8_lossy(input);
    for name in table.lines().filter_map(|line| line.split_once(':')) {
        mdstat::members(&table, name.0.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// What [`lvm`] takes for a group that is sound: its text, or a device with it.
    fn sound() -> [Vec<u8>; 2] {
        let text = lvm::survey::tests::group("g", 'G', 1, "p", 8);
        let label = lvm::label::tests::labelled(&[b'p'; 32], 1, (4096, 1 << 20));
        let area = area::tests::area(4096, 1 << 20, text.as_bytes(), 512, 0);
        let device = [&label[512..1024], &area[..512 + text.len()]].concat();
        [[&[0], text.as_bytes()].concat(), [&[1][..], &device].concat()]
    }

    proptest! {
        #[test]
        fn metadata_of_lvm_with_any_changes_is_survived(
            device in any::<bool>(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut input = sound()[usize::from(device)].clone();
            for (at, byte) in changes {
                let at = at.index(input.len() - 1) + 1;
                input[at] = byte;
            }
            lvm(&input);
            input.truncate(cut.index(input.len()));
            lvm(&input);
        }

        #[test]
        fn any_superblock_of_md_is_survived(mut bytes in vec(any::<u8>(), 0..600), version in 0u8..3) {
            if let Some(byte) = bytes.get_mut(4) {
                *byte = version;
            }
            md(&bytes);
        }
    }
}
