// SPDX-License-Identifier: Apache-2.0
//! A check of a qcow2 image that shares no code with the engine: who owns each cluster, and do the
//! refcounts say so. In: the bytes of its file. Out: what is wrong, or what is no error but is told.
//!
//! - `owners`: who refers to which cluster.
//! - `refcounts`: whether the refcounts agree.
//! - [`bitmaps`]: the persistent bitmaps.
pub mod bitmaps;
mod owners;
mod refcounts;
#[cfg(test)]
mod tests;

use owners::{Image, Owner};

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What a check found that is no error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Clusters whose refcount is larger than what refers to them.
    pub leaks: u64,
    /// Entries of the active disk whose COPIED flag does not agree with a refcount, though their
    /// cluster has no second owner.
    pub flags: u64,
    /// Whether it is marked as dirty: its refcounts say nothing.
    pub dirty: bool,
}

/// An L1 table: offset and entries.
struct L1 {
    offset: u64,
    entries: u64,
}

/// An L2 table, to which one entry or several refer.
struct L2 {
    offset: u64,
    /// The number of the L1 entry.
    index: u64,
    /// How many L1 tables refer to it.
    uses: u64,
    /// Whether the active one does, and with which COPIED flag.
    active: Option<bool>,
}

/// A flag of the active disk: which cluster, whether it is set, whose entry it is.
type Flag = (u64, bool, Owner);

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Checks an image.
///
/// # Errors
/// What is wrong with it: two owners of a cluster, a refcount that is too small, a reference to
/// nowhere, a flag that promises a single owner where there are more.
pub fn check(bytes: &[u8]) -> Result<Found, String> {
    let mut image = Image::new(bytes)?;
    let (l1, entries) = (image.number(40), image.word(36));
    let (reftable, reftable_clusters) = (image.number(48), image.word(56));
    image.own(0, 1, Owner::Header, 1)?;
    image.own(l1, (entries * 8).max(1), Owner::L1, 1)?;
    image.own(reftable, reftable_clusters.max(1) * image.cluster, Owner::RefcountTable, 1)?;
    let mut blocks = Vec::new();
    for i in 0..reftable_clusters * image.cluster / 8 {
        let entry = image.number(reftable + i * 8);
        blocks.push(entry);
        if entry != 0 {
            image.own(entry, 1, Owner::RefcountBlock(i), 1)?;
        }
    }
    let mut l1s = vec![L1 { offset: l1, entries }];
    l1s.extend(snapshots(&mut image)?);
    for (number, bitmap) in (0..).zip(bitmaps::list(&image)?) {
        bitmap.own(&mut image, number)?;
    }
    let mut flags = Vec::new();
    for l2 in l2_tables(&image, &l1s)? {
        walk(&mut image, &l2, &mut flags)?;
    }
    if image.dirty {
        return Ok(Found { dirty: true, ..Found::default() });
    }
    refcounts::compare(&image, &blocks, &flags)
}

/// The L1 tables of snapshots.
fn snapshots(image: &mut Image<'_>) -> Result<Vec<L1>, String> {
    let (count, table) = (image.word(60), image.number(64));
    let (mut at, mut l1s) = (table, Vec::new());
    for number in 0..count {
        let (offset, entries) = (image.number(at), image.word(at + 8));
        let (names, extra) = (image.word(at + 12), image.word(at + 36));
        at = (at + 40 + extra + (names >> 16) + (names & 0xffff)).next_multiple_of(8);
        image.own(offset, (entries * 8).max(1), Owner::SnapshotL1(number), 1)?;
        l1s.push(L1 { offset, entries });
    }
    if count > 0 {
        image.own(table, at - table, Owner::Snapshots, 1)?;
    }
    Ok(l1s)
}

/// All L2 tables; the first L1 table is the active one.
fn l2_tables(image: &Image<'_>, l1s: &[L1]) -> Result<Vec<L2>, String> {
    let mut tables: std::collections::BTreeMap<u64, L2> = std::collections::BTreeMap::new();
    for (number, l1) in l1s.iter().enumerate() {
        for index in 0..l1.entries {
            let entry = image.number(l1.offset + index * 8);
            let offset = entry & OFFSET;
            if offset == 0 {
                continue;
            }
            let active = (number == 0).then_some(entry & COPIED != 0);
            let new = L2 { offset, index, uses: 0, active };
            let table = tables.entry(offset).or_insert(new);
            if table.index != index || (number == 0 && table.uses > 0) {
                let (one, other) = (Owner::L2(table.index), Owner::L2(index));
                return Err(format!("the cluster at {offset:#x} is {one} and {other}"));
            }
            table.uses += 1;
        }
    }
    Ok(tables.into_values().collect())
}

/// Notes an L2 table and what it refers to.
fn walk(image: &mut Image<'_>, l2: &L2, flags: &mut Vec<Flag>) -> Result<(), String> {
    let &L2 { offset, index, uses, active } = l2;
    image.own(offset, 1, Owner::L2(index), uses)?;
    if let Some(copied) = active {
        flags.push((offset, copied, Owner::L2(index)));
    }
    let slots = image.cluster / image.entry_size;
    for slot in 0..slots {
        let entry = image.number(offset + slot * image.entry_size);
        let (host, n) = (entry & OFFSET, index * slots + slot);
        if entry & COMPRESSED != 0 {
            let bits = 62 - (image.cluster.trailing_zeros() - 8);
            let start = entry & ((1 << bits) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> bits;
            let end = (start / 512 + sectors + 1) * 512;
            image.own(start, end - start, Owner::Compressed(n), uses)?;
        } else if !image.data_file && host != 0 {
            image.own(host, 1, Owner::Guest(n), uses)?;
            if active.is_some() {
                flags.push((host, entry & COPIED != 0, Owner::Guest(n)));
            }
        }
    }
    Ok(())
}
