// SPDX-License-Identifier: Apache-2.0
//! References and refcounts of an image, compared. In: a storage that nobody writes to meanwhile.
//! Out: a [`Check`], of which `check` makes a report and which `repair` works on.
//!
//! Memory: that of `references`, and a cluster.

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::counts::Role;
use crate::error::Result;
use crate::geometry::{Entry, Kind};
use crate::layout::entry::{COPIED, OFFSET_MASK};
use crate::layout::header::{Header, incompatible};
use crate::references::{L1, PIECE, References, Uses};
use crate::storage::SECTOR;
use crate::{ErrorKind, Storage, refcounts};

/// What was found. Numbers are those before the repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Errors that endanger data.
    pub corruptions: u64,
    /// Clusters that take space and that nothing refers to.
    pub leaks: u64,
    /// Whether all of both was repaired: then the image is clean now.
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

/// What has to be copied to a place of its own: it is where something stronger is, or there are
/// more references to it than a refcount can tell.
#[derive(Clone, Copy, Default)]
pub(crate) struct Moves {
    /// L1 entries with such a table.
    pub(crate) tables: u64,
    /// Clusters of L2 entries with such a place.
    pub(crate) data: u64,
    /// The most references that one of these entries stands for.
    pub(crate) uses: u64,
}

/// References and refcounts, compared.
pub(crate) struct Check<'a, S> {
    pub(crate) refs: References<'a, S>,
    /// Refcounts that are too low.
    pub(crate) low: u64,
    /// The first of them: cluster, references, refcount.
    pub(crate) lowest: Option<(u64, u64, u64)>,
    /// Refcounts of the file's clusters that are too high.
    pub(crate) leaks: u64,
    /// Refcounts of what is past the end of the file.
    pub(crate) beyond: u64,
    /// The first cluster with several owners.
    pub(crate) conflict: Option<u64>,
    pub(crate) moves: Moves,
    /// The end of the last cluster that is in use, as a number.
    end: u64,
}

/// What is done to an entry that is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Look,
    /// Refcounts are made higher; COPIED is cleared.
    Safer,
    /// Refcounts are made lower; COPIED is set.
    Leaner,
}

impl<'a, S: Storage> Check<'a, S> {
    /// Counts references and compares refcounts with them.
    pub(crate) async fn count(storage: &'a S, header: Header) -> Result<Self> {
        let mut check = Check {
            refs: References::count(storage, header).await?,
            low: 0,
            lowest: None,
            leaks: 0,
            beyond: 0,
            conflict: None,
            moves: Moves::default(),
            end: 0,
        };
        check.refcounts(Pass::Look).await?;
        Ok(check)
    }

    /// Checks everything.
    pub(crate) async fn look(storage: &'a S, header: Header) -> Result<Self> {
        let mut check = Self::count(storage, header).await?;
        check.flags(Pass::Look).await?;
        Ok(check)
    }

    pub(crate) fn report(&self) -> Report {
        let (refs, found) = (&self.refs, &self.refs.allocation);
        Report {
            corruptions: refs.faults.corruptions,
            leaks: self.leaks,
            repaired: false,
            total_clusters: refs.header.size.div_ceil(refs.geo.cluster_size()),
            allocated_clusters: found.allocated,
            fragmented_clusters: found.fragmented,
            compressed_clusters: found.compressed,
            image_end_offset: self.end << refs.geo.cluster_bits,
            findings: refs.faults.findings.clone(),
        }
    }

    fn is_marked(&self) -> bool {
        self.refs.header.incompatible & (incompatible::DIRTY | incompatible::CORRUPT) != 0
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_sound(&self) -> bool {
        let faults = &self.refs.faults;
        faults.corruptions == 0 && faults.fatal.is_none() && self.leaks + self.beyond == 0
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.is_sound() && !self.is_marked()
    }

    pub(crate) fn has_leaks_only(&self) -> bool {
        let faults = &self.refs.faults;
        faults.corruptions == 0 && faults.fatal.is_none() && self.leaks + self.beyond > 0
    }

    /// The first refcount block, by its number, from one on, that exists or should.
    fn block_from(&self, number: u64) -> Option<u64> {
        let start = usize::try_from(number).unwrap_or(usize::MAX);
        let rest = self.refs.blocks.get(start..).unwrap_or_default();
        let there = rest.iter().position(|at| *at != 0).map(|at| number + at as u64);
        let bits = self.refs.geo.block_clusters_bits();
        let needed = self.refs.counts.referred(number << bits..u64::MAX).next();
        there.into_iter().chain(needed.map(|cluster| cluster >> bits)).min()
    }

    /// Compares refcounts with references; the pass says which are written.
    pub(crate) async fn refcounts(&mut self, pass: Pass) -> Result<()> {
        let geo = self.refs.geo;
        let bits = geo.block_clusters_bits();
        let mut next = 0;
        while let Some(number) = self.block_from(next) {
            next = number + 1;
            let range = number << bits..next << bits;
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let at = self.refs.blocks.get(index).copied().unwrap_or(0);
            if at == 0 {
                if pass == Pass::Look {
                    self.look_at_missing(range);
                }
                continue;
            }
            let mut words = vec![0u64; usize::try_from(geo.cluster_size() / 8).unwrap_or(0)];
            let block = Sgl::from_slice(words.as_mut_bytes());
            self.refs.storage.read(&block, at).await?;
            let mut changed = false;
            for (index, cluster) in range.enumerate() {
                let index = index as u64;
                let (found, wanted) =
                    (refcounts::get(&geo, &words, index), self.refs.counts.get(cluster));
                if pass == Pass::Look {
                    self.judge(cluster, found);
                    continue;
                }
                let write = if pass == Pass::Safer { found < wanted } else { found > wanted };
                if write && wanted <= geo.max_refcount() {
                    refcounts::put(&geo, &mut words, index, wanted);
                    changed = true;
                }
            }
            if changed {
                let block = Sgl::from_slice(words.as_mut_bytes());
                self.refs.storage.write(&block, at).await?;
            }
        }
        Ok(())
    }

    /// Clusters that no block counts.
    fn look_at_missing(&mut self, range: std::ops::Range<u64>) {
        let mut next = range.start;
        loop {
            let found = self.refs.counts.referred(next..range.end).next();
            let Some(cluster) = found else { break };
            self.refs.faults.structure = true;
            self.judge(cluster, 0);
            next = cluster + 1;
        }
    }

    /// Judges one refcount.
    fn judge(&mut self, cluster: u64, found: u64) {
        let counts = &mut self.refs.counts;
        let wanted = counts.get(cluster);
        if found == 0 && wanted == 0 {
            return;
        }
        let conflict = counts.is_conflict(cluster);
        if found == 1 {
            counts.set_single(cluster);
        }
        let faults = &mut self.refs.faults;
        let inside = cluster < self.refs.len.div_ceil(self.refs.geo.cluster_size());
        if inside || wanted > 0 {
            self.end = self.end.max(cluster + 1);
        }
        if conflict {
            self.conflict.get_or_insert(cluster);
            faults.corrupt(
                u64::from(found >= wanted),
                format_args!("cluster {cluster:#x} is at the place of several structures"),
            );
        }
        let text = format_args!("cluster {cluster:#x} has refcount {found}, references {wanted}");
        if found < wanted {
            self.low += 1;
            self.lowest.get_or_insert((cluster, wanted, found));
            faults.corrupt(1, text);
        } else if found > wanted && inside {
            self.leaks += 1;
            faults.tell(text);
        } else if found > wanted {
            self.beyond += 1;
        }
    }

    /// Whether an entry that refers to the cluster at `offset`, in this role, has to refer to a copy.
    pub(crate) fn must_move(&self, offset: u64, role: Role) -> bool {
        let cluster = offset >> self.refs.geo.cluster_bits;
        let counts = &self.refs.counts;
        counts.role(cluster) != role || counts.get(cluster) > self.refs.geo.max_refcount()
    }

    /// The clusters of the image's file to which an L2 entry refers, the first and how many, if they
    /// have to be copied.
    pub(crate) fn moved_clusters(&self, entry: Entry) -> Option<(u64, u64)> {
        let geo = &self.refs.geo;
        let (host, len) = match entry.kind(geo) {
            Ok(Kind::Compressed(at)) => (at.host, at.len),
            Ok(Kind::Plain { host: Some(host), .. }) if !geo.data_file => {
                (host, geo.cluster_size())
            }
            _ => return None,
        };
        let clusters = geo.clusters(host, len);
        let (first, count) = (clusters.start, clusters.end - clusters.start);
        let moved = { clusters }.any(|c| self.must_move(c << geo.cluster_bits, Role::Data));
        moved.then_some((first, count))
    }

    /// Whether the refcount of the cluster at `offset` is one: as it was found, or as it is to be.
    fn is_single(&self, offset: u64, pass: Pass) -> bool {
        let cluster = offset >> self.refs.geo.cluster_bits;
        match pass {
            Pass::Look => self.refs.counts.is_single(cluster),
            _ => self.refs.counts.get(cluster) == 1,
        }
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

    /// COPIED flags of the image's own tables, and what has to be copied. Flags of snapshots mean
    /// nothing, but their L2 tables that are shared are the image's as well.
    pub(crate) async fn flags(&mut self, pass: Pass) -> Result<()> {
        for index in 0..self.refs.l1s.len() {
            if let Some(l1) = self.refs.l1s.get(index).copied() {
                self.flags_of_l1(l1, pass).await?;
            }
        }
        let mut next = 0;
        while let Some((table, uses)) = self.refs.table_from(next) {
            next = table + 1;
            if pass == Pass::Look || uses.active > 0 {
                self.flags_of_table(table, uses, pass).await?;
            }
        }
        Ok(())
    }

    async fn flags_of_l1(&mut self, l1: L1, pass: Pass) -> Result<()> {
        for start in (0..l1.entries).step_by(usize::try_from(PIECE).unwrap_or(1)) {
            let count = PIECE.min(l1.entries - start);
            let at = l1.offset + start * 8;
            let mut words = self.refs.words(at, count).await?;
            let mut changed = false;
            for (number, word) in (start..).zip(&mut words) {
                let table = *word & OFFSET_MASK;
                if !self.refs.tables.contains_key(&table) {
                    continue;
                }
                if pass == Pass::Look && self.must_move(table, Role::Table) {
                    self.moves.tables += 1;
                    self.moves.uses = self.moves.uses.max(1);
                }
                let flagged = if l1.active { self.flagged(*word, pass) } else { None };
                match flagged {
                    Some(_) if pass == Pass::Look => self.refs.faults.corrupt(
                        1,
                        format_args!("entry {number} of the L1 table: COPIED is wrong"),
                    ),
                    Some(new) => (*word, changed) = (new, true),
                    None => {}
                }
            }
            if changed {
                self.put_words(at, &words).await?;
            }
        }
        Ok(())
    }

    async fn flags_of_table(&mut self, table: u64, uses: Uses, pass: Pass) -> Result<()> {
        let geo = self.refs.geo;
        let mut words = self.refs.words(table, geo.cluster_size() / 8).await?;
        let mut changed = false;
        let step = usize::from(geo.extended()) + 1;
        for (index, pair) in words.chunks_mut(step).enumerate() {
            let bitmap = pair.get(1).copied().unwrap_or(0);
            let Some(word) = pair.first_mut() else { continue };
            let entry = Entry { word: *word, bitmap };
            if pass == Pass::Look
                && let Some((_, count)) = self.moved_clusters(entry)
            {
                self.moves.data += count;
                self.moves.uses = self.moves.uses.max(uses.all);
            }
            let plain = matches!(entry.kind(&geo), Ok(Kind::Plain { host: Some(_), .. }));
            if uses.active == 0 || !plain || geo.data_file {
                continue;
            }
            match self.flagged(*word, pass) {
                Some(_) if pass == Pass::Look => self.refs.faults.corrupt(
                    uses.active,
                    format_args!("entry {index} of the L2 table at {table:#x}: COPIED is wrong"),
                ),
                Some(new) => (*word, changed) = (new, true),
                None => {}
            }
        }
        if changed {
            self.put_words(table, &words).await?;
        }
        Ok(())
    }

    /// Writes words of the file, by whole sectors.
    pub(crate) async fn put_words(&self, offset: u64, words: &[u64]) -> Result<()> {
        let start = offset & !(SECTOR - 1);
        let end = (offset + words.len() as u64 * 8).next_multiple_of(SECTOR);
        let mut all = self.refs.words(start, (end - start) / 8).await?;
        let before = usize::try_from((offset - start) / 8).unwrap_or(0);
        let mine = all.get_mut(before..before + words.len());
        mine.unwrap_or_default().copy_from_slice(words);
        all.iter_mut().for_each(|word| *word = word.to_be());
        self.refs.storage.write(&Sgl::from_slice(all.as_mut_bytes()), start).await?;
        Ok(())
    }

    /// Why it cannot be used as it is, if the refcounts may be (`dirty`) or not be wrong.
    pub(crate) fn refused(&self, dirty: bool) -> Option<ErrorKind> {
        if let Some((what, refusal)) = &self.refs.faults.fatal {
            return Some(refusal(what.clone()));
        }
        if let Some(cluster) = self.conflict {
            return Some(ErrorKind::to_convert(format_args!(
                "the cluster {cluster:#x} of the file is at the place of several structures"
            )));
        }
        if let Some(what) = self.refs.faults.block.as_ref().filter(|_| !dirty) {
            return Some(ErrorKind::to_convert(what));
        }
        match self.lowest {
            Some((cluster, wanted, found)) if !dirty || wanted > self.refs.geo.max_refcount() => {
                Some(ErrorKind::damaged(format_args!(
                    "the cluster {cluster:#x} of the file has the refcount {found} where {wanted} is \
                     right"
                )))
            }
            _ if self.refs.faults.structure && !dirty => {
                let first = self.refs.faults.findings.first();
                Some(ErrorKind::damaged(first.map_or("its refcounts are damaged", |what| what)))
            }
            _ => None,
        }
    }
}
