// SPDX-License-Identifier: Apache-2.0
//! Empty qcow2 images, and a check of one that shares no code with the engine: who owns each
//! cluster, and do the refcounts say so. (Snapshots, compressed clusters and bitmaps are not known
//! here.)
use std::collections::BTreeMap;

/// How an image is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// 2 or 3.
    pub version: u32,
    /// Of the size of a cluster.
    pub cluster_bits: u32,
    /// Of the bits of a refcount.
    pub refcount_order: u32,
    /// Entries for subclusters.
    pub extended_l2: bool,
    /// Refcounts that are only right once it is closed.
    pub lazy_refcounts: bool,
    /// An external data file.
    pub data_file: bool,
    /// Whether it has a backing file.
    pub backing: bool,
}

const COPIED: u64 = 1 << 63;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// An empty image of this size in bytes.
pub fn create(format: &Format, size: u64) -> Vec<u8> {
    let cluster = 1usize << format.cluster_bits;
    let l2_entry = if format.extended_l2 { 16 } else { 8 };
    let covered = (cluster / l2_entry * cluster) as u64;
    let l1_entries = size.div_ceil(covered).max(1);
    let l1_clusters = (index(l1_entries) * 8).div_ceil(cluster);
    let clusters = 3 + l1_clusters;
    let mut image = vec![0; clusters * cluster];
    put(&mut image, 0, b"QFI\xfb");
    put(&mut image, 4, &format.version.to_be_bytes());
    put(&mut image, 20, &format.cluster_bits.to_be_bytes());
    put(&mut image, 24, &size.to_be_bytes());
    put(&mut image, 36, &u32::try_from(l1_entries).unwrap_or(0).to_be_bytes());
    put(&mut image, 40, &(3 * cluster as u64).to_be_bytes());
    put(&mut image, 48, &(cluster as u64).to_be_bytes());
    put(&mut image, 56, &1u32.to_be_bytes());
    let mut at = 72;
    if format.version == 3 {
        let incompatible = u64::from(format.data_file) << 2 | u64::from(format.extended_l2) << 4;
        put(&mut image, 72, &incompatible.to_be_bytes());
        put(&mut image, 80, &u64::from(format.lazy_refcounts).to_be_bytes());
        put(&mut image, 96, &format.refcount_order.to_be_bytes());
        put(&mut image, 100, &104u32.to_be_bytes());
        at = 104;
        if format.data_file {
            put(&mut image, at, &0x4441_5441u32.to_be_bytes());
            put(&mut image, at + 4, &4u32.to_be_bytes());
            put(&mut image, at + 8, b"data");
            at += 16;
        }
        // The state, as the engine keeps it.
        put(&mut image, at, &0x4c75_6e65u32.to_be_bytes());
        put(&mut image, at + 4, &8u32.to_be_bytes());
        put(&mut image, at + 8, &[1, 0]);
        at += 16;
    }
    at += 8;
    if format.backing {
        put(&mut image, 8, &(at as u64).to_be_bytes());
        put(&mut image, 16, &7u32.to_be_bytes());
        put(&mut image, at, b"backing");
    }
    put(&mut image, cluster, &(2 * cluster as u64).to_be_bytes());
    for n in 0..clusters {
        set_refcount(&mut image[2 * cluster..3 * cluster], format.refcount_order, n, 1);
    }
    image
}

fn set_refcount(block: &mut [u8], order: u32, n: usize, value: u64) {
    if order < 3 {
        let (bits, per) = (1 << order, 8 >> order);
        block[n / per] |= u8::try_from(value).unwrap_or(0) << (n % per * bits);
    } else {
        let width = 1 << (order - 3);
        put(block, n * width, &value.to_be_bytes()[8 - width..]);
    }
}

fn refcount(block: &[u8], order: u32, n: usize) -> u64 {
    if order < 3 {
        let (bits, per) = (1 << order, 8 >> order);
        return u64::from(block[n / per] >> (n % per * bits)) & ((1 << bits) - 1);
    }
    let width = 1 << (order - 3);
    block[n * width..(n + 1) * width].iter().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// What a check found that is no error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Clusters whose refcount is larger than what refers to them.
    pub leaks: u64,
    /// Whether it is marked as dirty: its refcounts say nothing.
    pub dirty: bool,
}

struct Image<'a> {
    bytes: &'a [u8],
    cluster: u64,
    dirty: bool,
    /// Who refers to a cluster: its number, what, and how often.
    owners: BTreeMap<u64, (String, u64)>,
}

impl<'a> Image<'a> {
    fn number(&self, at: u64) -> u64 {
        let bytes = self.bytes.get(index(at)..index(at) + 8).unwrap_or(&[]);
        bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))
    }

    fn word(&self, at: u64) -> u64 {
        self.number(at) >> 32
    }

    /// Notes an owner.
    fn own(&mut self, offset: u64, clusters: u64, who: &dyn Fn() -> String) -> Result<(), String> {
        if !offset.is_multiple_of(self.cluster) {
            return Err(format!("{} at {offset:#x} is not aligned", who()));
        }
        // Those of a dirty image have to be repaired anyway; until then there are zeroes.
        if offset + (clusters - 1) * self.cluster >= self.bytes.len() as u64 && !self.dirty {
            let len = self.bytes.len();
            return Err(format!("{} at {offset:#x} is past the end of the file ({len:#x})", who()));
        }
        for n in 0..clusters {
            let number = offset / self.cluster + n;
            if let Some((other, _)) = self.owners.get(&number) {
                let at = number * self.cluster;
                return Err(format!("the cluster at {at:#x} is {other} and {}", who()));
            }
            self.owners.insert(number, (who(), 1));
        }
        Ok(())
    }

    fn cluster_bytes(&self, offset: u64) -> &'a [u8] {
        let end = (offset + self.cluster).min(self.bytes.len() as u64);
        &self.bytes[index(offset)..index(end)]
    }
}

/// Checks an image.
///
/// # Errors
/// What is wrong with it: two owners of a cluster, a refcount that is too small, a reference to
/// nowhere.
pub fn check(bytes: &[u8]) -> Result<Found, String> {
    if bytes.len() < 512 {
        return Err(format!("the file has {} bytes", bytes.len()));
    }
    let mut image = Image { bytes, cluster: 0, dirty: false, owners: BTreeMap::new() };
    let version = image.word(4);
    let cluster_bits = u32::try_from(image.word(20)).unwrap_or(0);
    if !(9..=21).contains(&cluster_bits) {
        return Err("the header is no header".into());
    }
    let cluster = 1u64 << cluster_bits;
    image.cluster = cluster;
    let (incompatible, order) = match version {
        3 => (image.number(72), u32::try_from(image.word(96)).unwrap_or(9)),
        _ => (0, 4),
    };
    let (dirty, data_file, extended) =
        (incompatible & 1 != 0, incompatible & 4 != 0, incompatible & 16 != 0);
    image.dirty = dirty;
    if incompatible & 2 != 0 {
        return Err("it is marked as corrupt".into());
    }
    let (l1_entries, l1) = (image.word(36), image.number(40));
    let (reftable, reftable_clusters) = (image.number(48), image.word(56));
    image.own(0, 1, &|| "the header".into())?;
    image.own(l1, (l1_entries * 8).div_ceil(cluster).max(1), &|| "the L1 table".into())?;
    image.own(reftable, reftable_clusters, &|| "the refcount table".into())?;
    let mut blocks = Vec::new();
    for i in 0..reftable_clusters * cluster / 8 {
        let entry = image.number(reftable + i * 8);
        blocks.push(entry);
        if entry != 0 {
            image.own(entry, 1, &|| format!("refcount block {i}"))?;
        }
    }
    let entry_size = if extended { 16 } else { 8 };
    // Those with the flag that says "refcount 1", and those without.
    let mut flags = Vec::new();
    for i in 0..l1_entries {
        let entry = image.number(l1 + i * 8);
        let l2 = entry & OFFSET;
        if l2 == 0 {
            continue;
        }
        flags.push((l2, entry & COPIED != 0, format!("L1 entry {i}")));
        image.own(l2, 1, &|| format!("L2 table {i}"))?;
        for j in 0..cluster / entry_size {
            let entry = image.number(l2 + j * entry_size);
            let (host, n) = (entry & OFFSET, i * (cluster / entry_size) + j);
            if entry & (1 << 62) != 0 {
                return Err(format!("L2 entry {n} is compressed"));
            }
            if data_file || host == 0 {
                continue;
            }
            flags.push((host, entry & COPIED != 0, format!("L2 entry {n}")));
            image.own(host, 1, &|| format!("guest cluster {n}"))?;
        }
    }
    let mut found = Found { leaks: 0, dirty };
    if dirty {
        return Ok(found);
    }
    let per_block = (cluster * 8) >> order;
    let counted = |number: u64| match blocks.get(index(number / per_block)) {
        None | Some(0) => 0,
        Some(&block) => {
            let block = image.cluster_bytes(block);
            refcount(block, order, index(number % per_block))
        }
    };
    for (&number, (who, _)) in &image.owners {
        if counted(number) == 0 {
            let at = number * cluster;
            return Err(format!("the cluster at {at:#x} ({who}) has refcount 0"));
        }
    }
    for (host, copied, who) in flags {
        let count = counted(host / cluster);
        if copied != (count == 1) {
            return Err(format!("{who} says {copied} of refcount 1, but it is {count}"));
        }
    }
    for (i, _) in (0..).zip(&blocks).filter(|&(_, &block)| block != 0) {
        for n in i * per_block..(i + 1) * per_block {
            if counted(n) != 0 && !image.owners.contains_key(&n) {
                found.leaks += 1;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        version: 3,
        cluster_bits: 9,
        refcount_order: 4,
        extended_l2: false,
        lazy_refcounts: false,
        data_file: false,
        backing: false,
    };

    #[test]
    fn an_empty_image_is_without_errors() {
        for refcount_order in 0..=6 {
            for cluster_bits in [9, 12, 16] {
                let format = Format { refcount_order, cluster_bits, ..FORMAT };
                let image = create(&format, 1 << 20);
                assert_eq!(check(&image), Ok(Found::default()), "{format:?}");
            }
        }
    }

    #[test]
    fn two_owners_a_lost_refcount_and_a_reference_to_nowhere_are_errors_and_a_leak_is_none() {
        let image = create(&FORMAT, 1 << 16);
        let mut leak = image.clone();
        set_refcount(&mut leak[1024..1536], 4, 9, 1);
        assert_eq!(check(&leak).map(|found| found.leaks), Ok(1));
        let mut entry = leak.clone();
        put(&mut entry, 3 * 512, &(COPIED | (9 * 512)).to_be_bytes());
        assert!(check(&entry).unwrap_err().contains("past the end"));
        entry.resize(10 * 512, 0);
        assert_eq!(check(&entry).map(|found| found.leaks), Ok(0));
        let mut twice = entry.clone();
        put(&mut twice, 9 * 512, &(COPIED | 512).to_be_bytes());
        assert!(check(&twice).unwrap_err().contains("the refcount table and guest cluster 0"));
        put(&mut entry, 1024 + 18, &[0, 0]);
        assert!(check(&entry).unwrap_err().contains("refcount 0"));
    }
}
