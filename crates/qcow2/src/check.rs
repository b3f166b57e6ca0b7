// SPDX-License-Identifier: Apache-2.0
//! Whether an image is consistent, with the classes and numbers of `qemu-img check`, and repairs
//! that are safe. In: a storage that nobody writes to meanwhile. Out: a [`Report`].
//!
//! Rules of a repair. After each step that is named here there is a sync, so that a crash between
//! two leaves leaks or copies that were not needed, and nothing that has two owners:
//! 1. What was read is made stable: an earlier process may have left it in the page cache.
//! 2. Refcounts that are too low are raised.
//! 3. COPIED flags that promise a single owner where there are more are cleared.
//! 4. Refcounts that are too high are lowered.
//! 5. COPIED flags that are missing are set. The bits "dirty" and "corrupt" are cleared.
//!
//! Where a structure itself is wrong (a table outside of the file or at the place of another, a
//! refcount block that is missing), nothing is written at all.
//!
//! Memory: two bytes and a bit for each cluster of the file, of at most 256 Mi of them.
use std::fmt::Display;

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::error::Result;
use crate::geometry::{Entry, Geometry, Kind};
use crate::layout::entry::{COPIED, OFFSET_MASK};
use crate::layout::header::{Header, INCOMPATIBLE_OFFSET, MAX_L1_BYTES, extension, incompatible};
use crate::{Error, ErrorKind, Storage};

/// The most clusters that a file may have to be checked.
const MAX_CLUSTERS: u64 = 256 << 20;
/// The longest directory of bitmaps (QEMU's limit).
const MAX_DIRECTORY: u64 = 64 << 20;
/// The most data that a snapshot has beside its fields (QEMU's limit).
const MAX_SNAPSHOT_EXTRA: u64 = 1024;
/// How many findings are told in words.
const MAX_FINDINGS: usize = 100;
/// Offset of a refcount block in an entry of the refcount table.
const BLOCK_MASK: u64 = !0x1ff;

/// What a check may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    None,
    /// Refcounts that are too high, if nothing else is wrong.
    Leaks,
    /// All refcounts and COPIED flags.
    All,
}

/// What was found. Numbers are those before the repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Errors that endanger data.
    pub corruptions: u64,
    /// Clusters that take space and that nothing refers to.
    pub leaks: u64,
    /// Whether both were repaired: then the image is clean now. Of [`Repair::Leaks`], leaks only.
    pub repaired: bool,
    /// Clusters of the guest.
    pub total_clusters: u64,
    /// Those that have a place.
    pub allocated_clusters: u64,
    /// Those that do not follow the one before in the file.
    pub fragmented_clusters: u64,
    /// Those that are compressed.
    pub compressed_clusters: u64,
    /// The end of the last cluster that is in use, in bytes.
    pub image_end_offset: u64,
    /// The first findings in words.
    pub findings: Vec<String>,
}

/// What refers to a cluster: bits beside its number of references.
#[derive(Clone, Copy)]
enum Role {
    /// Header, table of refcounts, L1 and the like: one reference at most.
    Exclusive = 1 << 15,
    /// An L2 table, which snapshots share.
    Table = 1 << 14,
    /// Guest data, which snapshots and compressed clusters share.
    Data = 1 << 13,
}

const MAX_COUNT: u16 = (1 << 13) - 1;

struct Check<'a, S> {
    storage: &'a S,
    header: Header,
    geo: Geometry,
    /// For each cluster of the file the number of references, and their [`Role`]s.
    references: Vec<u16>,
    /// A bit for each cluster: its refcount is one.
    single: Vec<u64>,
    /// Where refcount blocks are; 0 where none is.
    blocks: Vec<u64>,
    /// L1 tables: of the image, then of its snapshots.
    l1s: Vec<(u64, Vec<u64>)>,
    report: Report,
    /// Whether something is wrong that no step of a repair changes.
    broken: bool,
    /// Refcounts that are too low, COPIED flags that are wrong.
    low: u64,
}

/// Checks the image on `storage`, and repairs it if everything that is wrong can be repaired.
///
/// # Errors
/// [`ErrorKind::Invalid`] when there is no usable header, or the file is too large to be checked.
pub async fn check<S: Storage>(storage: &S, repair: Repair) -> std::result::Result<Report, Error> {
    let header = Header::read(storage).await?;
    run(storage, header, repair).await.map_err(|kind| Error::new(kind, "check"))
}

async fn run<S: Storage>(storage: &S, header: Header, repair: Repair) -> Result<Report> {
    let geo = Geometry::of(&header);
    let clusters = storage.length().await?.div_ceil(geo.cluster_size());
    if clusters > MAX_CLUSTERS {
        return Err(ErrorKind::invalid(format!(
            "its file has {clusters} clusters, and no more than {MAX_CLUSTERS} can be checked; run \
             `qemu-img check PATH`"
        )));
    }
    let clusters = usize::try_from(clusters).unwrap_or(0);
    let mut check = Check {
        storage,
        header,
        geo,
        references: vec![0; clusters],
        single: vec![0; clusters.div_ceil(64)],
        blocks: Vec::new(),
        l1s: Vec::new(),
        report: Report::default(),
        broken: false,
        low: 0,
    };
    check.count().await?;
    check.refcounts(Pass::Look).await?;
    check.flags(Pass::Look).await?;
    if check.may(repair) {
        check.repair().await?;
    }
    Ok(check.report)
}

/// What is done to an entry that is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Look,
    /// Refcounts are made higher; COPIED is cleared.
    Safer,
    /// Refcounts are made lower; COPIED is set.
    Leaner,
}

impl<S: Storage> Check<'_, S> {
    fn corrupt(&mut self, what: impl Display) {
        self.report.corruptions += 1;
        self.tell(what);
    }

    /// Wrong, and not to be repaired here.
    fn broken(&mut self, what: impl Display) {
        self.broken = true;
        self.corrupt(what);
    }

    fn tell(&mut self, what: impl Display) {
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(what.to_string());
        }
    }

    fn may(&self, repair: Repair) -> bool {
        let marked = self.header.incompatible & (incompatible::DIRTY | incompatible::CORRUPT) != 0;
        let wrong = self.report.corruptions > 0 || marked && repair == Repair::All;
        match repair {
            Repair::None => false,
            Repair::Leaks => !self.broken && !wrong && self.report.leaks > 0,
            Repair::All => !self.broken && (wrong || self.report.leaks > 0),
        }
    }

    /// Counts a reference to a range.
    fn refer(&mut self, offset: u64, len: u64, role: Role, what: impl Display) {
        if len == 0 {
            return;
        }
        let first = offset >> self.geo.cluster_bits;
        let last = offset.saturating_add(len - 1) >> self.geo.cluster_bits;
        let range = usize::try_from(first).ok().zip(usize::try_from(last).ok());
        let range = range.and_then(|(first, last)| self.references.get_mut(first..=last));
        let Some(range) = range else {
            self.broken(format_args!(
                "{what} refers to {len} bytes at {offset:#x}, past the end of the file"
            ));
            return;
        };
        for word in range {
            let count = (*word & MAX_COUNT).saturating_add(1).min(MAX_COUNT);
            *word = *word & !MAX_COUNT | role as u16 | count;
        }
    }

    fn aligned(&self, offset: u64) -> bool {
        offset & (self.geo.cluster_size() - 1) == 0
    }

    /// So many entries of a table; what lies past the end of the file is zero. Callers have a bound.
    async fn words(&self, offset: u64, count: u64) -> Result<Vec<u64>> {
        let mut words = vec![0u64; usize::try_from(count).unwrap_or(0)];
        if count > 0 {
            self.storage.read(&Sgl::from_slice(words.as_mut_bytes()), offset).await?;
        }
        words.iter_mut().for_each(|word| *word = u64::from_be(*word));
        Ok(words)
    }

    async fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        if len > 0 {
            self.storage.read(&Sgl::from_slice(&mut bytes), offset).await?;
        }
        Ok(bytes)
    }

    async fn count(&mut self) -> Result<()> {
        let cluster = self.geo.cluster_size();
        self.refer(0, cluster, Role::Exclusive, "the header");
        let (offset, len) = (
            self.header.reftable_offset,
            u64::from(self.header.reftable_clusters) << self.geo.cluster_bits,
        );
        self.refer(offset, len, Role::Exclusive, "the header's refcount table");
        self.blocks = self.words(offset, len / 8).await?;
        for index in 0..self.blocks.len() {
            let entry = self.blocks.get(index).copied().unwrap_or(0);
            let block = entry & BLOCK_MASK;
            let what = format!("entry {index} of the refcount table ({entry:#x})");
            if block != 0 && self.aligned(block) {
                self.refer(block, cluster, Role::Exclusive, what);
            } else if block != 0 {
                self.broken(format_args!("{what} is not aligned to a cluster"));
                if let Some(entry) = self.blocks.get_mut(index) {
                    *entry = 0;
                }
            }
        }
        let (offset, entries) = (self.header.l1_offset, self.header.l1_entries.into());
        self.add_l1(offset, entries, "the L1 table").await?;
        self.count_snapshots().await?;
        self.count_bitmaps().await?;
        match crate::crypt::luks_area(&self.header) {
            Ok(Some(area)) => {
                let len = area.end - area.start;
                self.refer(area.start, len, Role::Exclusive, "the encryption header");
            }
            Ok(None) => {}
            Err(e) => self.broken(e),
        }
        self.report.total_clusters = self.header.size.div_ceil(cluster);
        for index in 0..self.l1s.len() {
            self.count_l2s(index).await?;
        }
        Ok(())
    }

    async fn add_l1(&mut self, offset: u64, entries: u64, what: &str) -> Result<()> {
        if entries * 8 > MAX_L1_BYTES || !self.aligned(offset) {
            self.broken(format_args!("{what} has {entries} entries at {offset:#x}"));
            return Ok(());
        }
        self.refer(offset, entries * 8, Role::Exclusive, what);
        let words = self.words(offset, entries).await?;
        self.l1s.push((offset, words));
        Ok(())
    }

    async fn count_snapshots(&mut self) -> Result<()> {
        let start = self.header.snapshots_offset;
        let mut at = start;
        for index in 0..self.header.snapshots {
            let head = self.bytes(at, 40).await?;
            let (offset, entries) = (number(&head, 0, 8), number(&head, 8, 4));
            let names = number(&head, 12, 2) + number(&head, 14, 2);
            let more = number(&head, 36, 4);
            if more > MAX_SNAPSHOT_EXTRA {
                self.broken(format_args!("the snapshot {index} has {more} bytes of extra data"));
                return Ok(());
            }
            self.add_l1(offset, entries, &format!("the snapshot {index}'s L1 table")).await?;
            at = (at + 40 + more + names).next_multiple_of(8);
        }
        self.refer(start, at - start, Role::Exclusive, "the header's snapshot table");
        Ok(())
    }

    async fn count_bitmaps(&mut self) -> Result<()> {
        let Some(data) = self.header.extension(extension::BITMAPS).map(<[u8]>::to_vec) else {
            return Ok(());
        };
        let (count, len, offset) = (number(&data, 0, 4), number(&data, 8, 8), number(&data, 16, 8));
        if data.len() < 24 || len > MAX_DIRECTORY {
            self.broken(format_args!("the directory of {count} bitmaps has {len} bytes"));
            return Ok(());
        }
        self.refer(offset, len, Role::Exclusive, "the bitmaps' directory");
        let directory = self.bytes(offset, len).await?;
        let mut at = 0;
        for index in 0..count {
            let what = format!("the bitmap {index}");
            let (table, entries) = (number(&directory, at, 8), number(&directory, at + 8, 4));
            let (name, more) = (number(&directory, at + 18, 2), number(&directory, at + 20, 4));
            if at + 24 > len || entries * 8 > MAX_L1_BYTES {
                self.broken(format_args!("{what} has {entries} clusters, or no entry"));
                return Ok(());
            }
            at = (at + 24 + name + more).next_multiple_of(8);
            self.refer(table, entries * 8, Role::Exclusive, &what);
            for word in self.words(table, entries).await? {
                let cluster = word & OFFSET_MASK;
                if cluster != 0 {
                    self.refer(cluster, self.geo.cluster_size(), Role::Exclusive, &what);
                }
            }
        }
        Ok(())
    }

    /// Where L2 tables are, by index in their L1 table: those that can be read. A table that an L1
    /// table refers to twice is an error; so that it costs no time, no more are read than there are
    /// clusters.
    fn tables(&self, l1: usize) -> Vec<(usize, u64)> {
        let entries = self.l1s.get(l1).map(|(_, entries)| &entries[..]).unwrap_or_default();
        let tables = entries.iter().enumerate().map(|(index, entry)| (index, entry & OFFSET_MASK));
        let inside = |table: u64| (table >> self.geo.cluster_bits) < self.references.len() as u64;
        let tables = tables.filter(|(_, at)| *at != 0 && self.aligned(*at) && inside(*at));
        tables.take(self.references.len()).collect()
    }

    async fn count_l2s(&mut self, l1: usize) -> Result<()> {
        let cluster = self.geo.cluster_size();
        let entries = self.l1s.get(l1).map(|(_, entries)| entries.clone()).unwrap_or_default();
        for (index, entry) in entries.iter().enumerate() {
            let table = entry & OFFSET_MASK;
            let what = format!("entry {index} of L1 table {l1} ({entry:#x})");
            if table != 0 && self.aligned(table) {
                self.refer(table, cluster, Role::Table, what);
            } else if table != 0 {
                self.broken(format_args!("{what} is not aligned to a cluster"));
            }
        }
        let step = usize::from(self.geo.extended()) + 1;
        for (_, table) in self.tables(l1) {
            // As in QEMU, the first cluster of each table is no fragment.
            let mut next = 0;
            let words = self.words(table, cluster / 8).await?;
            for (index, pair) in words.chunks(step).enumerate() {
                let word = pair.first().copied().unwrap_or(0);
                if word == 0 {
                    continue;
                }
                let bitmap = pair.get(1).copied().unwrap_or(0);
                let what = format!("entry {index} of the L2 table at {table:#x} ({word:#x})");
                let host = match (Entry { word, bitmap }).kind(&self.geo) {
                    Ok(Kind::Compressed(at)) => {
                        if word & COPIED != 0 {
                            self.broken(format_args!("{what} is compressed, and has COPIED set"));
                        }
                        self.refer(at.host, at.len, Role::Data, what);
                        None
                    }
                    Ok(Kind::Plain { host: Some(host), .. }) => {
                        if !self.geo.data_file {
                            self.refer(host, cluster, Role::Data, what);
                        }
                        Some(host)
                    }
                    Ok(Kind::Plain { .. }) => continue,
                    Err(wrong) => {
                        self.broken(format_args!("{what} {wrong}"));
                        continue;
                    }
                };
                if l1 == 0 {
                    self.report.allocated_clusters += 1;
                    self.report.compressed_clusters += u64::from(host.is_none());
                    let follows = host.is_some_and(|host| next == 0 || host == next);
                    self.report.fragmented_clusters += u64::from(!follows);
                    next = host.map_or(next, |host| host.saturating_add(cluster));
                }
            }
        }
        Ok(())
    }

    /// Compares refcounts with references; the pass says which are written.
    async fn refcounts(&mut self, pass: Pass) -> Result<()> {
        let per_block = 1usize << self.geo.block_clusters_bits();
        let mut end = 0;
        for block in 0..self.references.len().div_ceil(per_block) {
            let at = self.blocks.get(block).copied().unwrap_or(0) & BLOCK_MASK;
            let mut bytes =
                if at == 0 { Vec::new() } else { self.bytes(at, self.geo.cluster_size()).await? };
            let mut changed = false;
            let first = block * per_block;
            for cluster in first..(first + per_block).min(self.references.len()) {
                let word = self.references.get(cluster).copied().unwrap_or(0);
                let wanted = u64::from(word & MAX_COUNT);
                let found = get(&bytes, cluster - first, self.geo.refcount_order);
                if pass == Pass::Look {
                    if wanted > 0 || found > 0 {
                        end = cluster as u64 + 1;
                    }
                    self.look(cluster, word, found, at != 0);
                    continue;
                }
                let write = if pass == Pass::Safer { found < wanted } else { found > wanted };
                if write && wanted < MAX_COUNT.into() {
                    put(&mut bytes, cluster - first, self.geo.refcount_order, wanted);
                    changed = true;
                }
            }
            if changed {
                self.storage.write(&Sgl::from_slice(&mut bytes), at).await?;
            }
        }
        if pass == Pass::Look {
            self.report.image_end_offset = end << self.geo.cluster_bits;
        }
        Ok(())
    }

    /// Judges one refcount.
    fn look(&mut self, cluster: usize, word: u16, found: u64, counted: bool) {
        let wanted = u64::from(word & MAX_COUNT);
        if found == 1
            && let Some(bits) = self.single.get_mut(cluster / 64)
        {
            *bits |= 1 << (cluster % 64);
        }
        let saturated = wanted == MAX_COUNT.into();
        let has = |role: Role| word & role as u16 != 0;
        let owners = has(Role::Exclusive) && wanted > 1 || has(Role::Table) && has(Role::Data);
        if owners {
            self.broken = true;
            self.tell(format_args!("cluster {cluster:#x} is at the place of several structures"));
        }
        if found > wanted && !saturated {
            self.report.leaks += 1;
            self.tell(format_args!(
                "cluster {cluster:#x} has refcount {found}, references {wanted}"
            ));
        } else if found < wanted {
            self.low += 1;
            // A block that is missing, or refcounts that cannot be as high.
            self.broken |= !counted || wanted > self.geo.max_refcount() || saturated;
            self.corrupt(format_args!(
                "cluster {cluster:#x} has refcount {found}, references {wanted}"
            ));
        } else if owners {
            self.report.corruptions += 1;
        }
    }

    /// Whether the refcount of the cluster at `offset` is one: as it was found, or as it is to be.
    fn is_single(&self, offset: u64, pass: Pass) -> bool {
        let cluster = usize::try_from(offset >> self.geo.cluster_bits).unwrap_or(usize::MAX);
        if pass == Pass::Look {
            return self.single.get(cluster / 64).is_some_and(|b| b >> (cluster % 64) & 1 == 1);
        }
        self.references.get(cluster).is_some_and(|word| word & MAX_COUNT == 1)
    }

    /// The entry as it should be, if the pass changes it.
    fn flagged(&self, entry: u64, pass: Pass) -> Option<u64> {
        let wanted = self.is_single(entry & OFFSET_MASK, pass);
        let wrong = wanted != (entry & COPIED != 0);
        let now = match pass {
            Pass::Look => true,
            Pass::Safer => !wanted,
            Pass::Leaner => wanted,
        };
        (wrong && now).then_some(entry ^ COPIED)
    }

    /// COPIED flags of the image's own tables. Those of snapshots mean nothing, but their L2 tables
    /// that are shared are the image's as well.
    async fn flags(&mut self, pass: Pass) -> Result<()> {
        let Some((offset, mut l1)) = self.l1s.first().cloned() else { return Ok(()) };
        let tables = self.tables(0);
        let mut changed = false;
        for (index, _) in &tables {
            let Some(entry) = l1.get_mut(*index) else { continue };
            if let Some(new) = self.flagged(*entry, pass) {
                if pass == Pass::Look {
                    self.corrupt(format_args!("entry {index} of the L1 table: COPIED is wrong"));
                } else {
                    (*entry, changed) = (new, true);
                }
            }
        }
        if changed {
            self.put_words(offset, &l1).await?;
            if let Some(first) = self.l1s.first_mut() {
                first.1 = l1;
            }
        }
        if self.geo.data_file {
            return Ok(());
        }
        let step = usize::from(self.geo.extended()) + 1;
        for (_, table) in tables {
            let mut words = self.words(table, self.geo.cluster_size() / 8).await?;
            let mut changed = false;
            for (index, pair) in words.chunks_mut(step).enumerate() {
                let bitmap = pair.get(1).copied().unwrap_or(0);
                let Some(word) = pair.first_mut() else { continue };
                let plain = (Entry { word: *word, bitmap }).kind(&self.geo);
                if *word == 0 || !matches!(plain, Ok(Kind::Plain { host: Some(_), .. })) {
                    continue;
                }
                if let Some(new) = self.flagged(*word, pass) {
                    if pass == Pass::Look {
                        self.corrupt(format_args!(
                            "entry {index} of the L2 table at {table:#x}: COPIED is wrong"
                        ));
                    } else {
                        (*word, changed) = (new, true);
                    }
                }
            }
            if changed {
                self.put_words(table, &words).await?;
            }
        }
        Ok(())
    }

    async fn put_words(&self, offset: u64, words: &[u64]) -> Result<()> {
        let mut words: Vec<u64> = words.iter().map(|word| word.to_be()).collect();
        self.storage.write(&Sgl::from_slice(words.as_mut_bytes()), offset).await?;
        Ok(())
    }

    /// See the rules at the top.
    async fn repair(&mut self) -> Result<()> {
        self.storage.sync().await?;
        if self.low > 0 {
            self.refcounts(Pass::Safer).await?;
            self.storage.sync().await?;
        }
        self.flags(Pass::Safer).await?;
        self.storage.sync().await?;
        self.refcounts(Pass::Leaner).await?;
        self.storage.sync().await?;
        self.flags(Pass::Leaner).await?;
        self.storage.sync().await?;
        let marks = incompatible::DIRTY | incompatible::CORRUPT;
        if self.header.incompatible & marks != 0 {
            self.put_words(INCOMPATIBLE_OFFSET, &[self.header.incompatible & !marks]).await?;
            self.storage.sync().await?;
        }
        self.report.repaired = true;
        Ok(())
    }
}

/// A number in the order of big endian; 0 where there are no bytes.
fn number(bytes: &[u8], at: u64, len: usize) -> u64 {
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    let bytes = bytes.get(start..start.saturating_add(len)).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A refcount of a block.
fn get(block: &[u8], index: usize, order: u32) -> u64 {
    let bits = 1usize << order;
    if bits >= 8 {
        return number(block, (index * bits / 8) as u64, bits / 8);
    }
    let byte = block.get(index * bits / 8).copied().unwrap_or(0);
    u64::from(byte >> (index * bits % 8)) & ((1 << bits) - 1)
}

fn put(block: &mut [u8], index: usize, order: u32, value: u64) {
    let bits = 1usize << order;
    let start = index * bits / 8;
    if bits >= 8 {
        let bytes = value.to_be_bytes();
        let slot = block.get_mut(start..start + bits / 8);
        if let (Some(slot), Some(bytes)) = (slot, bytes.get(8 - bits / 8..)) {
            slot.copy_from_slice(bytes);
        }
    } else if let Some(byte) = block.get_mut(start) {
        let shift = index * bits % 8;
        let mask = ((1u8 << bits) - 1) << shift;
        *byte = *byte & !mask | u8::try_from(value).unwrap_or(0) << shift & mask;
    }
}
