// SPDX-License-Identifier: Apache-2.0
//! A file of the world: what the page cache says, what is on stable storage, and in between, in
//! order, what a loss of power may or may not take.
use std::collections::VecDeque;
use std::rc::Rc;

use super::Power;
use super::pages::{PAGE, Pages};
use super::rng::Rng;

/// The bytes that storage writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;
/// Above so many bytes or entries the kernel writes the oldest changes to the disk by itself.
const DIRTY_BYTES: u64 = 16 << 20;
const DIRTY_ENTRIES: usize = 1 << 14;

/// A change that is in the page cache and perhaps not on stable storage.
#[derive(Clone)]
struct Entry {
    /// Its place among all changes of the world.
    seq: u64,
    /// Whole sectors, in bytes.
    start: u64,
    end: u64,
    what: What,
    /// The file's length afterwards.
    len: u64,
}

#[derive(Clone)]
enum What {
    /// The sectors' content, from this byte of the buffer on.
    Data(Rc<[u8]>, usize),
    Zero,
    /// The length alone.
    Length,
}

/// See the module's text.
#[derive(Clone, Default)]
pub(crate) struct Node {
    cache: Pages,
    len: u64,
    stable: Pages,
    stable_len: u64,
    journal: VecDeque<Entry>,
    /// Of the data in the journal.
    dirty: u64,
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn apply(pages: &mut Pages, what: &What, of: u64, start: u64, end: u64) {
    match what {
        What::Data(bytes, from) => {
            let at = from + index(start - of);
            pages.write(start, &bytes[at..at + index(end - start)]);
        }
        What::Zero => pages.zero(start, end),
        What::Length => {}
    }
}

impl Node {
    /// A file that is on stable storage with this content.
    pub(crate) fn stable(bytes: &[u8]) -> Self {
        let mut node = Node { len: bytes.len() as u64, ..Node::default() };
        for (page, at) in bytes.chunks(index(PAGE)).zip((0..).step_by(index(PAGE))) {
            if page.iter().any(|&b| b != 0) {
                node.cache.write(at, page);
            }
        }
        node.stable = node.cache.clone();
        node.stable_len = node.len;
        node
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What it holds, as the page cache has it.
    pub(crate) fn cache(&self) -> &Pages {
        &self.cache
    }

    /// Its first change that is not on stable storage.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.journal.front().map(|entry| entry.seq)
    }

    /// Bytes that its pages take.
    pub(crate) fn allocated(&self) -> u64 {
        self.cache.bytes()
    }

    /// How many bytes a write would take anew.
    pub(crate) fn missing(&self, start: u64, end: u64) -> u64 {
        let pages = start / PAGE..end.div_ceil(PAGE);
        pages.filter(|&page| !self.cache.has_page(page)).count() as u64 * PAGE
    }

    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.cache.read(offset, bytes);
    }

    /// The first range at or after `offset` with data.
    pub(crate) fn data_extent(&self, offset: u64) -> Option<(u64, u64)> {
        let (start, end) = self.cache.run(offset)?;
        (start < self.len).then_some((start, end.min(self.len)))
    }

    fn push(&mut self, entry: Entry) {
        if let What::Data(..) = entry.what {
            self.dirty += entry.end - entry.start;
        }
        self.journal.push_back(entry);
        while self.dirty > DIRTY_BYTES || self.journal.len() > DIRTY_ENTRIES {
            self.retire();
        }
    }

    /// Brings the oldest change to stable storage.
    fn retire(&mut self) {
        let Some(entry) = self.journal.pop_front() else { return };
        if let What::Data(..) = entry.what {
            self.dirty -= entry.end - entry.start;
        }
        apply(&mut self.stable, &entry.what, entry.start, entry.start, entry.end);
        self.stable_len = entry.len;
    }

    /// Enters what the cache has in whole sectors.
    fn enter_data(&mut self, seq: u64, start: u64, end: u64) {
        let mut bytes = vec![0; index(end - start)];
        self.cache.read(start, &mut bytes);
        let what = What::Data(bytes.into(), 0);
        self.push(Entry { seq, start, end, what, len: self.len });
    }

    pub(crate) fn write(&mut self, seq: u64, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.cache.write(offset, bytes);
        self.len = self.len.max(end);
        self.enter_data(seq, offset / SECTOR * SECTOR, end.next_multiple_of(SECTOR));
    }

    /// Makes a range zeroes, and the file at least `len` bytes long.
    pub(crate) fn zero(&mut self, seq: u64, start: u64, end: u64, len: u64) {
        self.cache.zero(start, end);
        self.len = self.len.max(len);
        self.enter_zeroes(seq, start, end);
    }

    fn enter_zeroes(&mut self, seq: u64, start: u64, end: u64) {
        let (first, last) = (start.next_multiple_of(SECTOR), end / SECTOR * SECTOR);
        if start < first {
            self.enter_data(seq, first - SECTOR, first);
        }
        if first < last {
            let len = self.len;
            self.push(Entry { seq, start: first, end: last, what: What::Zero, len });
        }
        if last < end && last >= first {
            self.enter_data(seq, last, last + SECTOR);
        }
    }

    pub(crate) fn set_len(&mut self, seq: u64, len: u64) {
        let old = std::mem::replace(&mut self.len, len);
        if len < old {
            let end = old.next_multiple_of(PAGE);
            self.cache.zero(len, end);
            self.enter_zeroes(seq, len, end);
        } else {
            self.push(Entry { seq, start: 0, end: 0, what: What::Length, len });
        }
    }

    /// Brings the changes before `seq` to stable storage.
    pub(crate) fn settle(&mut self, seq: u64) {
        while self.journal.front().is_some_and(|entry| entry.seq < seq) {
            self.retire();
        }
    }

    /// The same, of the changes up to `seq` inside a range alone, and with them the length.
    pub(crate) fn settle_range(&mut self, seq: u64, start: u64, end: u64) {
        let (start, end) = (start / SECTOR * SECTOR, end.next_multiple_of(SECTOR));
        let journal = std::mem::take(&mut self.journal);
        self.dirty = 0;
        for entry in journal {
            let (from, to) = (entry.start.max(start), entry.end.min(end));
            if entry.seq > seq || from >= to {
                self.put_back(entry);
                continue;
            }
            apply(&mut self.stable, &entry.what, entry.start, from, to);
            self.stable_len = self.stable_len.max(to.min(entry.len));
            for (from, to) in [(entry.start, from), (to, entry.end)] {
                if from < to {
                    let what = match &entry.what {
                        What::Data(bytes, at) => {
                            What::Data(bytes.clone(), at + index(from - entry.start))
                        }
                        other => other.clone(),
                    };
                    self.put_back(Entry { start: from, end: to, what, ..entry });
                }
            }
        }
    }

    fn put_back(&mut self, entry: Entry) {
        if let What::Data(..) = entry.what {
            self.dirty += entry.end - entry.start;
        }
        self.journal.push_back(entry);
    }

    /// A writeback that fails: of the changes before `seq` each page gets to stable storage or
    /// counts as clean without being there.
    pub(crate) fn lose(&mut self, seq: u64, rng: &mut Rng) {
        let salt = rng.draw();
        while self.journal.front().is_some_and(|entry| entry.seq < seq) {
            let Some(entry) = self.journal.pop_front() else { return };
            if let What::Data(..) = entry.what {
                self.dirty -= entry.end - entry.start;
            }
            let mut at = entry.start;
            while at < entry.end && !matches!(entry.what, What::Zero) {
                let end = ((at / PAGE + 1) * PAGE).min(entry.end);
                if Rng::new(salt ^ (at / PAGE)).draw() & 1 == 0 {
                    apply(&mut self.stable, &entry.what, entry.start, at, end);
                    self.stable_len = self.stable_len.max(end.min(entry.len));
                }
                at = end;
            }
            if matches!(entry.what, What::Zero) && salt & 1 == 0 {
                apply(&mut self.stable, &entry.what, entry.start, entry.start, entry.end);
            }
        }
    }

    /// The sectors that have changes: one of them, drawn.
    fn draw_sector(&self, rng: &mut Rng) -> u64 {
        let Some(entry) = self.journal.get(index(rng.below(self.journal.len() as u64))) else {
            return u64::MAX;
        };
        entry.start / SECTOR + rng.below(((entry.end - entry.start) / SECTOR).max(1))
    }

    /// What is there after a loss of power.
    pub(crate) fn without_power(&self, power: Power, cut: u64, rng: &mut Rng) -> Node {
        let mut pages = self.stable.clone();
        let mut len = self.stable_len;
        let mut longest = 0;
        let salt = rng.draw();
        let drawn = self.draw_sector(rng);
        for (number, entry) in self.journal.iter().enumerate() {
            // Whether the length came with it is another question than which sectors did.
            let takes_len = match power {
                Power::Nothing => false,
                Power::Everything | Power::AllButOneSector => true,
                Power::Prefix => entry.seq < cut,
                Power::OneSector => rng.chance(100_000),
                Power::Sectors(p) | Power::Pages(p) => rng.chance(p),
            };
            if takes_len {
                len = entry.len;
            }
            let mut pieces = Vec::new();
            match entry.what {
                What::Length => {}
                What::Data(..) => pieces.push((entry.start, entry.end)),
                What::Zero => pages.parts(entry.start, entry.end, |a, b| pieces.push((a, b))),
            }
            let whole = match power {
                Power::Nothing => Some(false),
                Power::Everything => Some(true),
                Power::Prefix => Some(entry.seq < cut),
                _ => None,
            };
            for (from, to) in pieces {
                let mut at = from;
                while at < to {
                    let end = if whole.is_some() { to } else { (at + SECTOR).min(to) };
                    let takes = whole.unwrap_or_else(|| match power {
                        Power::AllButOneSector => at / SECTOR != drawn,
                        Power::OneSector => at / SECTOR == drawn,
                        Power::Pages(p) => {
                            // Each page as it was at a moment of its own.
                            let mut own = Rng::new(salt ^ (at / PAGE).wrapping_mul(0x9e37_79b1));
                            let moment = if own.chance(p) {
                                own.below(self.journal.len() as u64 + 1)
                            } else {
                                0
                            };
                            (number as u64) < moment
                        }
                        Power::Sectors(p) => rng.chance(p),
                        _ => false,
                    });
                    if takes {
                        apply(&mut pages, &entry.what, entry.start, at, end);
                        if let What::Data(..) = entry.what {
                            longest = longest.max(end.min(entry.len));
                        }
                    }
                    at = end;
                }
            }
        }
        let len = len.max(longest);
        pages.zero(len, u64::MAX / 2);
        Node { cache: pages.clone(), len, stable: pages, stable_len: len, ..Node::default() }
    }
}
