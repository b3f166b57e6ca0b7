//! DOS partition tables: four entries in the first sector, and a chain of sectors (EBRs) through the extended
//! partition with one logical partition each.

use super::{Geometry, disjoint, le, read_at};
use std::io::{self, Read, Seek};

/// The last two bytes of a sector with a table.
pub const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Where entries begin.
const ENTRIES: usize = 446;
/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// Most logical partitions that are followed: the kernel knows 256 partitions of a disk.
const MAX_LOGICAL: usize = 252;

/// What a partition is to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of the four of the first sector.
    Primary,
    /// The one of these that has the others in it.
    Extended,
    /// One in the extended partition.
    Logical,
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From 1 to 4, logical ones from 5.
    pub number: u32,
    /// First sector.
    pub start: u64,
    /// Number of sectors.
    pub sectors: u64,
    /// Type byte.
    pub id: u8,
    /// Whether it is marked to be booted from.
    pub active: bool,
    /// Primary, extended or logical.
    pub kind: Kind,
}

impl Partition {
    /// Last sector.
    pub fn last(&self) -> u64 {
        self.start + self.sectors - 1
    }
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// By place on the disk, logical ones after the extended partition.
    pub partitions: Vec<Partition>,
}

impl Table {
    /// The partition of this number.
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.number == number)
    }
}

/// One of the four entries of a sector.
#[derive(Clone, Copy, Debug)]
struct Entry {
    flag: u8,
    id: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    fn is_used(&self) -> bool {
        self.id != 0 && self.sectors != 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.id, 0x05 | 0x0f | 0x85)
    }
}

fn entries(sector: &[u8; 512]) -> [Entry; 4] {
    std::array::from_fn(|i| {
        let e = &sector[ENTRIES + 16 * i..ENTRIES + 16 * (i + 1)];
        Entry { flag: e[0], id: e[4], start: le(&e[8..12]), sectors: le(&e[12..16]) }
    })
}

/// Whether the first sector is that of a GPT disk.
pub fn is_protective(boot: &[u8; 512]) -> bool {
    entries(boot).iter().any(|e| e.id == 0xee)
}

/// The table whose first sector this is.
pub(super) fn read(
    disk: &mut (impl Read + Seek),
    geometry: Geometry,
    boot: &[u8; 512],
) -> io::Result<Option<Table>> {
    let entries = entries(boot);
    if entries.iter().any(|e| e.flag & 0x7f != 0 || (e.id == 0) != (e.sectors == 0)) {
        return Ok(None);
    }
    let mut primary = Vec::new();
    for (number, e) in (1..).zip(&entries).filter(|(_, e)| e.is_used()) {
        let kind = if e.is_extended() { Kind::Extended } else { Kind::Primary };
        primary.push(Partition {
            number,
            start: e.start,
            sectors: e.sectors,
            id: e.id,
            active: e.flag & 0x80 != 0,
            kind,
        });
    }
    let on_disk = |p: &Partition| p.start > 0 && p.last() < geometry.sectors();
    let ranges = primary.iter().map(|p| (p.start, p.last())).collect();
    if !primary.iter().all(on_disk) || !disjoint(ranges) {
        return Ok(None);
    }
    let mut extended = primary.iter().filter(|p| p.kind == Kind::Extended).copied();
    let logical = match (extended.next(), extended.next()) {
        (None, _) => Some(Vec::new()),
        (Some(extended), None) => logical(disk, geometry, &extended)?,
        (Some(_), Some(_)) => None,
    };
    let Some(mut logical) = logical else { return Ok(None) };
    primary.sort_unstable_by_key(|p| p.start);
    let mut partitions = Vec::new();
    for p in primary {
        partitions.push(p);
        if p.kind == Kind::Extended {
            partitions.append(&mut logical);
        }
    }
    Ok(Some(Table { partitions }))
}

/// The logical partitions of an extended one, by place.
fn logical(
    disk: &mut (impl Read + Seek),
    geometry: Geometry,
    extended: &Partition,
) -> io::Result<Option<Vec<Partition>>> {
    let mut found: Vec<Partition> = Vec::new();
    let mut visited = Vec::new();
    let mut at = extended.start;
    loop {
        // A chain that comes back to itself, leads out, or has no end.
        let inside = (extended.start..=extended.last()).contains(&at);
        if !inside || visited.contains(&at) || visited.len() > MAX_LOGICAL {
            return Ok(None);
        }
        visited.push(at);
        let mut sector = [0; 512];
        read_at(disk, at * geometry.sector, &mut sector)?;
        if sector[510..] != SIGNATURE {
            return Ok(None);
        }
        let entries = entries(&sector);
        let used = || entries.iter().filter(|e| e.is_used());
        let mut data = used().filter(|e| !e.is_extended());
        if let Some(e) = data.next() {
            let number = FIRST_LOGICAL + u32::try_from(found.len()).unwrap_or(u32::MAX);
            found.push(Partition {
                number,
                start: at + e.start,
                sectors: e.sectors,
                id: e.id,
                active: e.flag & 0x80 != 0,
                kind: Kind::Logical,
            });
        }
        let mut links = used().filter(|e| e.is_extended());
        let next = links.next().map(|e| extended.start + e.start);
        if data.next().is_some() || links.next().is_some() {
            return Ok(None);
        }
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    let fits = |p: &Partition| p.start > extended.start && p.last() <= extended.last();
    let tables = visited.iter().map(|&at| (at, at));
    let ranges = found.iter().map(|p| (p.start, p.last())).chain(tables).collect();
    if !found.iter().all(fits) || !disjoint(ranges) {
        return Ok(None);
    }
    found.sort_by_key(|p| p.start);
    Ok(Some(found))
}
