// SPDX-License-Identifier: Apache-2.0
//! Sound tables, and hostile ones.

use super::disk::{disjoint, le};
use super::gpt::{Field, crc32};
use super::guid::Guid;
use super::mbr::Kind;
use super::{read_beyond_doubt as read, *};
use proptest::prelude::*;
use std::io::Cursor;

const SIZE: usize = 1 << 20;

/// A blank disk.
struct Image {
    bytes: Vec<u8>,
    sector: usize,
}

impl Image {
    fn new(sector: usize) -> Self {
        Self { bytes: vec![0; SIZE], sector }
    }

    fn geometry(&self) -> Geometry {
        Geometry { sector: self.sector as u64, size: self.bytes.len() as u64 }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// An entry of an MBR or EBR in this sector: its place, type byte, start and size.
    fn entry(&mut self, lba: usize, place: usize, id: u8, start: u32, sectors: u32) {
        let at = lba * self.sector;
        self.put(at + 510, &mbr::SIGNATURE);
        self.put(at + 446 + 16 * place + 4, &[id]);
        self.put(at + 446 + 16 * place + 8, &start.to_le_bytes());
        self.put(at + 446 + 16 * place + 12, &sectors.to_le_bytes());
    }

    /// A GPT with these partitions: number, first and last sector.
    fn gpt(sector: usize, partitions: &[(usize, u64, u64)]) -> Self {
        let mut image = Self::new(sector);
        let last = (SIZE / sector) as u64 - 1;
        let array = 16384 / sector as u64;
        image.entry(0, 0, 0xee, 1, u32::MAX);
        let header = sector;
        image.put(header, b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (at, value) in
            [(24, 1), (32, last), (40, 2 + array), (48, last - array - 1), (72, 2), (80, 128)]
        {
            image.put(header + at, &u64::to_le_bytes(value));
        }
        image.put(header + 84, &[128]);
        image.put(header + 56, &[7; 16]);
        for &(number, first, last) in partitions {
            let at = 2 * sector + 128 * (number - 1);
            image.put(at, &[9; 32]);
            image.put(at + 32, &first.to_le_bytes());
            image.put(at + 40, &last.to_le_bytes());
        }
        image.seal();
        image
    }

    /// Makes the checksums right.
    fn seal(&mut self) {
        let entries = crc32(&self.bytes[2 * self.sector..2 * self.sector + 16384]);
        self.put(self.sector + 88, &entries.to_le_bytes());
        self.put(self.sector + 16, &[0; 4]);
        let header = crc32(&self.bytes[self.sector..self.sector + 92]);
        self.put(self.sector + 16, &header.to_le_bytes());
    }

    fn read(&self) -> Option<Table> {
        read(&mut Cursor::new(&self.bytes), self.geometry()).unwrap()
    }

    fn gpt_table(&self) -> gpt::Table {
        match self.read() {
            Some(Table::Gpt(table)) => table,
            other => panic!("{other:?}"),
        }
    }

    fn mbr_table(&self) -> mbr::Table {
        match self.read() {
            Some(Table::Mbr(table)) => table,
            other => panic!("{other:?}"),
        }
    }
}

/// An extended partition (number 2) with two logical ones, and a primary one after it.
fn with_logical() -> Image {
    let mut image = Image::new(512);
    image.entry(0, 1, 5, 64, 1000);
    image.entry(0, 0, 0x83, 1064, 100);
    image.entry(64, 0, 0x83, 2, 98);
    image.entry(64, 1, 5, 100, 200);
    image.entry(164, 0, 0x7f, 10, 190);
    image
}

#[test]
fn logical_partitions_are_numbered_from_5_and_follow_the_extended_one() {
    let table = with_logical().mbr_table();
    let seen: Vec<_> =
        table.partitions.iter().map(|p| (p.number, p.start, p.last(), p.id, p.kind)).collect();
    let expected = [
        (2, 64, 1063, 5, Kind::Extended),
        (5, 66, 163, 0x83, Kind::Logical),
        (6, 174, 363, 0x7f, Kind::Logical),
        (1, 1064, 1163, 0x83, Kind::Primary),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn an_mbr_counts_in_sectors_of_the_disk() {
    let mut image = Image::new(4096);
    image.entry(0, 3, 5, 8, 100);
    image.entry(8, 0, 0x83, 2, 98);
    let table = image.mbr_table();
    assert_eq!(table.partition(5).map(|p| (p.start, p.last())), Some((10, 107)));
}

#[test]
fn an_empty_mbr_is_a_table() {
    let mut image = Image::new(512);
    image.put(510, &mbr::SIGNATURE);
    assert_eq!(image.mbr_table(), mbr::Table::default());
}

#[test]
fn a_chain_of_logical_partitions_that_comes_back_or_leads_out_is_in_doubt() {
    for link in [0, 100, 1000, u32::MAX - 64] {
        let mut image = with_logical();
        image.entry(164, 1, 5, link, 10);
        assert_eq!(image.read(), None, "{link}");
    }
}

#[test]
fn a_chain_that_ends_in_no_table_is_in_doubt() {
    let mut image = with_logical();
    image.entry(164, 1, 5, 300, 10);
    assert_eq!(image.read(), None);
}

#[test]
fn partitions_that_overlap_or_end_after_the_disk_are_in_doubt() {
    let mut image = Image::new(512);
    image.entry(0, 0, 0x83, 64, 100);
    image.entry(0, 1, 0x83, 163, 100);
    assert_eq!(image.read(), None);
    image.entry(0, 1, 0x83, 164, 100);
    assert!(image.read().is_some());
    image.entry(0, 2, 0x83, 264, 2048 - 264 + 1);
    assert_eq!(image.read(), None);
    for partitions in
        [[(1, 34, 40), (2, 40, 50)], [(1, 34, 40), (2, 50, 49)], [(1, 2, 3), (2, 50, 60)]]
    {
        assert_eq!(Image::gpt(512, &partitions).read(), None, "{partitions:?}");
    }
}

#[test]
fn what_else_may_begin_so_is_in_doubt() {
    for (at, magic) in foreign::TABLES.iter().chain(foreign::FILESYSTEMS) {
        let mut image = Image::new(512);
        image.entry(0, 0, 0x83, 64, 100);
        image.put(usize::try_from(*at).unwrap(), magic);
        image.put(510, &mbr::SIGNATURE);
        assert_eq!(image.read(), None, "{magic:?}");
    }
}

#[test]
fn a_gpt_without_its_mbr_is_in_doubt() {
    let mut image = Image::gpt(512, &[]);
    image.put(446, &[0; 64]);
    assert_eq!(image.read(), None);
}

#[test]
fn the_copy_of_a_gpt_serves_where_the_first_is_damaged_and_mends_it() {
    for sector in [512, 4096] {
        let mut image = Image::gpt(sector, &[(2, 40, 50)]);
        let sound = image.gpt_table();
        let geometry = image.geometry();
        sound.write(&mut Cursor::new(&mut image.bytes), geometry, |_| Ok(())).unwrap();
        let sound = image.gpt_table();
        for (at, len) in [(sector, 92), (sector + 60, 1), (2 * sector + 5, 400)] {
            let before = image.bytes.clone();
            image.put(at, &vec![0xa5; len]);
            let table = image.gpt_table();
            assert_eq!(table.partitions(), sound.partitions());
            table.write(&mut Cursor::new(&mut image.bytes), geometry, |_| Ok(())).unwrap();
            assert!(image.bytes == before, "{at}");
        }
    }
}

#[test]
fn a_gpt_is_read_with_either_size_of_sectors() {
    for sector in [512, 4096] {
        let table = Image::gpt(sector, &[(3, 40, 50), (128, 35, 39)]).gpt_table();
        let seen: Vec<_> = table.partitions().iter().map(|p| (p.number, p.first, p.last)).collect();
        assert_eq!(seen, [(128, 35, 39), (3, 40, 50)]);
        assert_eq!(table.partition(1), None);
        assert_eq!(table.partition(0), None);
        assert_eq!(table.partition(129), None);
    }
}

#[test]
fn a_wrong_checksum_is_in_doubt() {
    for at in [512 + 17, 512 + 60, 1024 + 5] {
        let mut image = Image::gpt(512, &[(1, 40, 50)]);
        image.bytes[at] ^= 1;
        assert_eq!(image.read(), None, "{at}");
    }
}

#[test]
fn fields_of_a_gpt_are_written_to_both_copies() {
    for sector in [512, 4096] {
        let mut image = Image::gpt(sector, &[(2, 40, 50)]);
        let guid = Guid::parse("01234567-89ab-cdef-0123-456789abcdef").unwrap();
        let mut table = image.gpt_table();
        table.set_disk_guid(guid);
        let name = "naïve 🦀".to_owned();
        let fields = [
            Field::Type(guid),
            Field::Unique(guid),
            Field::Attributes(1 << 63 | 5),
            Field::Name("a longer name than the one that follows".to_owned()),
            Field::Name(name.clone()),
        ];
        assert!(fields.iter().all(|field| table.set(2, field)));
        assert!(!table.set(1, &fields[0]));
        assert!(!table.set(0, &fields[0]));
        assert!(!table.set(u32::MAX, &fields[0]));
        let geometry = image.geometry();
        table.write(&mut Cursor::new(&mut image.bytes), geometry, |_| Ok(())).unwrap();
        let read = image.gpt_table();
        assert_eq!(read.disk_guid(), guid);
        let p = read.partition(2).unwrap();
        assert_eq!((p.type_guid, p.guid, p.attributes), (guid, guid, 1 << 63 | 5));
        assert_eq!((p.name, p.first, p.last), (name, 40, 50));
        // The copy, put in the place of the first.
        let copy = image.bytes[SIZE - sector..].to_vec();
        let entries_lba = usize::try_from(le(&copy[72..80])).unwrap();
        let entries = &image.bytes[entries_lba * sector..][..16384];
        assert_eq!(entries, &image.bytes[2 * sector..][..16384]);
        assert_eq!(le(&copy[24..32]), geometry.sectors() - 1);
        assert_eq!(le(&copy[32..40]), 1);
        let mut unsealed = copy[..92].to_vec();
        unsealed[16..20].fill(0);
        assert_eq!(le(&copy[16..20]), u64::from(crc32(&unsealed)));
    }
}

#[test]
fn a_gpt_whose_copy_has_no_place_is_not_written() {
    for alternate in [0, 5, 60, u64::MAX] {
        let mut image = Image::gpt(512, &[(1, 40, 50)]);
        image.put(512 + 32, &alternate.to_le_bytes());
        image.seal();
        let table = image.gpt_table();
        let before = image.bytes.clone();
        let geometry = image.geometry();
        let done = table.write(&mut Cursor::new(&mut image.bytes), geometry, |_| Ok(()));
        assert!(done.is_err() && before == image.bytes, "{alternate}");
    }
}

#[test]
fn guids_are_read_as_they_are_shown() {
    let text = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
    let guid = Guid::parse(text).unwrap();
    assert_eq!(guid.to_disk()[..4], [0x28, 0x73, 0x2a, 0xc1]);
    assert_eq!(guid.to_string(), text);
    let others = [text.replace('-', ""), format!("{{{text}}}"), format!("urn:uuid:{text}")];
    let wrong = ["", "C12A7328", "C12A7328F81F-11D2-BA4B-00A0C93EC93B", &text.replace('C', "G")];
    for wrong in wrong.into_iter().chain(others.iter().map(String::as_str)) {
        assert_eq!(Guid::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn the_checksum_is_that_of_ethernet() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

/// What is beyond doubt is so.
fn check(table: Option<Table>, sectors: u64) {
    let ranges: Vec<(u64, u64)> = match table {
        None => return,
        Some(Table::Mbr(table)) => table
            .partitions
            .iter()
            .filter(|p| p.kind != Kind::Extended)
            .map(|p| (p.start, p.last()))
            .collect(),
        Some(Table::Gpt(table)) => table.partitions().iter().map(|p| (p.first, p.last)).collect(),
    };
    assert!(ranges.iter().all(|(first, last)| first <= last && *last < sectors));
    assert!(disjoint(ranges));
}

proptest! {
    #[test]
    fn any_disk_is_read_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..6000),
        sector in prop_oneof![Just(512), Just(4096), any::<u64>()],
        size in 0..10_000u64,
    ) {
        let mut bytes = bytes;
        if bytes.len() > 511 {
            bytes[510..512].copy_from_slice(&mbr::SIGNATURE);
        }
        let geometry = Geometry { sector, size };
        if let Ok(table) = read(&mut Cursor::new(&bytes), geometry) {
            check(table, geometry.sectors());
        }
    }

    #[test]
    fn any_entries_of_an_mbr_and_its_chain_are_read_without_harm(
        entries in proptest::collection::vec((0..8usize, 0..4usize, prop_oneof![Just(5), Just(0x83)], 0..64u32, 0..64u32), 0..12)
    ) {
        let mut image = Image::new(512);
        for (lba, place, id, start, sectors) in entries {
            image.entry(lba * 8, place, id, start / 4 * 8, sectors);
        }
        check(image.read(), image.geometry().sectors());
    }

    #[test]
    fn any_header_of_a_gpt_with_the_right_checksum_is_read_without_harm(
        fields in proptest::collection::vec((24..22usize * 4 + 4, any::<[u8; 8]>()), 0..3),
        partitions in proptest::collection::vec((1..129usize, 0..2100u64, 0..2100u64), 0..4),
    ) {
        let mut image = Image::gpt(512, &partitions);
        for (at, bytes) in fields {
            image.put(512 + at, &bytes[..(92 - at).min(8)]);
        }
        image.seal();
        if let Some(Table::Gpt(table)) = image.read() {
            let geometry = image.geometry();
            check(Some(Table::Gpt(table.clone())), geometry.sectors());
            table.write(&mut Cursor::new(&mut image.bytes), geometry, |_| Ok(())).ok();
        }
    }

    #[test]
    fn what_the_fuzzer_looks_for_is_not_found_soon(
        table in proptest::collection::vec(any::<u8>(), 64),
        kinds in proptest::collection::vec(prop_oneof![Just(5u8), Just(0xee), Just(0x83), Just(0)], 4),
        tail in proptest::collection::vec(any::<u8>(), 2048),
        header: bool,
    ) {
        let mut disk = vec![0; 447];
        disk.extend(table);
        disk.extend(mbr::SIGNATURE);
        disk.extend(tail);
        for (n, kind) in kinds.into_iter().enumerate() {
            disk[447 + n * 16] = 0;
            disk[447 + n * 16 + 4] = kind;
        }
        if header {
            disk[513..521].copy_from_slice(b"EFI PART");
        }
        crate::fuzz::partitions(&disk);
    }
}
