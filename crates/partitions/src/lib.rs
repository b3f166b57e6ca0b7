// SPDX-License-Identifier: Apache-2.0
//! Partition tables: MBR with its chain of logical partitions, and GPT, read from a disk by its bytes; changes
//! to fields of a GPT.
//!
//! Tables are a guest's, and hostile: what is read is bounded. There are two ways to read one:
//!
//! - [`read`] sees what the kernel sees, for who has to do with partitions that the kernel shows or ought to. They
//!   may overlap, or end after the disk.
//! - [`read_beyond_doubt`] is for who answers in the place of a program that knows more: whatever such a program
//!   may see in another way (overlapping partitions, some that end after the disk, boot sectors of filesystems,
//!   tables of other kinds) is no table.

#![forbid(unsafe_code)]

mod entry;
#[doc(hidden)]
pub mod fuzz;
pub mod gpt;
pub mod guid;
pub mod mbr;

pub use entry::Entry;
use std::io::{self, Read, Seek, SeekFrom};

/// A disk's measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a logical sector: 512, 4096.
    pub sector: u64,
    /// Bytes of the disk.
    pub size: u64,
}

impl Geometry {
    /// Number of whole sectors.
    pub fn sectors(&self) -> u64 {
        self.size / self.sector.max(1)
    }
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// A DOS one.
    Mbr(mbr::Table),
    /// A GPT.
    Gpt(gpt::Table),
}

impl Table {
    /// The partitions, by place on the disk, logical ones after the extended partition.
    pub fn entries(&self) -> Vec<Entry> {
        match self {
            Self::Mbr(table) => table.entries().collect(),
            Self::Gpt(table) => table.partitions().into_iter().map(Entry::Gpt).collect(),
        }
    }

    /// The partition of this number.
    pub fn entry(&self, number: u32) -> Option<Entry> {
        match self {
            Self::Mbr(table) => table.entries().find(|e| e.number() == number),
            Self::Gpt(table) => table.partition(number).map(Entry::Gpt),
        }
    }
}

/// What was read, and whether others would read the same.
struct Reading<T> {
    table: T,
    doubtful: bool,
}

impl<T> Reading<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        Reading { table: f(self.table), doubtful: self.doubtful }
    }
}

/// The partition table of a disk as the kernel sees it; none if there is none.
pub fn read(disk: &mut (impl Read + Seek), geometry: Geometry) -> io::Result<Option<Table>> {
    Ok(reading(disk, geometry)?.map(|reading| reading.table))
}

/// The partition table of a disk; none if there is none, or one that is not beyond doubt.
pub fn read_beyond_doubt(
    disk: &mut (impl Read + Seek),
    geometry: Geometry,
) -> io::Result<Option<Table>> {
    let reading = reading(disk, geometry)?;
    Ok(reading.filter(|reading| !reading.doubtful).map(|reading| reading.table))
}

fn reading(
    disk: &mut (impl Read + Seek),
    geometry: Geometry,
) -> io::Result<Option<Reading<Table>>> {
    if !matches!(geometry.sector, 512..=65536) || geometry.sectors() < 3 {
        return Ok(None);
    }
    // An Amiga's table may begin in any of the first 16 sectors.
    let mut first = [0; 16 * 512];
    let len = usize::try_from(geometry.size).unwrap_or(usize::MAX).min(first.len());
    read_at(disk, 0, &mut first[..len])?;
    let Some(boot) = first.first_chunk::<512>().filter(|b| b.ends_with(&mbr::SIGNATURE)) else {
        return Ok(None);
    };
    let mut reading = if mbr::is_protective(boot) {
        gpt::read(disk, geometry)?.map(|reading| reading.map(Table::Gpt))
    } else {
        mbr::read(disk, geometry, boot)?.map(|reading| reading.map(Table::Mbr))
    };
    if let Some(Reading { table, doubtful }) = &mut reading {
        let other = OTHER.iter().any(|(at, magic)| boot[*at..].starts_with(magic));
        let amiga = first.chunks(512).any(|sector| sector.starts_with(b"RDSK"));
        *doubtful |=
            other || amiga || matches!(table, Table::Mbr(_)) && gpt::has_signature(disk, geometry)?;
    }
    Ok(reading)
}

/// What a first sector has that may belong to something else, and where: filesystems' boot sectors end like
/// an MBR, too.
const OTHER: &[(usize, &[u8])] = &[
    (0, &[0xc9, 0xc2, 0xd4, 0xc1]),  // AIX
    (0, &[0x0b, 0xe5, 0xa9, 0x41]),  // SGI volume header
    (0, b"ER"),                      // Apple
    (4, b"IPL1"),                    // PC-98
    (64, &[0x57, 0x45, 0x56, 0x82]), // BSD
    (508, &[0xda, 0xbe]),            // Sun
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (54, b"FAT"),
    (82, b"FAT"),
];

/// Fills the buffer from an offset in bytes.
fn read_at(disk: &mut (impl Read + Seek), offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    disk.seek(SeekFrom::Start(offset))?;
    disk.read_exact(buffer)
}

/// A little-endian number of at most 8 bytes.
fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// Whether no two of these ranges (first and last sector) have one in common.
fn disjoint(mut ranges: Vec<(u64, u64)>) -> bool {
    ranges.sort_unstable();
    ranges.windows(2).all(|pair| pair[0].1 < pair[1].0)
}

#[cfg(test)]
mod tests;
