// SPDX-License-Identifier: Apache-2.0
//! Counting all that an image's structures refer to: header, L1 and L2 tables of the image and of
//! its snapshots, the snapshots' table, bitmaps, the LUKS header, refcount table and blocks. In: a
//! storage that nobody writes to meanwhile. Out: how often each cluster is referred to, where the
//! tables are, and what is wrong with entries. Nothing is written. Opening (`scan`) and checks
//! (`check`) decide on it.
//!
//! Each table is read once, however often it is referred to. Memory: `counts`, of at most
//! [`MAX_BYTES`]; the refcount table; a place for each L2 table; two clusters.
use std::collections::BTreeMap;
use std::fmt::Display;

use sgl::Sgl;
use zerocopy::{FromZeros, IntoBytes};

use crate::counts::{Counts, Role};
use crate::error::{Refusal, Result, cut_off};
use crate::geometry::{Entry, Geometry, Kind};
use crate::layout::bitmaps::Directory;
use crate::layout::entry::{COPIED, L1_RESERVED, L2_RESERVED, OFFSET_MASK};
use crate::layout::header::{Header, MAX_L1_BYTES, extension};
use crate::layout::snapshots::Head;
use crate::refcounts::BLOCK_MASK;
use crate::{ErrorKind, Storage, crypt};

/// The most bytes that counts take: those of some 800 Mi clusters, which are 50 TiB of 64 KiB each.
pub(crate) const MAX_BYTES: usize = 1 << 30;
/// Entries of an L1 table that are read at once.
pub(crate) const PIECE: u64 = 1 << 14;
/// How many findings are told in words.
const MAX_FINDINGS: usize = 100;

/// What is wrong.
#[derive(Default)]
pub(crate) struct Faults {
    /// Errors that endanger data.
    pub(crate) corruptions: u64,
    /// The first findings in words.
    pub(crate) findings: Vec<String>,
    /// The first fault that no repair helps, and the error that says what does.
    pub(crate) fatal: Option<(String, Refusal)>,
    /// The refcount table or a block cannot be used: all refcounts have to be made anew.
    pub(crate) structure: bool,
    /// The first place of a refcount block with which QEMU's check gives up.
    pub(crate) block: Option<String>,
    /// Entries of clusters that read as zeroes, with a place that cannot be.
    pub(crate) zero_places: u64,
    /// The list of the bitmaps cannot be used, and what they refer to is not known: they are lost
    /// once the image is written to.
    pub(crate) bitmaps: bool,
}

impl Faults {
    /// Says something of the image.
    pub(crate) fn tell(&mut self, what: impl Display) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(what.to_string());
        }
    }

    /// What a repair helps.
    pub(crate) fn corrupt(&mut self, times: u64, what: impl Display) {
        self.corruptions += times;
        self.tell(what);
    }

    /// What makes the bitmaps useless, and nothing else.
    fn lose_bitmaps(&mut self, what: impl Display) {
        self.bitmaps = true;
        self.corrupt(1, what);
    }

    /// What no repair helps.
    pub(crate) fn fatal(&mut self, times: u64, what: impl Display) {
        self.refuse(times, what, ErrorKind::hopeless);
    }

    /// What no repair of ours helps.
    fn refuse(&mut self, times: u64, what: impl Display, refusal: Refusal) {
        self.fatal.get_or_insert_with(|| (what.to_string(), refusal));
        self.corrupt(times, what);
    }
}

/// How many L1 entries refer to an L2 table.
#[derive(Clone, Copy, Default)]
pub(crate) struct Uses {
    /// Of the image itself.
    pub(crate) active: u64,
    /// Of the image and its snapshots.
    pub(crate) all: u64,
}

/// An L1 table.
#[derive(Clone, Copy)]
pub(crate) struct L1 {
    pub(crate) offset: u64,
    pub(crate) entries: u64,
    /// The image's own, not a snapshot's.
    pub(crate) active: bool,
}

/// Clusters of the guest that have a place.
#[derive(Default)]
pub(crate) struct Allocation {
    pub(crate) allocated: u64,
    pub(crate) fragmented: u64,
    pub(crate) compressed: u64,
}

/// See the module's text.
pub(crate) struct References<'a, S> {
    pub(crate) storage: &'a S,
    pub(crate) header: Header,
    pub(crate) geo: Geometry,
    /// Length of the file in bytes.
    pub(crate) len: u64,
    pub(crate) counts: Counts,
    /// Where refcount blocks are that can be read; 0 where none is.
    pub(crate) blocks: Vec<u64>,
    pub(crate) l1s: Vec<L1>,
    /// L2 tables, by offset.
    pub(crate) tables: BTreeMap<u64, Uses>,
    pub(crate) faults: Faults,
    pub(crate) allocation: Allocation,
    /// Whether an entry of the image's own tables, not a snapshot's, has no COPIED flag.
    pub(crate) unflagged: bool,
}

impl<'a, S: Storage> References<'a, S> {
    /// Counts the references of an image.
    ///
    /// # Errors
    /// Of the storage, and [`ErrorKind::Unsupported`] when it takes too much memory. Damage is no
    /// error: it is told in [`Faults`].
    pub(crate) async fn count(storage: &'a S, header: Header) -> Result<Self> {
        let mut all = References {
            storage,
            geo: Geometry::of(&header),
            len: storage.length().await?,
            header,
            counts: Counts::new(MAX_BYTES),
            blocks: Vec::new(),
            l1s: Vec::new(),
            tables: BTreeMap::new(),
            faults: Faults::default(),
            allocation: Allocation::default(),
            unflagged: false,
        };
        // In the order of roles: the stronger ones first.
        all.refer(0, all.geo.cluster_size(), 1, Role::Exclusive, "the header")?;
        all.count_l1s().await?;
        all.count_bitmaps().await?;
        match crypt::luks_area(&all.header) {
            Ok(Some(area)) => {
                let (start, len) = (area.start, area.end - area.start);
                all.refer(start, len, 1, Role::Exclusive, "the encryption header")?;
            }
            Ok(None) => {}
            Err(e) => all.faults.fatal(1, e),
        }
        for index in 0..all.l1s.len() {
            all.count_tables(index).await?;
        }
        let mut next = 0;
        while let Some((table, uses)) = all.table_from(next) {
            all.count_entries(table, uses).await?;
            next = table + 1;
        }
        all.count_refcounts().await?;
        Ok(all)
    }

    /// Whether all extensions are known, and the bitmaps' can be used: what others refer to is not
    /// counted.
    pub(crate) fn all_counted(&self) -> bool {
        !self.faults.bitmaps
            && self.header.extensions.iter().all(|(kind, _)| extension::KNOWN.contains(kind))
    }

    /// The first L2 table at or after an offset.
    pub(crate) fn table_from(&self, offset: u64) -> Option<(u64, Uses)> {
        self.tables.range(offset..).next().map(|(table, uses)| (*table, *uses))
    }

    pub(crate) fn aligned(&self, offset: u64) -> bool {
        offset & (self.geo.cluster_size() - 1) == 0
    }

    /// So many words of the file; what lies past its end is zero. Callers have a bound.
    pub(crate) async fn words(&self, offset: u64, count: u64) -> Result<Vec<u64>> {
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

    /// Counts references to a range. Returns whether what is there can be used: it is inside of the
    /// file, and of a range that may have one owner, this is the first.
    fn refer(
        &mut self,
        offset: u64,
        len: u64,
        times: u64,
        role: Role,
        what: impl Display,
    ) -> Result<bool> {
        if let Some(text) = self.past_the_end(offset, len, &what) {
            if role == Role::Refcounts {
                self.faults.structure = true;
                self.faults.corrupt(1, text);
            } else {
                self.faults.refuse(times, text, cut_off);
            }
            return Ok(false);
        }
        self.add(offset, len, times, role, what)
    }

    /// What is wrong with a reference to a range, if it is past the end of the file.
    fn past_the_end(&self, offset: u64, len: u64, what: impl Display) -> Option<String> {
        // As in QEMU, a file may end inside of the last cluster.
        let most = self.len.saturating_add(self.geo.cluster_size());
        let outside = offset.checked_add(len).is_none_or(|end| end >= most) && len > 0;
        outside.then(|| {
            format!(
                "{what} refers to {len} bytes at {offset:#x}, past the end of the file, which has \
                 {} bytes",
                self.len
            )
        })
    }

    /// As [`refer`](Self::refer), of what is known to be inside of the file, but for a missing end.
    fn add(
        &mut self,
        offset: u64,
        len: u64,
        times: u64,
        role: Role,
        what: impl Display,
    ) -> Result<bool> {
        let mut free = true;
        for number in self.geo.clusters(offset, len) {
            free &= self.counts.add(number, times, role)?.is_none();
        }
        if !free && role == Role::Exclusive {
            let text = "is at the place of another structure";
            self.faults.fatal(0, format_args!("{what}, {len} bytes at {offset:#x}, {text}"));
        }
        Ok(free || role != Role::Exclusive)
    }

    async fn count_l1s(&mut self) -> Result<()> {
        let (offset, entries) = (self.header.l1_offset, self.header.l1_entries.into());
        self.add_l1(offset, entries, true, "the L1 table")?;
        let start = self.header.snapshots_offset;
        let mut at = start;
        for index in 0..self.header.snapshots {
            let mut head = Head::new_zeroed();
            self.storage.read(&Sgl::from_slice(head.as_mut_bytes()), at).await?;
            at = match head.end(at, index) {
                Ok(end) => end,
                Err((wrong, refusal)) => {
                    // What the rest of the snapshots has is not known.
                    self.faults.refuse(1, wrong, refusal);
                    return Ok(());
                }
            };
            let what = format_args!("the snapshot {index}'s L1 table");
            self.add_l1(head.l1_offset.get(), head.l1_entries.get().into(), false, what)?;
        }
        self.refer(start, at - start, 1, Role::Exclusive, "the header's snapshot table")?;
        Ok(())
    }

    fn add_l1(
        &mut self,
        offset: u64,
        entries: u64,
        active: bool,
        what: impl Display,
    ) -> Result<()> {
        if entries * 8 > MAX_L1_BYTES || !self.aligned(offset) {
            self.faults.fatal(1, format_args!("{what} has {entries} entries at {offset:#x}"));
            return Ok(());
        }
        // Of the image's own, more may be missing at the end of the file.
        let usable = if active && self.header.check_tables(self.len).is_ok() {
            self.add(offset, entries * 8, 1, Role::Exclusive, what)?
        } else {
            self.refer(offset, entries * 8, 1, Role::Exclusive, what)?
        };
        if usable {
            self.l1s.push(L1 { offset, entries, active });
        }
        Ok(())
    }

    async fn count_bitmaps(&mut self) -> Result<()> {
        let directory = match Directory::of(&self.header) {
            Ok(Some(directory)) => directory,
            Ok(None) => return Ok(()),
            Err(why) => {
                self.faults.lose_bitmaps(why);
                return Ok(());
            }
        };
        let Directory { offset, len, .. } = directory;
        let what = "the bitmaps' directory";
        if let Some(wrong) = self.past_the_end(offset, len, what) {
            self.faults.lose_bitmaps(wrong);
            return Ok(());
        }
        self.add(offset, len, 1, Role::Exclusive, what)?;
        let bytes = self.bytes(offset, len).await?;
        let bitmaps = match directory.bitmaps(&bytes, &self.header) {
            Ok(bitmaps) => bitmaps,
            Err(why) => {
                self.faults.lose_bitmaps(why);
                return Ok(());
            }
        };
        for bitmap in bitmaps {
            let what = format!("the bitmap {:?}", bitmap.name);
            if !self.refer(bitmap.table, bitmap.table_bytes(), 1, Role::Exclusive, &what)? {
                continue;
            }
            for word in self.words(bitmap.table, bitmap.table_entries.into()).await? {
                let cluster = word & OFFSET_MASK;
                if cluster != 0 {
                    self.refer(cluster, self.geo.cluster_size(), 1, Role::Exclusive, &what)?;
                }
            }
        }
        Ok(())
    }

    /// Counts what an L1 table refers to.
    async fn count_tables(&mut self, index: usize) -> Result<()> {
        let Some(l1) = self.l1s.get(index).copied() else { return Ok(()) };
        let cluster = self.geo.cluster_size();
        for start in (0..l1.entries).step_by(usize::try_from(PIECE).unwrap_or(1)) {
            let count = PIECE.min(l1.entries - start);
            let words = self.words(l1.offset + start * 8, count).await?;
            for (number, entry) in (start..).zip(words) {
                let table = entry & OFFSET_MASK;
                let what = format_args!("entry {number} of L1 table {index} ({entry:#x})");
                if entry & L1_RESERVED != 0 {
                    self.faults.fatal(1, format_args!("{what} has reserved bits set"));
                }
                if table == 0 && entry & COPIED != 0 {
                    self.faults.fatal(1, format_args!("{what} has COPIED set, and no table"));
                }
                if table != 0 && !self.aligned(table) {
                    self.faults.fatal(1, format_args!("{what} is not aligned to a cluster"));
                } else if table != 0 && self.refer(table, cluster, 1, Role::Table, what)? {
                    let uses = self.tables.entry(table).or_default();
                    uses.all += 1;
                    uses.active += u64::from(l1.active);
                    self.unflagged |= l1.active && entry & COPIED == 0;
                }
            }
        }
        Ok(())
    }

    /// Counts what an L2 table refers to.
    async fn count_entries(&mut self, table: u64, uses: Uses) -> Result<()> {
        let cluster = self.geo.cluster_size();
        let step = usize::from(self.geo.extended()) + 1;
        // As in QEMU, the first cluster of each table is no fragment.
        let mut next = 0;
        let words = self.words(table, cluster / 8).await?;
        for (index, pair) in words.chunks(step).enumerate() {
            let word = pair.first().copied().unwrap_or(0);
            let entry = Entry { word, bitmap: pair.get(1).copied().unwrap_or(0) };
            if entry == (Entry { word: 0, bitmap: 0 }) {
                continue;
            }
            let what = format_args!("entry {index} of the L2 table at {table:#x} ({word:#x})");
            let host = match entry.kind(&self.geo) {
                Ok(Kind::Compressed(at)) => {
                    if word & COPIED != 0 || entry.bitmap != 0 {
                        let text = "is compressed, and has COPIED set, or subclusters";
                        let text = format_args!("{what} {text}");
                        self.faults.fatal(uses.all, text);
                    }
                    self.refer(at.host, at.len, uses.all, Role::Data, what)?;
                    None
                }
                Ok(Kind::Plain { host, .. }) => {
                    if word & L2_RESERVED != 0 {
                        self.faults.fatal(uses.all, format_args!("{what} has reserved bits set"));
                    }
                    let Some(host) = host else { continue };
                    if !self.geo.data_file {
                        self.refer(host, cluster, uses.all, Role::Data, what)?;
                        self.unflagged |= uses.active > 0 && word & COPIED == 0;
                    }
                    Some(host)
                }
                Err(_) if entry.is_zero_elsewhere(&self.geo) => {
                    self.faults.zero_places += 1;
                    let text = format_args!("{what} is zero, and its place is not aligned");
                    self.faults.corrupt(uses.all, text);
                    continue;
                }
                Err(wrong) => {
                    self.faults.fatal(uses.all, format_args!("{what} {wrong}"));
                    continue;
                }
            };
            let found = &mut self.allocation;
            found.allocated += uses.active;
            found.compressed += if host.is_none() { uses.active } else { 0 };
            let follows = host.is_some_and(|host| next == 0 || host == next);
            found.fragmented += if follows { 0 } else { uses.active };
            next = host.map_or(next, |host| host.saturating_add(cluster));
        }
        Ok(())
    }

    async fn count_refcounts(&mut self) -> Result<()> {
        let cluster = self.geo.cluster_size();
        let offset = self.header.reftable_offset;
        let len = u64::from(self.header.reftable_clusters) << self.geo.cluster_bits;
        let what = "the header's refcount table";
        if self.header.check_tables(self.len).is_ok() {
            self.add(offset, len, 1, Role::Refcounts, what)?;
        } else if !self.refer(offset, len, 1, Role::Refcounts, what)? {
            return Ok(());
        }
        self.note_overlap(offset, len, what);
        self.blocks = self.words(offset, len / 8).await?;
        for index in 0..self.blocks.len() {
            let entry = self.blocks.get(index).copied().unwrap_or(0);
            let block = entry & BLOCK_MASK;
            let what = format_args!("entry {index} of the refcount table ({entry:#x})");
            let usable = if block == 0 && entry == 0 {
                true
            } else if entry != block || !self.aligned(block) {
                let text = format!("{what} has reserved bits set, or is not aligned");
                self.faults.structure = true;
                self.faults.corrupt(1, &text);
                self.faults.block.get_or_insert(text);
                false
            } else {
                self.refer(block, cluster, 1, Role::Refcounts, what)?
                    && self.note_overlap(block, cluster, what)
            };
            if let Some(entry) = self.blocks.get_mut(index).filter(|_| !usable) {
                *entry = 0;
            }
        }
        Ok(())
    }

    /// Takes note where refcounts are at the place of something else; returns whether it is not a
    /// place of refcounts twice.
    fn note_overlap(&mut self, offset: u64, len: u64, what: impl Display) -> bool {
        let mut only = true;
        for number in self.geo.clusters(offset, len) {
            if self.counts.get(number) > 1 {
                self.faults.structure = true;
                let text = format_args!("{what} is at the place of another structure");
                self.faults.corrupt(1, text);
                only &= self.counts.role(number) != Role::Refcounts;
            }
        }
        only
    }
}
