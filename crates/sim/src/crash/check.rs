// SPDX-License-Identifier: Apache-2.0
//! A check of a qcow2 image that shares no code with the engine: who owns each cluster, and do the
//! refcounts say so. (Snapshots and bitmaps are not known here.)
use std::fmt;

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// How far past the end of the file, in clusters, a dirty image may refer.
const PAST_END: u64 = 1 << 16;

/// What a check found that is no error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Clusters whose refcount is larger than what refers to them.
    pub leaks: u64,
    /// Whether it is marked as dirty: its refcounts say nothing.
    pub dirty: bool,
}

/// Who refers to a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    Header,
    L1,
    RefcountTable,
    RefcountBlock(u64),
    L2(u64),
    Guest(u64),
    Compressed(u64),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Nobody => f.write_str("nobody's"),
            Owner::Header => f.write_str("the header"),
            Owner::L1 => f.write_str("the L1 table"),
            Owner::RefcountTable => f.write_str("the refcount table"),
            Owner::RefcountBlock(n) => write!(f, "refcount block {n}"),
            Owner::L2(n) => write!(f, "L2 table {n}"),
            Owner::Guest(n) => write!(f, "guest cluster {n}"),
            Owner::Compressed(n) => write!(f, "compressed guest cluster {n}"),
        }
    }
}

struct Image<'a> {
    bytes: &'a [u8],
    cluster: u64,
    dirty: bool,
    /// By cluster: who, and how many.
    owners: Vec<(Owner, u64)>,
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl<'a> Image<'a> {
    fn number(&self, at: u64) -> u64 {
        let bytes = self.bytes.get(index(at)..).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    fn word(&self, at: u64) -> u64 {
        self.number(at) >> 32
    }

    /// Notes the owner of the clusters in which these bytes lie.
    fn own(&mut self, offset: u64, len: u64, who: Owner) -> Result<(), String> {
        let shares = matches!(who, Owner::Compressed(_));
        if !shares && !offset.is_multiple_of(self.cluster) {
            return Err(format!("{who} at {offset:#x} is not aligned"));
        }
        let (first, last) = (offset / self.cluster, (offset + len - 1) / self.cluster);
        let there = (self.bytes.len() as u64).div_ceil(self.cluster);
        // Those of a dirty image have to be repaired anyway; until then there are zeroes.
        if last >= there + if self.dirty { PAST_END } else { 0 } {
            let len = self.bytes.len();
            return Err(format!("{who} at {offset:#x} is past the end of the file ({len:#x})"));
        }
        if last >= self.owners.len() as u64 {
            self.owners.resize(index(last + 1), (Owner::Nobody, 0));
        }
        for number in first..=last {
            let (owner, count) = &mut self.owners[index(number)];
            let alike = shares && matches!(owner, Owner::Compressed(_));
            if *owner != Owner::Nobody && !alike {
                let at = number * self.cluster;
                return Err(format!("the cluster at {at:#x} is {owner} and {who}"));
            }
            *owner = who;
            *count += 1;
        }
        Ok(())
    }

    fn cluster_bytes(&self, offset: u64) -> &'a [u8] {
        let end = (offset + self.cluster).min(self.bytes.len() as u64);
        self.bytes.get(index(offset)..index(end)).unwrap_or_default()
    }
}

/// Refcount `n` of a block; 0 past its end.
fn refcount(block: &[u8], order: u32, n: usize) -> u64 {
    if order < 3 {
        let (bits, per) = (1 << order, 8 >> order);
        let byte = block.get(n / per).copied().unwrap_or(0);
        return u64::from(byte >> (n % per * bits)) & ((1 << bits) - 1);
    }
    let width = 1 << (order - 3);
    let bytes = block.get(n * width..(n + 1) * width).unwrap_or_default();
    bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))
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
    let mut image = Image { bytes, cluster: 0, dirty: false, owners: Vec::new() };
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
    let (data_file, extended) = (incompatible & 4 != 0, incompatible & 16 != 0);
    image.dirty = incompatible & 1 != 0;
    if incompatible & 2 != 0 {
        return Err("it is marked as corrupt".into());
    }
    let (l1_entries, l1) = (image.word(36), image.number(40));
    let (reftable, reftable_clusters) = (image.number(48), image.word(56));
    image.own(0, 1, Owner::Header)?;
    image.own(l1, (l1_entries * 8).max(1), Owner::L1)?;
    image.own(reftable, reftable_clusters.max(1) * cluster, Owner::RefcountTable)?;
    let mut blocks = Vec::new();
    for i in 0..reftable_clusters * cluster / 8 {
        let entry = image.number(reftable + i * 8);
        blocks.push(entry);
        if entry != 0 {
            image.own(entry, 1, Owner::RefcountBlock(i))?;
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
        flags.push((l2, entry & COPIED != 0, Owner::L2(i)));
        image.own(l2, 1, Owner::L2(i))?;
        for j in 0..cluster / entry_size {
            let entry = image.number(l2 + j * entry_size);
            let (host, n) = (entry & OFFSET, i * (cluster / entry_size) + j);
            if entry & COMPRESSED != 0 {
                let bits = 62 - (cluster_bits - 8);
                let start = entry & ((1 << bits) - 1);
                let sectors = (entry & (COMPRESSED - 1)) >> bits;
                let end = (start / 512 + sectors + 1) * 512;
                image.own(start, end - start, Owner::Compressed(n))?;
            } else if !data_file && host != 0 {
                flags.push((host, entry & COPIED != 0, Owner::Guest(n)));
                image.own(host, 1, Owner::Guest(n))?;
            }
        }
    }
    if image.dirty {
        return Ok(Found { leaks: 0, dirty: true });
    }
    let leaks = compare(&image, &blocks, order, &flags)?;
    Ok(Found { leaks, dirty: false })
}

/// Compares owners with refcounts; the number of leaks.
fn compare(
    image: &Image<'_>,
    blocks: &[u64],
    order: u32,
    flags: &[(u64, bool, Owner)],
) -> Result<u64, String> {
    let per_block = (image.cluster * 8) >> order;
    let counted = |number: u64| match blocks.get(index(number / per_block)) {
        None | Some(0) => 0,
        Some(&block) => refcount(image.cluster_bytes(block), order, index(number % per_block)),
    };
    for (number, &(who, owners)) in (0..).zip(&image.owners) {
        let count = counted(number);
        if count < owners {
            let at = number * image.cluster;
            let why = format!("has refcount {count} and {owners} owners");
            return Err(format!("the cluster at {at:#x} ({who}) {why}"));
        }
    }
    for &(host, copied, who) in flags {
        let count = counted(host / image.cluster);
        if copied != (count == 1) {
            return Err(format!("{who} says {copied} of refcount 1, but it is {count}"));
        }
    }
    let mut leaks = 0;
    // What is counted past the end of the file takes no space.
    let there = (image.bytes.len() as u64).div_ceil(image.cluster);
    for (i, &block) in (0..).zip(blocks).filter(|&(_, &block)| block != 0) {
        let bytes = image.cluster_bytes(block);
        // Most of most blocks is zero.
        let used = bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at as u64 + 1);
        let used = (used * 8).div_ceil(1 << order).min(per_block);
        let used = used.min(there.saturating_sub(i * per_block));
        for n in 0..used {
            let owners = image.owners.get(index(i * per_block + n)).map_or(0, |&(_, n)| n);
            leaks += u64::from(refcount(bytes, order, index(n)) > owners);
        }
    }
    Ok(leaks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::image::{Filled, Format, create, set_refcount};

    const FORMAT: Format = Format {
        version: 3,
        cluster_bits: 9,
        refcount_order: 4,
        extended_l2: false,
        lazy_refcounts: false,
        data_file: false,
        backing: false,
        filled: Filled { data: 0, preallocated: 0, zero: 0, compressed: 0 },
    };

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn a_new_image_is_without_errors_and_leaks() {
        let filled =
            Filled { data: 200_000, preallocated: 200_000, zero: 200_000, compressed: 200_000 };
        for filled in [Filled::default(), filled] {
            for refcount_order in 0..=6 {
                for cluster_bits in [9, 12, 16] {
                    let format = Format { refcount_order, cluster_bits, filled, ..FORMAT };
                    let (image, _) = create(&format, &vec![7; 1 << 20], 3);
                    assert_eq!(check(&image), Ok(Found::default()), "{format:?}");
                }
            }
        }
    }

    #[test]
    fn two_owners_a_lost_refcount_and_a_reference_to_nowhere_are_errors_and_a_leak_is_none() {
        let (image, _) = create(&FORMAT, &vec![0; 1 << 16], 0);
        let mut entry = image.clone();
        set_refcount(&mut entry[1024..1536], 4, 9, 1);
        // What is past the end takes no space.
        assert_eq!(check(&entry).map(|found| found.leaks), Ok(0));
        let mut leak = entry.clone();
        leak.resize(10 * 512, 0);
        assert_eq!(check(&leak).map(|found| found.leaks), Ok(1));
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

    #[test]
    fn a_cluster_that_two_compressed_ones_share_counts_twice() {
        let filled = Filled { compressed: 1_000_000, ..Filled::default() };
        let (image, _) = create(&Format { filled, ..FORMAT }, &[7; 4096], 0);
        assert_eq!(check(&image), Ok(Found::default()));
        let counts = &image[1024..1536];
        let shared = (0..256).find(|&n| refcount(counts, 4, n) == 2).unwrap();
        let mut less = image.clone();
        put(&mut less, 1024 + 2 * shared, &[0, 1]);
        assert!(check(&less).unwrap_err().contains("refcount 1 and 2 owners"));
        put(&mut less, 1024 + 2 * shared, &[0, 3]);
        assert_eq!(check(&less).map(|found| found.leaks), Ok(1));
    }
}
