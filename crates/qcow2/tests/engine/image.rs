// SPDX-License-Identifier: Apache-2.0
//! Images made by hand, and a check of them that shares nothing with the engine but the header.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use qcow2::layout::header::{Backing, Crypt, autoclear, compatible, extension, incompatible};
use qcow2::{Header, Secret};

/// What an image is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) refcount_order: u32,
    pub(crate) extended: bool,
    pub(crate) lazy: bool,
    pub(crate) size: u64,
    /// Length of the backing file; 0: none.
    pub(crate) backing: u64,
    pub(crate) data_file: bool,
    pub(crate) encrypted: bool,
    /// A disabled bitmap, and one that tells of changes, whose entry is in two sectors.
    pub(crate) bitmaps: bool,
    pub(crate) compress: bool,
}

impl Kind {
    pub(crate) fn simple(cluster_bits: u32, size: u64) -> Self {
        Kind {
            version: 3,
            cluster_bits,
            refcount_order: 4,
            extended: false,
            lazy: false,
            size,
            backing: 0,
            data_file: false,
            encrypted: false,
            bitmaps: false,
            compress: false,
        }
    }

    /// What an encrypted one is opened with.
    pub(crate) fn secret(&self) -> Option<Secret> {
        self.encrypted.then(|| Secret::new(PASSPHRASE.to_vec()))
    }
}

/// The passphrase of encrypted images.
const PASSPHRASE: &[u8] = b"abc";

/// A LUKS header up to the end of the first slot's key material.
fn luks_header() -> &'static [u8] {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        let format = luks::Format { key_len: 32, iterations: Some(1), ..Default::default() };
        let secret = Secret::new(PASSPHRASE.to_vec());
        let (mut bytes, _) = luks::format(&format, &secret).unwrap();
        bytes.truncate(luks::Header::parse(&bytes).unwrap().area_len());
        bytes
    })
}

/// An image without data.
pub(crate) fn make(kind: &Kind) -> Vec<u8> {
    let mut header = Header::new(kind.version, kind.cluster_bits, kind.size);
    if kind.version == 3 {
        header.refcount_order = kind.refcount_order;
        header.autoclear = autoclear::CLEAN;
    }
    if kind.extended {
        header.incompatible |= incompatible::EXTENDED_L2;
    }
    if kind.lazy {
        header.compatible |= compatible::LAZY_REFCOUNTS;
    }
    if kind.data_file {
        header.incompatible |= incompatible::DATA_FILE;
    }
    if kind.backing > 0 {
        header.backing = Some(Backing { name: "base".into(), format: Some("raw".into()) });
    }
    let cluster = 1usize << kind.cluster_bits;
    header.l1_entries = u32::try_from(header.l1_entries_for(kind.size)).unwrap().max(1);
    let l1_clusters = (header.l1_entries as usize * 8).div_ceil(cluster);
    header.reftable_offset = cluster as u64;
    header.reftable_clusters = 1;
    header.l1_offset = 3 * cluster as u64;
    let mut used = 3 + l1_clusters;
    let luks_offset = used * cluster;
    if kind.encrypted {
        header.crypt = Crypt::Luks;
        let place = [luks_offset as u64, luks_header().len() as u64];
        let place = place.map(u64::to_be_bytes).concat();
        header.extensions.push((extension::FULL_DISK_ENCRYPTION, place));
        used += luks_header().len().div_ceil(cluster);
    }
    let bitmaps_offset = used * cluster;
    let bitmaps = if kind.bitmaps { bitmaps(kind.size, bitmaps_offset, cluster) } else { vec![] };
    if kind.bitmaps {
        let place = [2 << 32, DIRECTORY as u64, bitmaps_offset as u64];
        header.extensions.push((extension::BITMAPS, place.map(u64::to_be_bytes).concat()));
        header.autoclear |= autoclear::BITMAPS;
        used += bitmaps.len() / cluster;
    }
    let mut bytes = header.encode().unwrap();
    bytes.resize(used * cluster, 0);
    bytes[bitmaps_offset..].copy_from_slice(&bitmaps);
    if kind.encrypted {
        bytes[luks_offset..][..luks_header().len()].copy_from_slice(luks_header());
    }
    bytes[cluster..cluster + 8].copy_from_slice(&(2 * cluster as u64).to_be_bytes());
    for at in 0..used {
        put_refcount(&mut bytes[2 * cluster..3 * cluster], header.refcount_order, at);
    }
    bytes
}

/// Length of the directory of bitmaps.
const DIRECTORY: usize = 504 + 32;

/// A directory and tables of two bitmaps, without bits set; all is to lie at `offset`.
fn bitmaps(size: u64, offset: usize, cluster: usize) -> Vec<u8> {
    let table = DIRECTORY.next_multiple_of(cluster);
    let entries = bitmap_parts(size, cluster as u64);
    let tables = [table, table + (entries as usize * 8).next_multiple_of(cluster)];
    let mut bytes = Vec::new();
    for (table, flags, name) in [(tables[0], 0, "x".repeat(480)), (tables[1], 2, "auto".into())] {
        bytes.extend(((offset + table) as u64).to_be_bytes());
        bytes.extend((entries << 32 | flags).to_be_bytes());
        bytes.extend([1, 9, (name.len() >> 8) as u8, name.len() as u8, 0, 0, 0, 0]);
        bytes.extend(name.into_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    assert_eq!(bytes.len(), DIRECTORY);
    bytes.resize(2 * tables[1] - tables[0], 0);
    bytes
}

/// The clusters of a bitmap with a bit for each sector.
fn bitmap_parts(size: u64, cluster: u64) -> u64 {
    (size / 512).div_ceil(8 * cluster)
}

/// What a bitmap of an image says.
#[derive(Debug)]
pub(crate) struct Bitmap {
    pub(crate) in_use: bool,
    /// Sectors.
    pub(crate) marked: BTreeSet<u64>,
    table: u64,
    entries: u64,
    parts: Vec<u64>,
}

fn directory(header: &Header) -> Option<&[u8]> {
    header.extension(extension::BITMAPS).filter(|_| header.autoclear & autoclear::BITMAPS != 0)
}

/// The bitmaps that were made, and what they say now: a disabled one, and one that tells of changes.
pub(crate) fn read_bitmaps(bytes: &[u8]) -> Vec<Bitmap> {
    let header = Header::decode(&bytes[..bytes.len().min(1 << 21)]).unwrap();
    let Some(place) = directory(&header) else { return Vec::new() };
    let cluster = header.cluster_size();
    let bitmap = |at: u64| {
        let (table, second) = (word(bytes, at), word(bytes, at + 8));
        let (in_use, entries) = (second & 1 == 1, second >> 32);
        let parts: Vec<u64> = (0..entries).map(|entry| word(bytes, table + entry * 8)).collect();
        let mut marked = BTreeSet::new();
        for (number, part) in (0..).zip(&parts).filter(|(_, part)| **part != 0) {
            let bits = (0..8 * cluster).filter(|bit| {
                bytes.get((part + bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
            });
            marked.extend(bits.map(|bit| number * 8 * cluster + bit));
        }
        if !in_use {
            assert_eq!(entries, bitmap_parts(header.size, cluster), "a table's length");
            assert!(marked.iter().all(|sector| *sector < header.size / 512), "a bit past the end");
        }
        Bitmap { in_use, marked, table, entries, parts }
    };
    [0, 504].map(|at| bitmap(word(place, 16) + at)).into()
}

fn put_refcount(block: &mut [u8], order: u32, at: usize) {
    let bits = 1 << order;
    if bits < 8 {
        block[at * bits / 8] |= 1 << (at * bits % 8);
    } else {
        block[(at + 1) * bits / 8 - 1] = 1;
    }
}

fn word(bytes: &[u8], at: u64) -> u64 {
    let at = at as usize;
    bytes.get(at..at + 8).map_or(0, |word| u64::from_be_bytes(word.try_into().unwrap()))
}

/// The L1 tables: offset and number of entries of the active one, then of the snapshots'; and the
/// length of the table of those.
fn l1_tables(bytes: &[u8], header: &Header) -> (Vec<(u64, u64)>, u64) {
    let mut tables = vec![(header.l1_offset, u64::from(header.l1_entries))];
    let mut at = header.snapshots_offset;
    for _ in 0..header.snapshots {
        let (entries, lengths) = (word(bytes, at + 8) >> 32, word(bytes, at + 8) as u32);
        tables.push((word(bytes, at), entries));
        let names = u64::from(lengths >> 16) + u64::from(lengths & 0xffff);
        let extra = u64::from(word(bytes, at + 32) as u32);
        at = (at + 40 + extra + names).next_multiple_of(8);
    }
    (tables, at - header.snapshots_offset)
}

/// Compares refcounts with references; returns how many clusters are leaked and how many COPIED
/// flags are missing, together.
pub(crate) fn check(bytes: &[u8]) -> Result<u64, String> {
    let header = Header::decode(&bytes[..bytes.len().min(1 << 21)]).map_err(|e| e.to_string())?;
    let cluster = header.cluster_size();
    header.check_tables(bytes.len() as u64).map_err(|e| e.to_string())?;
    let mut references: BTreeMap<u64, u64> = BTreeMap::new();
    let mut refer = |offset: u64, what: &str| {
        if !offset.is_multiple_of(cluster) {
            return Err(format!("{what} {offset:#x} is not aligned"));
        }
        if offset >= bytes.len() as u64 {
            return Err(format!("{what} {offset:#x} is past the end {:#x}", bytes.len()));
        }
        *references.entry(offset / cluster).or_default() += 1;
        Ok(())
    };
    refer(0, "header")?;
    let (l1_tables, table_len) = l1_tables(bytes, &header);
    for (offset, entries) in &l1_tables {
        for at in 0..(entries * 8).div_ceil(cluster) {
            refer(offset + at * cluster, "L1 table")?;
        }
    }
    for at in 0..table_len.div_ceil(cluster) {
        refer(header.snapshots_offset + at * cluster, "table of snapshots")?;
    }
    for (_, place) in
        header.extensions.iter().filter(|(kind, _)| *kind == extension::FULL_DISK_ENCRYPTION)
    {
        let clusters = word(place, 8).div_ceil(cluster);
        (0..clusters).try_for_each(|at| refer(word(place, 0) + at * cluster, "LUKS header"))?;
    }
    if let Some(place) = directory(&header) {
        for at in 0..word(place, 8).div_ceil(cluster) {
            refer(word(place, 16) + at * cluster, "directory of bitmaps")?;
        }
        for bitmap in read_bitmaps(bytes) {
            for at in 0..(bitmap.entries * 8).div_ceil(cluster) {
                refer(bitmap.table + at * cluster, "bitmap's table")?;
            }
            let parts = bitmap.parts.iter().filter(|part| **part != 0);
            parts.into_iter().try_for_each(|part| refer(*part, "part of a bitmap"))?;
        }
    }
    let mut blocks = Vec::new();
    for at in 0..u64::from(header.reftable_clusters) {
        refer(header.reftable_offset + at * cluster, "refcount table")?;
        for index in 0..cluster / 8 {
            let block = word(bytes, header.reftable_offset + at * cluster + index * 8);
            blocks.push(block);
            if block != 0 {
                refer(block, "refcount block")?;
            }
        }
    }
    let data_file = header.needs(incompatible::DATA_FILE);
    let entry_size = header.l2_entry_size();
    let mut copied = Vec::new();
    let entries = l1_tables.iter().enumerate();
    let entries = entries.flat_map(|(number, (offset, entries))| {
        (0..*entries).map(move |index| (number == 0, offset + index * 8))
    });
    for (active, at) in entries {
        let entry = word(bytes, at);
        let table = entry & 0x00ff_ffff_ffff_fe00;
        if table == 0 {
            continue;
        }
        refer(table, "L2 table")?;
        copied.push((table, entry >> 63, active));
        for at in 0..cluster / entry_size {
            let entry = word(bytes, table + at * entry_size);
            let host = entry & 0x00ff_ffff_ffff_fe00;
            if entry >> 62 & 1 != 0 {
                let split = 62 - (header.cluster_bits - 8);
                let start = entry & ((1 << split) - 1);
                let sectors = (entry & ((1 << 62) - 1)) >> split;
                let end = (start / 512 + sectors + 1) * 512;
                for at in start / cluster..end.div_ceil(cluster) {
                    refer(at * cluster, "compressed cluster")?;
                }
                continue;
            }
            if host != 0 && !data_file {
                refer(host, "cluster")?;
                copied.push((host, entry >> 63, active));
            }
        }
    }
    let order = header.refcount_order;
    let per_block = (cluster * 8) >> order;
    let refcount = |at: u64| {
        let block = blocks.get((at / per_block) as usize).copied().unwrap_or(0);
        if block == 0 {
            return 0;
        }
        let (bits, at) = (1u64 << order, at % per_block);
        let bytes = &bytes[block as usize..][..cluster as usize];
        if bits < 8 {
            let byte = bytes[(at * bits / 8) as usize];
            return u64::from(byte) >> (at * bits % 8) & ((1 << bits) - 1);
        }
        let field = &bytes[(at * bits / 8) as usize..][..(bits / 8) as usize];
        field.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    let mut leaks = 0;
    if header.needs(incompatible::DIRTY) {
        // Refcounts may be wrong; owners may not.
        return match references.iter().find(|(_, count)| **count > 1) {
            Some((at, count)) => Err(format!("cluster {at:#x} has {count} owners")),
            None => Ok(0),
        };
    }
    for at in 0..(blocks.len() as u64 * per_block).min(bytes.len() as u64 / cluster + 4 * per_block)
    {
        let (wanted, found) = (references.get(&at).copied().unwrap_or(0), refcount(at));
        if found < wanted {
            return Err(format!("cluster {at:#x} has {wanted} owners and the refcount {found}"));
        }
        leaks += u64::from(found > wanted);
    }
    for (host, flag, active) in copied {
        let (owners, refcount) = (references[&(host / cluster)], refcount(host / cluster));
        if flag == 1 && owners > 1 {
            return Err(format!("{host:#x} has {owners} owners and the flag of a single one"));
        }
        leaks += u64::from(active && flag == 0 && refcount == 1);
    }
    Ok(leaks)
}
