// SPDX-License-Identifier: Apache-2.0
//! What a disk may hold, sector by sector: the judge of everything that is read. Pure. A sector is
//! what the run's operations are multiples of, 512 bytes or less.
//!
//! Each sector has the versions that were written to it, with the time when each began and ended.
//! A version is *superseded* when another began after its end and was acknowledged. What may be
//! there is what has not been superseded by something acknowledged up to a horizon: for a read
//! that is its beginning; after a kill, now; after a loss of power, the beginning of the last flush
//! that succeeded, or any time, for what was acknowledged as durable by itself. What failed or was
//! cancelled may be there and supersedes nothing.
//!
//! A sector's bytes say whose they are, so that a wrong one is explained.
//!
//! - `content`: what sectors are filled with.
//! - `snapshots`: what was saved, and going back to it.
//! - `bitmaps`: what has to be marked as changed.
mod bitmaps;
mod content;
mod snapshots;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

pub use content::{BASE, BELOW, INITIAL, MAX_SECTOR, SAME, Value, ZERO, fill};
use content::{identify, name};
use snapshots::Saved;

const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Version {
    value: Value,
    begun: u64,
    /// When it was acknowledged, failed or was cancelled.
    ended: u64,
    /// Whether, and for which horizons, it supersedes others.
    fate: Fate,
}

/// What is known of an operation that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may have been done, in part or not: it failed, was cancelled, or has not ended yet.
    Open,
    /// It was acknowledged.
    Done,
    /// It was acknowledged, and is on stable storage.
    Durable,
}

type History = SmallVec<[Version; 2]>;

/// The horizon of a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The death of the process.
    Kill,
    /// A loss of power.
    Power,
}

/// An operation of the model that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun(u64);

/// A snapshot that was found after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The number of the operation that made it.
    pub number: Value,
    /// Its size in sectors.
    pub size: u64,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Model {
    seed: u64,
    /// Bytes of a sector.
    unit: usize,
    clock: u64,
    /// When the last flush that succeeded began.
    flushed: u64,
    /// When the reads that run began.
    reads: Vec<u64>,
    sectors: Vec<History>,
    /// Sizes in sectors, judged in the same way.
    sizes: History,
    /// What is below.
    below: Vec<Value>,
    saved: Vec<Saved>,
    /// When the going back to a snapshot began that has not ended.
    applying: Option<u64>,
    /// What the sectors had at the beginning, and whether they were written to since.
    changed: Vec<(Value, bool)>,
}

/// A history of one version, which is there.
fn one(value: Value) -> History {
    History::from_iter([Version { value, begun: 0, ended: 0, fate: Fate::Done }])
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl Model {
    /// A disk of so many sectors of `unit` bytes, which is a multiple of 16; `initial` says whose
    /// content they have.
    pub fn new(seed: u64, unit: usize, sectors: u64, initial: impl Fn(u64) -> Value) -> Self {
        Model {
            seed,
            unit,
            clock: 1,
            flushed: 0,
            reads: Vec::new(),
            sectors: (0..sectors).map(|sector| one(initial(sector))).collect(),
            sizes: one(Value::try_from(sectors).unwrap_or(Value::MAX)),
            below: Vec::new(),
            saved: Vec::new(),
            applying: None,
            changed: (0..sectors).map(|sector| (initial(sector), false)).collect(),
        }
    }

    /// The same with this content below it.
    #[must_use]
    pub fn above(self, below: Vec<Value>) -> Self {
        Model { below, ..self }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// An operation begins that writes `value` to these sectors.
    pub fn begin(&mut self, sectors: std::ops::Range<u64>, value: Value) -> Begun {
        let begun = self.tick();
        let horizon = self.reads.iter().copied().chain([self.flushed]).min().unwrap_or(0);
        for history in self.range(sectors) {
            prune(history, horizon);
            history.push(Version { value, begun, ended: NEVER, fate: Fate::Open });
        }
        Begun(begun)
    }

    fn range(&mut self, sectors: std::ops::Range<u64>) -> &mut [History] {
        &mut self.sectors[index(sectors.start)..index(sectors.end)]
    }

    /// It ended.
    pub fn end(&mut self, sectors: std::ops::Range<u64>, begun: Begun, fate: Fate) {
        if fate != Fate::Open {
            // Zeroes where there are zeroes are no change.
            let content = |version: &Version| version.begun == begun.0 && version.value != ZERO;
            let from = index(sectors.start);
            let range = self.sectors.get(from..index(sectors.end)).unwrap_or_default();
            let changed = self.changed.get_mut(from..).unwrap_or_default();
            for (history, (_, written)) in range.iter().zip(changed) {
                *written |= history.iter().any(content);
            }
        }
        self.finish(sectors, begun, fate);
    }

    fn finish(&mut self, sectors: std::ops::Range<u64>, Begun(begun): Begun, fate: Fate) {
        let ended = self.tick();
        for history in self.range(sectors) {
            for version in history.iter_mut().filter(|version| version.begun == begun) {
                (version.ended, version.fate) = (ended, fate);
            }
        }
    }

    /// It ended, and has changed nothing.
    pub fn withdraw(&mut self, sectors: std::ops::Range<u64>, Begun(begun): Begun) {
        for history in self.range(sectors) {
            history.retain(|version| version.begun != begun);
        }
    }

    /// What was written to a sector last.
    pub fn latest(&self, sector: u64) -> Value {
        let history = self.sectors.get(index(sector));
        history.and_then(|history| history.last()).map_or(ZERO, |version| version.value)
    }

    /// Whether these sectors can hold nothing but these values, whenever they are read by an
    /// operation that writes itself, as `Begun` says.
    pub fn is_certain(&self, Begun(own): Begun, first: u64, values: &[Value]) -> bool {
        (first..).zip(values).all(|(sector, value)| {
            let history = self.sectors.get(index(sector));
            history.is_some_and(|history| {
                history
                    .iter()
                    .filter(|version| version.begun != own)
                    .filter(|version| !is_superseded(version, history, After::Kill, own))
                    .all(|version| version.value == *value)
            })
        })
    }

    /// A flush begins.
    pub fn begin_flush(&mut self) -> Begun {
        Begun(self.tick())
    }

    /// It succeeded.
    pub fn flushed(&mut self, Begun(begun): Begun) {
        self.flushed = self.flushed.max(begun);
    }

    /// A read begins.
    pub fn begin_read(&mut self) -> Begun {
        let begun = self.tick();
        self.reads.push(begun);
        Begun(begun)
    }

    /// It ended, with these bytes from sector `first` on, or without.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn end_read(
        &mut self,
        Begun(begun): Begun,
        first: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        self.reads.retain(|&read| read != begun);
        self.judge(After::Kill, begun, first, bytes, "a read")
    }

    /// The size changes.
    pub fn begin_resize(&mut self, sectors: u64) -> Begun {
        let (cut, begun) = (self.tick(), self.tick());
        let value = Value::try_from(sectors).unwrap_or(Value::MAX);
        prune(&mut self.sizes, self.flushed);
        self.sizes.push(Version { value, begun, ended: NEVER, fate: Fate::Open });
        let zero = Version { value: ZERO, begun, ended: NEVER, fate: Fate::Open };
        let there = self.sectors.len() as u64;
        if sectors < there {
            // While the end is being cut off, what lies below it may be seen there.
            let below =
                self.below.iter().copied().skip(index(sectors)).chain(std::iter::repeat(ZERO));
            let below: Vec<Value> = below.take(index(there - sectors)).collect();
            for (history, value) in self.range(sectors..there).iter_mut().zip(below) {
                let below = Version { value, begun: cut, ended: cut, fate: Fate::Open };
                history.extend([below, zero]);
            }
        } else {
            let new = Version { begun: 0, ended: 0, fate: Fate::Done, ..zero };
            self.sectors.resize(index(sectors), History::from_iter([new]));
        }
        Begun(begun)
    }

    /// It has, or an error leaves it open.
    pub fn end_resize(&mut self, begun: Begun, fate: Fate) {
        let there = self.sectors.len() as u64;
        self.finish(0..there, begun, fate);
        let ended = self.clock;
        for version in self.sizes.iter_mut().filter(|version| version.begun == begun.0) {
            (version.ended, version.fate) = (ended, fate);
        }
    }

    fn horizon(&self, after: After) -> u64 {
        match after {
            After::Kill => self.clock,
            After::Power => self.flushed,
        }
    }

    /// Judges all of a disk that was found after a crash.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge_all(&self, after: After, size: u64, bytes: &[u8]) -> Result<(), String> {
        let horizon = self.horizon(after);
        let sizes = possible(&self.sizes, after, horizon);
        if !sizes.iter().any(|version| u64::from(version.value) == size) {
            return Err(format!("the disk has {size} sectors; possible: {sizes:?}"));
        }
        self.judge(after, horizon, 0, bytes, "the disk")?;
        self.judge_applying(after, size, bytes)
    }

    fn judge(
        &self,
        after: After,
        horizon: u64,
        first: u64,
        bytes: &[u8],
        what: &str,
    ) -> Result<(), String> {
        for (sector, bytes) in (first..).zip(bytes.chunks(self.unit)) {
            let Some(history) = self.sectors.get(index(sector)) else {
                return Err(format!("{what} has a sector {sector}, which never was"));
            };
            let seen = identify(self.seed, sector, self.sectors.len() as u64, bytes);
            let ok = seen.as_ref().is_ok_and(|&value| {
                history.iter().any(|version| {
                    version.value == value && !is_superseded(version, history, after, horizon)
                })
            });
            if !ok {
                let seen = seen.map_or_else(|other| other, name);
                let candidates = possible(history, after, horizon);
                return Err(format!(
                    "sector {sector} of {what} has {seen}; possible (horizon {horizon}, now {}): \
                     {candidates:?}; all: {history:?}",
                    self.clock
                ));
            }
        }
        Ok(())
    }

    /// Takes what was found after a crash as what is there, and the only thing where power was lost.
    pub fn adopt(&mut self, after: After, size: u64, bytes: &[u8], snapshots: &[Read]) {
        let (crash, now) = (self.tick(), self.tick());
        self.reads.clear();
        self.applying = None;
        self.adopt_snapshots(after, snapshots, [crash, now]);
        let sectors = self.sectors.len() as u64;
        let there = bytes.chunks(self.unit).map(Some).chain(std::iter::repeat(None));
        for ((sector, history), bytes) in (0..).zip(&mut self.sectors).zip(there) {
            let value = bytes.map_or(Ok(ZERO), |bytes| identify(self.seed, sector, sectors, bytes));
            take(history, value.unwrap_or(ZERO), [crash, now], after);
        }
        take(&mut self.sizes, Value::try_from(size).unwrap_or(Value::MAX), [crash, now], after);
        if after == After::Power {
            self.flushed = now;
            self.sectors.truncate(index(size));
        }
    }

    /// The size as it is.
    pub fn size(&self) -> u64 {
        self.sizes.last().map_or(0, |version| u64::from(version.value))
    }
}

fn take(history: &mut History, value: Value, [crash, now]: [u64; 2], after: After) {
    if after == After::Power {
        history.clear();
    }
    for version in history.iter_mut().filter(|version| version.ended == NEVER) {
        version.ended = crash;
    }
    history.push(Version { value, begun: now, ended: now, fate: Fate::Done });
}

fn is_superseded(version: &Version, history: &History, after: After, horizon: u64) -> bool {
    history.iter().any(|other| {
        let is_there = match other.fate {
            Fate::Open => false,
            Fate::Done => other.ended <= horizon,
            Fate::Durable => other.ended <= horizon || after == After::Power,
        };
        is_there && other.begun > version.ended
    })
}

fn possible(history: &History, after: After, horizon: u64) -> Vec<Version> {
    let possible = |version: &&Version| !is_superseded(version, history, after, horizon);
    history.iter().filter(possible).copied().collect()
}

fn prune(history: &mut History, horizon: u64) {
    if history.len() > 1 {
        let all = history.clone();
        history.retain(|version| !is_superseded(version, &all, After::Kill, horizon));
    }
}
