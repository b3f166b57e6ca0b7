//! Partition tables: MBR with its chain of logical partitions, and GPT, read from a disk by its bytes; changes
//! to fields of a GPT.
//!
//! What is read is the guest's: it is bounded, and whatever is not beyond doubt (overlapping partitions,
//! some that end after the disk, checksums that do not fit, boot sectors of filesystems, tables of other kinds)
//! is no table here. Who wants to know more asks a program that knows more kinds.

pub mod gpt;
pub mod guid;
pub mod mbr;

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

/// The partition table of a disk; none if there is none, or one that is not beyond doubt.
pub fn read(disk: &mut (impl Read + Seek), geometry: Geometry) -> io::Result<Option<Table>> {
    if !matches!(geometry.sector, 512..=65536) || geometry.sectors() < 3 {
        return Ok(None);
    }
    let Some(boot) = boot_sector(disk, geometry)? else { return Ok(None) };
    if mbr::is_protective(&boot) {
        return Ok(gpt::read(disk, geometry)?.map(Table::Gpt));
    }
    if gpt::has_signature(disk, geometry)? {
        return Ok(None);
    }
    Ok(mbr::read(disk, geometry, &boot)?.map(Table::Mbr))
}

/// The first 512 bytes, if they may be those of a partitioned PC disk.
fn boot_sector(disk: &mut (impl Read + Seek), geometry: Geometry) -> io::Result<Option<[u8; 512]>> {
    // An Amiga's table may begin in any of the first 16 sectors.
    let mut first = [0; 16 * 512];
    let len = usize::try_from(geometry.size).unwrap_or(usize::MAX).min(first.len());
    read_at(disk, 0, &mut first[..len])?;
    let amiga = first.chunks(512).any(|s| s.starts_with(b"RDSK"));
    let mut boot = [0; 512];
    boot.copy_from_slice(&first[..512]);
    let other = OTHER.iter().any(|(at, magic)| boot[*at..].starts_with(magic));
    let is_pc = boot[510..] == mbr::SIGNATURE;
    Ok((is_pc && !other && !amiga).then_some(boot))
}

/// What a first sector has that belongs to something else, and where: filesystems' boot sectors end like
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
