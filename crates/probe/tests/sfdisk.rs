// SPDX-License-Identifier: Apache-2.0
//! Tables that sfdisk(8) makes, and what may become of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

use probe::partition_table::{self, Entry, Geometry, Table, mbr};
use std::io::{Cursor, Write};
use std::process::{Command, Stdio};

const GEOMETRY: Geometry = Geometry { sector: 512, size: 64 << 20 };

fn partitioned(script: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(GEOMETRY.size).unwrap();
    let mut child = Command::new("/usr/sbin/sfdisk")
        .args(["-q", "--no-reread", "--no-tell-kernel"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk is needed (Debian package fdisk)");
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    std::fs::read(file.path()).unwrap()
}

fn read(disk: &[u8]) -> Table {
    let seen = partition_table::read(&mut Cursor::new(disk), GEOMETRY).unwrap().unwrap();
    let sound = partition_table::read_beyond_doubt(&mut Cursor::new(disk), GEOMETRY).unwrap();
    assert!(sound.is_none_or(|sound| sound == seen));
    seen
}

/// Number, first sector and sectors of what is shown, by number.
fn shown(disk: &[u8]) -> Vec<(u32, u64, u64)> {
    let entries = read(disk).entries();
    let mut shown: Vec<_> = entries
        .iter()
        .filter_map(|e| e.shown(GEOMETRY).map(|(at, len)| (e.number(), at / 512, len / 512)))
        .collect();
    shown.sort_unstable();
    shown
}

#[test]
fn partitions_of_an_mbr_are_found_the_logical_ones_too() {
    let table = read(&partitioned(
        "label: dos\nlabel-id: 0x12345678\n,2M,7,*\n,10M,5\n,2M,42\n,1M,83\n,2M,82\n,2M,8e\n",
    ));
    let kinds = [(1, 7), (2, 5), (3, 0x42), (4, 0x83), (5, 0x82), (6, 0x8e)];
    for (number, id) in kinds {
        let entry = table.entry(number).unwrap();
        let Entry::Mbr { disk: 0x1234_5678, partition } = &entry else { panic!("{entry:?}") };
        assert_eq!((partition.id, partition.active), (id, number == 1), "{number}");
        assert_eq!(entry.may_hold_filesystem(), !matches!(number, 2 | 3));
    }
    assert_eq!((table.entry(7), table.entry(0)), (None, None));
    assert_eq!(table.entry(6).unwrap().uuid(), "12345678-06");
}

#[test]
fn partitions_of_a_gpt_are_found() {
    let table = read(&partitioned(
        "label: gpt\nsize=2M, name=h\u{e4}llo, uuid=BF79CD28-9F35-0D4A-B1AE-449D12322DF4\n\
         size=2M, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n",
    ));
    let first = table.entry(1).unwrap();
    assert_eq!((first.name(), first.may_hold_filesystem()), ("h\u{e4}llo", true));
    assert_eq!(first.uuid(), "bf79cd28-9f35-0d4a-b1ae-449d12322df4");
    assert!(!table.entry(2).unwrap().may_hold_filesystem());
    assert_eq!(table.entry(3), None);
}

#[test]
fn primary_and_logical_partitions_are_shown_and_two_sectors_of_what_holds_these() {
    let disk = partitioned(
        "label: dos\nstart=2048,size=4096\nstart=8192,size=40960,type=5\n\
         start=10240,size=2048\nstart=20480,size=2048\n",
    );
    assert_eq!(shown(&disk), [(1, 2048, 4096), (2, 8192, 2), (5, 10240, 2048), (6, 20480, 2048)]);
}

#[test]
fn a_gpt_is_read_and_its_copy_where_the_first_is_damaged() {
    let mut disk = partitioned("label: gpt\nstart=2048,size=4096\nstart=8192,size=4096\n");
    let want = [(1, 2048, 4096), (2, 8192, 4096)];
    assert_eq!(shown(&disk), want);
    disk[512 + 40] ^= 1;
    assert_eq!(shown(&disk), want);
}

#[test]
fn a_chain_that_goes_round_ends() {
    let mut disk = partitioned("label: dos\nstart=2048,size=8192,type=5\nstart=4096,size=16\n");
    // The next record of the chain is the same again.
    let record = 2048 * 512;
    disk[record + 462 + 4] = 5;
    disk[record + 462 + 8] = 0;
    disk[record + 462 + 12] = 1;
    assert_eq!(shown(&disk), [(1, 2048, 2), (5, 4096, 16)]);
    disk[record + 462 + 8] = 1;
    disk.copy_within(record..record + 512, record + 512);
    assert!(shown(&disk).len() < 4);
}

#[test]
fn partitions_that_overlap_are_seen_but_not_beyond_doubt() {
    let mut disk = partitioned("label: dos\nstart=2048,size=4096\nstart=8192,size=4096\n");
    disk[446 + 16 + 8..446 + 16 + 12].copy_from_slice(&4096u32.to_le_bytes());
    assert_eq!(shown(&disk), [(1, 2048, 4096), (2, 4096, 4096)]);
    let sound = partition_table::read_beyond_doubt(&mut Cursor::new(&disk), GEOMETRY).unwrap();
    assert_eq!(sound, None);
}

#[test]
fn boot_sectors_of_filesystems_are_no_tables() {
    let mut sector = vec![0; 4096];
    sector[510..512].copy_from_slice(&mbr::SIGNATURE);
    sector[446..510].fill(0x41);
    let geometry = Geometry { sector: 512, size: 4096 };
    for disk in [&sector[..], &[0; 4096], &[0; 100]] {
        let geometry = Geometry { size: disk.len() as u64, ..geometry };
        assert_eq!(partition_table::read(&mut Cursor::new(disk), geometry).unwrap(), None);
    }
}
