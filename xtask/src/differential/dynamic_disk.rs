// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::cast_possible_truncation)] // Of one image, in which all numbers are small.
//! Dynamic disks of Windows for scripts: `ldm:1` and `ldm:2` among their sizes. No program under Linux makes any.
//!
//! Both are of one disk group: a simple volume, a spanned, a striped and a mirrored one. The layout of the database
//! (all numbers big-endian, places in sectors of 512 bytes) is the one of "LDM Documentation" of the Linux-NTFS project:
//! PRIVHEAD says where the private region with the database is, TOCBLOCK where in it VMDB is, and VMDB has the records
//! (VBLK) of disks, volumes, their components and the partitions of those.

const SECTOR: usize = 512;
const SECTORS: u64 = (32 << 20) / SECTOR as u64;
/// The private region, at the end of the disk.
const PRIVATE: u64 = 2048;
/// Where data begins.
const PUBLIC_START: u64 = 63;
/// Sectors of the private region that have a PRIVHEAD, and a TOCBLOCK; there is a PRIVHEAD after the MBR, too.
const HEADS: [u64; 2] = [1856, 2047];
const TABLES: [u64; 4] = [1, 2, 2045, 2046];
const HEAD: u64 = 6;
/// Where VMDB is, and how long; the log follows.
const DATABASE: (u64, u64) = (17, 1481);
const LOG: (u64, u64) = (1498, 224);
/// Bytes of a VBLK, and of what it has of a record.
const BLOCK: usize = 128;
const PIECE: usize = 112;

const GROUP: (&str, &str) = ("WIN-TEST-Dg0", "06495a84-fbfd-11e1-8cf9-52540061f5db");
const HOST: &str = "26495a84-fbfd-11e1-8cf9-52540061f5db";
const DISKS: [&str; 2] =
    ["16495a84-fbfd-11e1-8cf9-52540061f501", "16495a84-fbfd-11e1-8cf9-52540061f502"];
/// Object numbers of the disks.
const DISK: [u64; 2] = [2, 3];

/// The image of the first disk (1) or the second.
pub(super) fn image(number: usize) -> Option<Vec<u8>> {
    let guid = DISKS.get(number.checked_sub(1)?)?;
    let mut image = vec![0; usize::try_from(SECTORS).ok()? * SECTOR];
    let mut put = |sector: u64, bytes: &[u8]| {
        let at = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR);
        if let Some(place) = image.get_mut(at..at.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    };
    let private = SECTORS - PRIVATE;
    put(0, &boot_sector());
    put(HEAD, &private_head(guid));
    for sector in HEADS {
        put(private + sector, &private_head(guid));
    }
    for sector in TABLES {
        put(private + sector, &table_of_contents());
    }
    put(private + DATABASE.0, &database());
    Some(image)
}

/// A sector, written field by field at its offset.
struct Sector([u8; SECTOR]);

impl Sector {
    fn new(magic: &str) -> Self {
        Self([0; SECTOR]).with(0, magic.as_bytes())
    }

    fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn with_numbers(self, offset: usize, numbers: &[u64]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        self.with(offset, &bytes)
    }

    /// The sum of all other bytes.
    fn with_checksum(self) -> [u8; SECTOR] {
        let sum: u32 = self.0.iter().map(|&b| u32::from(b)).sum();
        self.with(8, &sum.to_be_bytes()).0
    }
}

/// An MBR with one partition, of the type that says what the disk is.
fn boot_sector() -> [u8; SECTOR] {
    let length = (SECTORS - PUBLIC_START) as u32;
    let entry = [&[0, 0, 2, 0, 0x42, 0xff, 0xff, 0xff][..], &(PUBLIC_START as u32).to_le_bytes()];
    let entry = [&entry.concat()[..], &length.to_le_bytes()].concat();
    Sector::new("").with(446, &entry).with(510, &[0x55, 0xaa]).0
}

fn private_head(disk: &str) -> [u8; SECTOR] {
    let public = SECTORS - PRIVATE - PUBLIC_START;
    let head = Sector::new("PRIVHEAD")
        .with(0x0c, &[0, 2, 0, 12])
        .with_numbers(0x10, &[0, 1, HEADS[1], HEADS[0]])
        .with(0x30, disk.as_bytes())
        .with(0x70, HOST.as_bytes())
        .with(0xb0, GROUP.1.as_bytes())
        .with(0xf0, GROUP.0.as_bytes())
        .with(0x10f, &(SECTOR as u32).to_be_bytes())
        .with_numbers(0x11b, &[PUBLIC_START, public, SECTORS - PRIVATE, PRIVATE])
        .with_numbers(0x13b, &[TABLES[0], TABLES[2]])
        .with(0x14b, &[0, 0, 0, 1, 0, 0, 0, 1]);
    head.with_numbers(0x153, &[DATABASE.1, LOG.1]).with_checksum()
}

fn table_of_contents() -> [u8; SECTOR] {
    let table = Sector::new("TOCBLOCK")
        .with_numbers(0x0c, &[1])
        .with(0x24, b"config")
        .with_numbers(0x2e, &[DATABASE.0, DATABASE.1])
        .with(0x46, b"log");
    table.with_numbers(0x50, &[LOG.0, LOG.1]).with_checksum()
}

/// VMDB and its blocks.
fn database() -> Vec<u8> {
    let records = records();
    let mut blocks = Vec::new();
    // Blocks are counted from the beginning of VMDB.
    let mut sequence = (SECTOR / BLOCK) as u32;
    for (group, record) in (1u32..).zip(&records) {
        let pieces = record.chunks(PIECE);
        let count = pieces.len() as u16;
        for (n, piece) in (0u16..).zip(pieces) {
            let mut block = b"VBLK".to_vec();
            block.extend(sequence.to_be_bytes());
            block.extend(group.to_be_bytes());
            block.extend(n.to_be_bytes());
            block.extend(count.to_be_bytes());
            block.extend(piece);
            block.resize(BLOCK, 0);
            blocks.extend(block);
            sequence += 1;
        }
    }
    let count = |kind| records.iter().filter(|r| r[3] == kind).count() as u32;
    let counts = [VOLUME, COMPONENT, PARTITION, OF_DISK].map(count);
    let head = Sector::new("VMDB")
        .with(4, &sequence.to_be_bytes())
        .with(8, &(BLOCK as u32).to_be_bytes())
        .with(12, &(SECTOR as u32).to_be_bytes())
        .with(16, &[0, 1, 0, 4, 0, 10])
        .with(0x16, GROUP.0.as_bytes())
        .with(0x35, GROUP.1.as_bytes())
        .with_numbers(0x75, &[1, 1])
        .with(0x85, &counts.map(u32::to_be_bytes).concat());
    [&head.0[..], &blocks].concat()
}

/// Kinds of records.
const VOLUME: u8 = 0x51;
const COMPONENT: u8 = 0x32;
const PARTITION: u8 = 0x33;
const OF_DISK: u8 = 0x34;
const OF_GROUP: u8 = 0x35;
/// The number of the transaction that wrote a record.
const COMMIT: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];

/// A number as it is in records: its length before it.
fn number(n: u64) -> Vec<u8> {
    let bytes = n.to_be_bytes();
    let zeros = bytes.iter().take_while(|&&b| b == 0).count().min(7);
    [&[(8 - zeros) as u8][..], &bytes[zeros..]].concat()
}

/// A text as it is in records.
fn text(t: &str) -> Vec<u8> {
    [&[t.len() as u8][..], t.as_bytes()].concat()
}

fn record(kind: u8, flags: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    [&[0, 0, flags, kind][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

fn records() -> Vec<Vec<u8>> {
    let group = [&number(1)[..], &text(GROUP.0), &text(GROUP.1), &[0; 4], &COMMIT].concat();
    let mut all = vec![record(OF_GROUP, 0, &[&group])];
    for (n, guid) in DISKS.iter().enumerate() {
        let name = text(&format!("Disk{}", n + 1));
        let fields = [&number(DISK[n])[..], &name, &text(guid), &text(""), &[0; 4], &COMMIT];
        all.push(record(OF_DISK, 0, &fields));
    }
    // Partitions: which disk, start there, size.
    let simple = [(0, 0, 8192)];
    let spanned = [(0, 8192, 4096), (1, 0, 8192)];
    let striped = [(0, 12288, 4096), (1, 8192, 4096)];
    let mirrored = [(0, 16384, 4096), (1, 12288, 4096)];
    all.extend(volume(10, "Volume1", 8192, 1, Some("E:")));
    all.extend(component(11, 10, 2, None, &simple));
    all.extend(volume(20, "Volume2", 12288, 1, None));
    all.extend(component(21, 20, 2, None, &spanned));
    all.extend(volume(30, "Stripe1", 8192, 1, Some("F:")));
    all.extend(component(31, 30, 1, Some(128), &striped));
    all.extend(volume(40, "Mirror1", 4096, 2, None));
    all.extend(component(41, 40, 2, None, &mirrored[..1]));
    all.extend(component(45, 40, 2, None, &mirrored[1..]));
    all
}

fn volume(id: u64, name: &str, size: u64, components: u64, hint: Option<&str>) -> Vec<Vec<u8>> {
    const NTFS: u8 = 7;
    let mut state = b"ACTIVE".to_vec();
    state.resize(14, 0);
    let mut guid = *b"LDM volume 0x\0\0\0";
    guid[15] = id as u8;
    let hint_field = hint.map(text).unwrap_or_default();
    let fields: [&[u8]; 15] = [
        &number(id),
        &text(name),
        &text("gen"),
        &[0],
        &state,
        // Not RAID 5; always 1; the volume's number.
        &[3, 1, id as u8],
        &[0; 3],
        &[0x11],
        &number(components),
        &COMMIT,
        &[0; 8],
        &number(size),
        &[0, 0, 0, 0, NTFS],
        &guid,
        &hint_field,
    ];
    vec![record(VOLUME, if hint.is_some() { 0x02 } else { 0 }, &fields)]
}

/// A component of a volume (1: striped, 2: not), and its partitions.
fn component(
    id: u64,
    volume: u64,
    kind: u8,
    stripe: Option<u64>,
    partitions: &[(usize, u64, u64)],
) -> Vec<Vec<u8>> {
    let columns = partitions.len() as u64;
    let stripes = stripe.map(|size| [number(size), number(columns)].concat()).unwrap_or_default();
    let name = text(&format!("C{id}"));
    let children = number(columns);
    let fields: [&[u8]; 10] = [
        &number(id),
        &name,
        &text("ACTIVE"),
        &[kind, 0, 0, 0, 0],
        &children,
        &COMMIT,
        &[0; 8],
        &number(volume),
        &[0],
        &stripes,
    ];
    let mut all = vec![record(COMPONENT, if stripe.is_some() { 0x10 } else { 0 }, &fields)];
    let mut offset = 0u64;
    for (index, &(disk, start, size)) in (0u64..).zip(partitions) {
        let name = text(&format!("Disk{}-{id}", disk + 1));
        let fields: [&[u8]; 9] = [
            &number(id + 1 + index),
            &name,
            &[0; 4],
            &COMMIT,
            &[start.to_be_bytes(), offset.to_be_bytes()].concat(),
            &number(size),
            &number(id),
            &number(DISK[disk]),
            &stripe.map(|_| number(index)).unwrap_or_default(),
        ];
        all.push(record(PARTITION, if stripe.is_some() { 0x08 } else { 0 }, &fields));
        offset += if stripe.is_some() { 0 } else { size };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn ldmtool_finds_the_disk_group_and_its_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("ldmtool");
        for n in [1, 2] {
            let path = dir.path().join(format!("disk{n}"));
            std::fs::write(&path, image(n).unwrap()).unwrap();
            command.arg("-d").arg(path);
        }
        let out = command.args(["show", "diskgroup", GROUP.1]).output();
        let out = out.unwrap_or_else(|e| panic!("ldmtool: {e}: please install it"));
        let text = String::from_utf8_lossy(&out.stdout);
        for name in ["Volume1", "Volume2", "Stripe1", "Mirror1", "Disk1", "Disk2", GROUP.0] {
            assert!(text.contains(&format!("\"{name}\"")), "{text}");
        }
        assert!(image(0).is_none() && image(3).is_none());
    }
}
