// SPDX-License-Identifier: Apache-2.0
//! Snapshots in the model. The content of one is what a read of all would have seen at some moment
//! while it was made. Whether it is there has a history, like a sector: one that was acknowledged
//! is there after a loss of power as well. Going back to one writes all sectors, with what it has,
//! at one moment.
use smallvec::SmallVec;

use super::{
    After, Begun, Fate, History, Model, NEVER, Read, Value, Version, ZERO, identify, index,
    is_superseded, name, one, possible, take,
};

const ABSENT: Value = 0;
const PRESENT: Value = 1;

/// A snapshot, which may be there.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    /// The operation that made it.
    number: Value,
    /// When its making began.
    begun: u64,
    /// Whether it is there.
    presence: History,
    /// What it may have; `None` while it is being made.
    content: Option<Content>,
}

#[derive(Clone, Debug)]
struct Content {
    /// In sectors.
    sizes: Vec<Value>,
    sectors: Vec<SmallVec<[Value; 2]>>,
}

fn open(value: Value, begun: u64) -> Version {
    Version { value, begun, ended: NEVER, fate: Fate::Open }
}

impl Saved {
    fn may_be_there(&self, after: After, horizon: u64) -> bool {
        possible(&self.presence, after, horizon).iter().any(|version| version.value == PRESENT)
    }

    fn is_there(&self, after: After, horizon: u64) -> bool {
        possible(&self.presence, after, horizon).iter().all(|version| version.value == PRESENT)
    }
}

impl Model {
    fn find(&mut self, number: Value) -> Option<&mut Saved> {
        self.saved.iter_mut().find(|saved| saved.number == number)
    }

    /// The snapshots that may be there now, and whether each certainly is.
    pub fn snapshots(&self) -> Vec<(Value, bool)> {
        let there = |saved: &&Saved| saved.may_be_there(After::Kill, self.clock);
        let certain = |saved: &Saved| (saved.number, saved.is_there(After::Kill, self.clock));
        self.saved.iter().filter(there).map(certain).collect()
    }

    /// Whether a snapshot certainly has the size that the disk certainly has.
    pub fn has_same_size(&self, number: Value) -> bool {
        let now = possible(&self.sizes, After::Kill, self.clock);
        let saved = self.saved.iter().find(|saved| saved.number == number);
        match (&*now, saved.and_then(|saved| saved.content.as_ref())) {
            ([now], Some(content)) => content.sizes == [now.value],
            _ => false,
        }
    }

    /// A snapshot is being made.
    pub fn begin_create(&mut self, number: Value) -> Begun {
        let begun = self.begin_read();
        let mut presence = one(ABSENT);
        presence.push(open(PRESENT, begun.0));
        self.saved.push(Saved { number, begun: begun.0, presence, content: None });
        begun
    }

    /// Its making ended.
    pub fn end_create(&mut self, number: Value, begun: Begun, fate: Fate) {
        let values = |history| {
            let mut values: SmallVec<[Value; 2]> = possible(history, After::Kill, begun.0)
                .into_iter()
                .map(|version| version.value)
                .collect();
            values.dedup();
            values
        };
        let sectors = self.sectors.iter().map(values).collect();
        let content = Content { sizes: values(&self.sizes).to_vec(), sectors };
        if let Some(saved) = self.find(number) {
            saved.content = Some(content);
        }
        self.reads.retain(|&read| read != begun.0);
        self.end_presence(number, begun, fate);
        if fate != Fate::Open {
            self.flushed(begun);
        }
    }

    /// It was refused.
    pub fn withdraw_create(&mut self, number: Value, begun: Begun) {
        self.reads.retain(|&read| read != begun.0);
        self.saved.retain(|saved| saved.number != number);
    }

    /// A snapshot is being deleted.
    pub fn begin_delete(&mut self, number: Value) -> Begun {
        let begun = self.tick();
        if let Some(saved) = self.find(number) {
            saved.presence.push(open(ABSENT, begun));
        }
        Begun(begun)
    }

    /// That ended.
    pub fn end_presence(&mut self, number: Value, Begun(begun): Begun, fate: Fate) {
        let ended = self.tick();
        let Some(saved) = self.find(number) else { return };
        for version in saved.presence.iter_mut().filter(|version| version.begun == begun) {
            (version.ended, version.fate) = (ended, fate);
        }
        if !saved.may_be_there(After::Power, 0) {
            self.saved.retain(|saved| saved.number != number);
        }
    }

    /// The disk goes back to a snapshot.
    pub fn begin_apply(&mut self, number: Value) -> Begun {
        let Begun(begun) = self.begin(0..0, ZERO);
        let content = self.find(number).and_then(|saved| saved.content.clone());
        let Some(Content { sizes, sectors }) = content else { return Begun(begun) };
        if sectors.len() > self.sectors.len() {
            self.sectors.resize(sectors.len(), one(ZERO));
        }
        let zero = SmallVec::from_iter([ZERO]);
        for (sector, history) in self.sectors.iter_mut().enumerate() {
            let values = sectors.get(sector).unwrap_or(&zero);
            history.extend(values.iter().map(|&value| open(value, begun)));
        }
        self.sizes.extend(sizes.iter().map(|&size| open(size, begun)));
        self.applying = Some(begun);
        Begun(begun)
    }

    /// That ended.
    pub fn end_apply(&mut self, begun: Begun, fate: Fate) {
        self.applying = None;
        self.end_resize(begun, fate);
    }

    /// It was refused.
    pub fn withdraw_apply(&mut self, Begun(begun): Begun) {
        self.applying = None;
        for history in self.sectors.iter_mut().chain([&mut self.sizes]) {
            history.retain(|version| version.begun != begun);
        }
    }

    /// Judges what was found while the disk was going back to a snapshot: it has, or it has not.
    pub(super) fn judge_applying(
        &self,
        after: After,
        size: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let Some(begun) = self.applying else { return Ok(()) };
        let mut before = self.clone();
        before.withdraw_apply(Begun(begun));
        let Err(why) = before.judge_all(after, size, bytes) else { return Ok(()) };
        let mut done = self.clone();
        done.applying = None;
        // Until it is acknowledged it may come after a write that has begun, and ended, since.
        let now = done.tick();
        for version in done.sectors.iter_mut().chain([&mut done.sizes]).flatten() {
            if version.begun == begun {
                (version.ended, version.fate) = (now, Fate::Durable);
            }
        }
        let done = done.judge_all(after, size, bytes);
        done.map_err(|other| format!("a snapshot was applied in part: {other}; or: {why}"))
    }

    /// Judges the snapshots that were found after a crash.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn judge_snapshots(&self, after: After, found: &[Read]) -> Result<(), String> {
        let horizon = self.horizon(after);
        for read in found {
            let saved = self.saved.iter().find(|saved| saved.number == read.number);
            match saved.filter(|saved| saved.may_be_there(after, horizon)) {
                Some(saved) => self.judge_saved(saved, read)?,
                None => return Err(format!("there is a snapshot {}", read.number)),
            }
        }
        let missing = self.saved.iter().find(|saved| {
            saved.is_there(after, horizon) && found.iter().all(|read| read.number != saved.number)
        });
        missing.map_or(Ok(()), |saved| Err(format!("the snapshot {} is not there", saved.number)))
    }

    fn judge_saved(&self, saved: &Saved, read: &Read) -> Result<(), String> {
        let (number, sectors) = (read.number, self.sectors.len() as u64);
        let may = |history: &History, value| {
            let same = |version: &&Version| version.value == value;
            let mut same = history.iter().filter(same);
            same.any(|version| !is_superseded(version, history, After::Kill, saved.begun))
        };
        let size = Value::try_from(read.size).unwrap_or(Value::MAX);
        let fits = match &saved.content {
            Some(content) => content.sizes.contains(&size),
            None => may(&self.sizes, size),
        };
        if !fits {
            return Err(format!("the snapshot {number} has {size} sectors"));
        }
        for (sector, bytes) in (0..).zip(read.bytes.chunks(self.unit)) {
            let seen = identify(self.seed, sector, sectors, bytes);
            let at = index(sector);
            let fits = seen.as_ref().is_ok_and(|&value| match &saved.content {
                Some(content) => content.sectors.get(at).is_some_and(|v| v.contains(&value)),
                None => self.sectors.get(at).is_some_and(|history| may(history, value)),
            });
            if !fits {
                let seen = seen.map_or_else(|other| other, name);
                let wanted = saved.content.as_ref().and_then(|content| content.sectors.get(at));
                return Err(format!(
                    "sector {sector} of the snapshot {number} has {seen}; possible: {wanted:?}"
                ));
            }
        }
        Ok(())
    }

    /// Takes what was found after a crash as what is there.
    pub(super) fn adopt_snapshots(&mut self, after: After, found: &[Read], times: [u64; 2]) {
        let (seed, unit, sectors) = (self.seed, self.unit, self.sectors.len() as u64);
        for saved in &mut self.saved {
            let read = found.iter().find(|read| read.number == saved.number);
            let there = if read.is_some() { PRESENT } else { ABSENT };
            take(&mut saved.presence, there, times, after);
            let Some(read) = read else { continue };
            let value = |(sector, bytes)| {
                let value = identify(seed, sector, sectors, bytes).unwrap_or(ZERO);
                SmallVec::from_iter([value])
            };
            saved.content = Some(Content {
                sizes: vec![Value::try_from(read.size).unwrap_or(Value::MAX)],
                sectors: (0..).zip(read.bytes.chunks(unit)).map(value).collect(),
            });
        }
        // One that was being made and is not in the file yet never will be.
        let horizon = self.flushed;
        self.saved
            .retain(|saved| saved.content.is_some() && saved.may_be_there(After::Power, horizon));
    }
}
