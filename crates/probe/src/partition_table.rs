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

mod disk;
mod entry;
pub(crate) mod foreign;
pub mod gpt;
pub mod guid;
pub mod mbr;

pub use disk::Geometry;
use disk::{Reading, read_at};
pub use entry::Entry;
use std::io::{self, Read, Seek};

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
            Self::Mbr(table) => mbr_entries(table).collect(),
            Self::Gpt(table) => table.partitions().into_iter().map(Entry::Gpt).collect(),
        }
    }

    /// The partition of this number.
    pub fn entry(&self, number: u32) -> Option<Entry> {
        match self {
            Self::Mbr(table) => mbr_entries(table).find(|e| e.number() == number),
            Self::Gpt(table) => table.partition(number).map(Entry::Gpt),
        }
    }
}

fn mbr_entries(table: &mbr::Table) -> impl Iterator<Item = Entry> {
    let disk = table.signature;
    table.partitions.iter().map(move |&partition| Entry::Mbr { disk, partition })
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
        let other = foreign::in_first_sectors(&first);
        let amiga = first.chunks(512).any(|sector| sector.starts_with(b"RDSK"));
        *doubtful |=
            other || amiga || matches!(table, Table::Mbr(_)) && gpt::has_signature(disk, geometry)?;
    }
    Ok(reading)
}

#[cfg(test)]
mod tests;
