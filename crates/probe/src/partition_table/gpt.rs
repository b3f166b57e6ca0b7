// SPDX-License-Identifier: Apache-2.0
//! GUID partition tables (UEFI 2.10, chapter 5): a header after the first sector, an array of entries, and both
//! once more at the end of the disk.

use super::disk::{Geometry, Reading, disjoint, le, read_at};
use super::guid::Guid;
use crc_fast::CrcAlgorithm;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

/// Sector of the header.
const HEADER_LBA: u64 = 1;
/// Sector of the entries, where we place them.
const ENTRIES_LBA_FIRST: u64 = 2;
/// How a header begins.
pub(crate) const SIGNATURE: &[u8] = b"EFI PART";
/// Where the first header is, in bytes, with the sizes that sectors have.
pub(crate) const PLACES: &[u64] = &[512, 4096];
/// Bytes of a header that have a meaning.
const HEADER: usize = 92;
/// Most bytes of entries: 128 entries have 16 KiB.
const MAX_ENTRIES: u64 = 1 << 20;
/// Bytes of an entry that have a meaning.
const ENTRY: u64 = 128;

// Fields of the header.
const HEADER_SIZE: Range<usize> = 12..16;
const HEADER_CRC: Range<usize> = 16..20;
const MY_LBA: Range<usize> = 24..32;
const ALTERNATE_LBA: Range<usize> = 32..40;
const FIRST_USABLE: Range<usize> = 40..48;
const LAST_USABLE: Range<usize> = 48..56;
const DISK_GUID: Range<usize> = 56..72;
const ENTRIES_LBA: Range<usize> = 72..80;
const ENTRY_COUNT: Range<usize> = 80..84;
const ENTRY_SIZE: Range<usize> = 84..88;
const ENTRIES_CRC: Range<usize> = 88..92;

// Fields of an entry.
const TYPE: Range<usize> = 0..16;
const UNIQUE: Range<usize> = 16..32;
const FIRST: Range<usize> = 32..40;
const LAST: Range<usize> = 40..48;
const ATTRIBUTES: Range<usize> = 48..56;
const NAME: Range<usize> = 56..128;

/// Type of the EFI system partition.
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// Attribute of a partition that a BIOS may boot from.
const LEGACY_BOOT: u64 = 1 << 2;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The header, a sector.
    header: Vec<u8>,
    entries: Vec<u8>,
    entry_size: usize,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From 1.
    pub number: u32,
    /// What it is for.
    pub type_guid: Guid,
    /// Which one it is.
    pub guid: Guid,
    /// First sector.
    pub first: u64,
    /// Last sector.
    pub last: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Its name.
    pub name: String,
}

impl Partition {
    /// Whether firmware boots from it: it is the EFI system partition, or marked for a BIOS.
    pub fn is_bootable(&self) -> bool {
        Guid::parse(ESP) == Some(self.type_guid) || self.attributes & LEGACY_BOOT != 0
    }
}

/// A field of a partition, to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// What it is for.
    Type(Guid),
    /// Which one it is.
    Unique(Guid),
    /// Attribute bits.
    Attributes(u64),
    /// Its name, of which 36 UTF-16 units are kept.
    Name(String),
}

/// Whether there is a header where one has to be.
pub(super) fn has_signature(disk: &mut (impl Read + Seek), geometry: Geometry) -> io::Result<bool> {
    let mut signature = [0; 8];
    read_at(disk, HEADER_LBA * geometry.sector, &mut signature)?;
    Ok(signature == SIGNATURE)
}

/// The table at the beginning of the disk, if it is sound, or else its copy at the end, if that is.
pub(super) fn read(
    disk: &mut (impl Read + Seek),
    geometry: Geometry,
) -> io::Result<Option<Reading<Table>>> {
    if let Some(reading) = read_at_lba(disk, geometry, HEADER_LBA)? {
        return Ok(Some(reading));
    }
    let last = geometry.sectors() - 1;
    let Some(Reading { mut table, doubtful }) = read_at_lba(disk, geometry, last)? else {
        return Ok(None);
    };
    // From here on as if it was the first one.
    let entries_end = ENTRIES_LBA_FIRST + (table.entries.len() as u64).div_ceil(geometry.sector);
    let has_room = entries_end <= le(&table.header[FIRST_USABLE]);
    for (field, lba) in
        [(MY_LBA, HEADER_LBA), (ALTERNATE_LBA, last), (ENTRIES_LBA, ENTRIES_LBA_FIRST)]
    {
        table.header[field].copy_from_slice(&lba.to_le_bytes());
    }
    Ok(Some(Reading { table, doubtful: doubtful || !has_room }))
}

/// The table whose header is in this sector, if it is sound.
fn read_at_lba(
    disk: &mut (impl Read + Seek),
    geometry: Geometry,
    lba: u64,
) -> io::Result<Option<Reading<Table>>> {
    let mut header = vec![0; usize::try_from(geometry.sector).unwrap_or(512)];
    read_at(disk, lba * geometry.sector, &mut header)?;
    if !header.starts_with(SIGNATURE) {
        return Ok(None);
    }
    let Some(crc) = header_crc(&header) else { return Ok(None) };
    let (count, entry_size) = (le(&header[ENTRY_COUNT]), le(&header[ENTRY_SIZE]));
    let entries_lba = le(&header[ENTRIES_LBA]);
    let last_usable = le(&header[LAST_USABLE]);
    let bytes = count.saturating_mul(entry_size);
    let sound = le(&header[HEADER_CRC]) == u64::from(crc)
        && le(&header[MY_LBA]) == lba
        && entry_size.is_multiple_of(ENTRY)
        && (1..=MAX_ENTRIES).contains(&bytes)
        && (HEADER_LBA + 1..geometry.sectors()).contains(&entries_lba)
        && bytes <= (geometry.sectors() - entries_lba) * geometry.sector
        && last_usable < geometry.sectors();
    if !sound {
        return Ok(None);
    }
    let (Ok(len), Ok(entry_size)) = (usize::try_from(bytes), usize::try_from(entry_size)) else {
        return Ok(None);
    };
    let mut entries = vec![0; len];
    read_at(disk, entries_lba * geometry.sector, &mut entries)?;
    if le(&header[ENTRIES_CRC]) != u64::from(crc32(&entries)) {
        return Ok(None);
    }
    let table = Table { header, entries, entry_size };
    let partitions = table.partitions();
    let first_usable = le(&table.header[FIRST_USABLE]);
    let fit = partitions
        .iter()
        .all(|p| first_usable <= p.first && p.first <= p.last && p.last <= last_usable);
    let apart = fit && disjoint(partitions.iter().map(|p| (p.first, p.last)).collect());
    Ok(Some(Reading { table, doubtful: !apart }))
}

/// The checksum that a header ought to have, if its length is one that it may have.
fn header_crc(header: &[u8]) -> Option<u32> {
    let len = usize::try_from(le(&header[HEADER_SIZE])).ok().filter(|len| *len >= HEADER)?;
    let mut copy = header.get(..len)?.to_vec();
    copy[HEADER_CRC].fill(0);
    Some(crc32(&copy))
}

impl Table {
    /// Identifies the disk.
    pub fn disk_guid(&self) -> Guid {
        guid(&self.header[DISK_GUID])
    }

    /// Partitions, by place on the disk.
    pub fn partitions(&self) -> Vec<Partition> {
        let entries = self.entries.chunks_exact(self.entry_size);
        let mut found: Vec<Partition> =
            (1..).zip(entries).filter_map(|(number, e)| partition(number, e)).collect();
        found.sort_by_key(|p| p.first);
        found
    }

    /// The partition of this number.
    pub fn partition(&self, number: u32) -> Option<Partition> {
        partition(number, self.entries.get(self.entry(number)?)?)
    }

    /// Where the entry of this number is.
    fn entry(&self, number: u32) -> Option<Range<usize>> {
        let begin = usize::try_from(number.checked_sub(1)?).ok()?.checked_mul(self.entry_size)?;
        Some(begin..begin.checked_add(self.entry_size)?)
    }

    /// Identifies the disk anew.
    pub fn set_disk_guid(&mut self, guid: Guid) {
        self.header[DISK_GUID].copy_from_slice(&guid.to_disk());
    }

    /// Changes a field of a partition; false if there is no such partition.
    pub fn set(&mut self, number: u32, field: &Field) -> bool {
        let Some(entry) = self.entry(number).and_then(|range| self.entries.get_mut(range)) else {
            return false;
        };
        if entry[TYPE].iter().all(|&b| b == 0) {
            return false;
        }
        match field {
            Field::Type(guid) => entry[TYPE].copy_from_slice(&guid.to_disk()),
            Field::Unique(guid) => entry[UNIQUE].copy_from_slice(&guid.to_disk()),
            Field::Attributes(bits) => entry[ATTRIBUTES].copy_from_slice(&bits.to_le_bytes()),
            Field::Name(name) => {
                entry[NAME].fill(0);
                let units = name.encode_utf16().map(u16::to_le_bytes);
                for (to, from) in entry[NAME].chunks_exact_mut(2).zip(units) {
                    to.copy_from_slice(&from);
                }
            }
        }
        true
    }

    /// Writes the table back, its copy at the end first, and has each reach the disk: at any time one of them
    /// is whole.
    pub fn write<D: Write + Seek>(
        &self,
        disk: &mut D,
        geometry: Geometry,
        sync: impl Fn(&mut D) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut primary = self.header.clone();
        primary[ENTRIES_CRC].copy_from_slice(&crc32(&self.entries).to_le_bytes());
        let alternate = le(&primary[ALTERNATE_LBA]);
        let sectors = (self.entries.len() as u64).div_ceil(geometry.sector);
        let entries = alternate
            .checked_sub(sectors)
            .filter(|lba| alternate < geometry.sectors() && *lba > le(&primary[LAST_USABLE]));
        let Some(alternate_entries) = entries else {
            let message = "the table's copy is not at the end of the disk: expand it first";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        let mut backup = primary.clone();
        backup[MY_LBA].copy_from_slice(&alternate.to_le_bytes());
        backup[ALTERNATE_LBA].copy_from_slice(&HEADER_LBA.to_le_bytes());
        backup[ENTRIES_LBA].copy_from_slice(&alternate_entries.to_le_bytes());
        for mut header in [backup, primary] {
            let crc = header_crc(&header).unwrap_or_default();
            header[HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
            write_at(disk, le(&header[ENTRIES_LBA]) * geometry.sector, &self.entries)?;
            write_at(disk, le(&header[MY_LBA]) * geometry.sector, &header)?;
            sync(disk)?;
        }
        Ok(())
    }
}

fn partition(number: u32, entry: &[u8]) -> Option<Partition> {
    let type_guid = guid(&entry[TYPE]);
    if type_guid == Guid::default() {
        return None;
    }
    let units = entry[NAME].chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let name: Vec<u16> = units.take_while(|&unit| unit != 0).collect();
    Some(Partition {
        number,
        type_guid,
        guid: guid(&entry[UNIQUE]),
        first: le(&entry[FIRST]),
        last: le(&entry[LAST]),
        attributes: le(&entry[ATTRIBUTES]),
        name: String::from_utf16_lossy(&name),
    })
}

fn write_at(disk: &mut (impl Write + Seek), offset: u64, bytes: &[u8]) -> io::Result<()> {
    disk.seek(SeekFrom::Start(offset))?;
    disk.write_all(bytes)
}

/// CRC-32 as in IEEE 802.3.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let sum = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, bytes);
    u32::try_from(sum).unwrap_or(u32::MAX)
}

/// The GUID in a field of a header or an entry.
fn guid(field: &[u8]) -> Guid {
    field.first_chunk().copied().map(Guid::from_disk).unwrap_or_default()
}
