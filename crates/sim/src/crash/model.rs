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
use smallvec::SmallVec;

/// The most bytes of a sector.
pub const MAX_SECTOR: usize = 512;
/// Whose content a sector has: the number of an operation, perhaps with [`SAME`], or one of
/// [`ZERO`] and [`INITIAL`].
pub type Value = u32;
/// Zeroes.
pub const ZERO: Value = 0;
/// What was there at the beginning.
pub const INITIAL: Value = 1;
/// With this bit, the content is the same in all sectors.
pub const SAME: Value = 1 << 31;

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
}

fn word(seed: u64, sector: u64, value: Value) -> u64 {
    let sector = if value & SAME == 0 { sector } else { u64::MAX };
    let mixed = (seed ^ sector.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The lower half says who, the upper half proves it.
    (mixed & 0xffff_ffff_0000_0000) | u64::from(value)
}

/// The bytes of a sector of operation `value`.
pub fn fill(seed: u64, sector: u64, value: Value, bytes: &mut [u8]) {
    if value == ZERO {
        return bytes.fill(0);
    }
    let word = word(seed, sector, value);
    for (i, chunk) in (0u64..).zip(bytes.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&word.wrapping_add(i << 24).to_le_bytes());
    }
}

/// Whether a sector has the content of operation `value`.
fn holds(seed: u64, sector: u64, value: Value, bytes: &[u8]) -> bool {
    let word = word(seed, sector, value);
    (0u64..)
        .zip(bytes.chunks_exact(8))
        .all(|(i, chunk)| chunk == word.wrapping_add(i << 24).to_le_bytes())
}

/// Whose content a sector has, which is that of `sector` or of another (up to `sectors`).
fn identify(seed: u64, sector: u64, sectors: u64, bytes: &[u8]) -> Result<Value, String> {
    let first = u64::from_le_bytes(bytes.first_chunk::<8>().copied().unwrap_or_default());
    if first == 0 && bytes == &[0; MAX_SECTOR][..bytes.len()] {
        return Ok(ZERO);
    }
    let value = u32::try_from(first & 0xffff_ffff).unwrap_or(0);
    if value != ZERO && holds(seed, sector, value, bytes) {
        return Ok(value);
    }
    match (0..sectors).find(|&other| value != ZERO && holds(seed, other, value, bytes)) {
        Some(other) => Err(format!("content of sector {other}, of operation {value}")),
        None => Err(format!("no content of anyone: it begins with {:02x?}", &bytes[..16])),
    }
}

impl Model {
    /// A disk of so many sectors of `unit` bytes, which is a multiple of 16; `initial` says which
    /// have content (of [`INITIAL`]).
    pub fn new(seed: u64, unit: usize, sectors: u64, initial: impl Fn(u64) -> bool) -> Self {
        let one =
            |value| History::from_iter([Version { value, begun: 0, ended: 0, fate: Fate::Done }]);
        let value = |sector| if initial(sector) { INITIAL } else { ZERO };
        Model {
            seed,
            unit,
            clock: 1,
            flushed: 0,
            reads: Vec::new(),
            sectors: (0..sectors).map(|sector| one(value(sector))).collect(),
            sizes: one(Value::try_from(sectors).unwrap_or(Value::MAX)),
        }
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
        let index = |n| usize::try_from(n).unwrap_or(usize::MAX);
        &mut self.sectors[index(sectors.start)..index(sectors.end)]
    }

    /// It ended.
    pub fn end(&mut self, sectors: std::ops::Range<u64>, Begun(begun): Begun, fate: Fate) {
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
        let history = self.sectors.get(usize::try_from(sector).unwrap_or(usize::MAX));
        history.and_then(|history| history.last()).map_or(ZERO, |version| version.value)
    }

    /// Whether these sectors can hold nothing but these values, whenever they are read by an
    /// operation that writes itself, as `Begun` says.
    pub fn is_certain(&self, Begun(own): Begun, first: u64, values: &[Value]) -> bool {
        (first..).zip(values).all(|(sector, value)| {
            let history = self.sectors.get(usize::try_from(sector).unwrap_or(usize::MAX));
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
            let below = Version { value: INITIAL, begun: cut, ended: cut, fate: Fate::Open };
            for history in self.range(sectors..there) {
                history.extend([below, zero]);
            }
        } else {
            let new = Version { begun: 0, ended: 0, fate: Fate::Done, ..zero };
            let len = usize::try_from(sectors).unwrap_or(usize::MAX);
            self.sectors.resize(len, History::from_iter([new]));
        }
        Begun(begun)
    }

    /// It has, or an error leaves it open.
    pub fn end_resize(&mut self, begun: Begun, fate: Fate) {
        let there = self.sectors.len() as u64;
        self.end(0..there, begun, fate);
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
        self.judge(after, horizon, 0, bytes, "the disk")
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
            let Some(history) = self.sectors.get(usize::try_from(sector).unwrap_or(usize::MAX))
            else {
                return Err(format!("{what} has a sector {sector}, which never was"));
            };
            let seen = identify(self.seed, sector, self.sectors.len() as u64, bytes);
            let ok = seen.as_ref().is_ok_and(|&value| {
                history.iter().any(|version| {
                    version.value == value && !is_superseded(version, history, after, horizon)
                })
            });
            if !ok {
                let seen = seen.map_or_else(
                    |other| other,
                    |value| match value {
                        ZERO => "zeroes".to_owned(),
                        INITIAL => "the content from the beginning".to_owned(),
                        value => format!("content of operation {value}"),
                    },
                );
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
    pub fn adopt(&mut self, after: After, size: u64, bytes: &[u8]) {
        let (crash, now) = (self.tick(), self.tick());
        self.reads.clear();
        let sectors = self.sectors.len() as u64;
        let there = bytes.chunks(self.unit).map(Some).chain(std::iter::repeat(None));
        for ((sector, history), bytes) in (0..).zip(&mut self.sectors).zip(there) {
            let value = bytes.map_or(Ok(ZERO), |bytes| identify(self.seed, sector, sectors, bytes));
            take(history, value.unwrap_or(ZERO), [crash, now], after);
        }
        take(&mut self.sizes, Value::try_from(size).unwrap_or(Value::MAX), [crash, now], after);
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        if after == After::Power {
            self.flushed = now;
            self.sectors.truncate(len);
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

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: usize = 512;

    fn disk(model: &Model, values: &[Value]) -> Vec<u8> {
        let mut bytes = vec![0; values.len() * UNIT];
        for ((sector, &value), bytes) in (0..).zip(values).zip(bytes.chunks_mut(UNIT)) {
            fill(model.seed, sector, value, bytes);
        }
        bytes
    }

    fn judge(model: &Model, after: After, values: &[Value]) -> bool {
        model.judge_all(after, values.len() as u64, &disk(model, values)).is_ok()
    }

    #[test]
    fn what_is_acknowledged_survives_a_kill_and_what_is_flushed_a_loss_of_power() {
        let mut model = Model::new(9, UNIT, 2, |sector| sector == 1);
        let write = model.begin(0..2, 5);
        for values in [[0, 1], [5, 1], [0, 5], [5, 5]] {
            assert!(judge(&model, After::Kill, &values) && judge(&model, After::Power, &values));
        }
        let flush_beside = model.begin_flush();
        model.end(0..2, write, Fate::Done);
        model.flushed(flush_beside);
        assert!(!judge(&model, After::Kill, &[0, 5]) && judge(&model, After::Power, &[0, 5]));
        let flush = model.begin_flush();
        model.flushed(flush);
        assert!(!judge(&model, After::Power, &[0, 5]) && judge(&model, After::Power, &[5, 5]));
        let failed = model.begin(0..1, 6);
        model.end(0..1, failed, Fate::Open);
        assert!(judge(&model, After::Kill, &[6, 5]) && judge(&model, After::Kill, &[5, 5]));
    }

    #[test]
    fn what_a_kill_left_is_there_and_may_be_lost_with_the_power() {
        let mut model = Model::new(9, UNIT, 1, |_| false);
        model.begin(0..1, 5);
        let found = disk(&model, &[5]);
        model.adopt(After::Kill, 1, &found);
        assert!(judge(&model, After::Kill, &[5]) && !judge(&model, After::Kill, &[0]));
        assert!(judge(&model, After::Power, &[5]) && judge(&model, After::Power, &[0]));
        model.adopt(After::Power, 1, &found);
        assert!(judge(&model, After::Power, &[5]) && !judge(&model, After::Power, &[0]));
    }

    #[test]
    fn a_foreign_sector_is_named_and_a_late_one_refused() {
        let mut model = Model::new(9, UNIT, 4, |_| false);
        for value in [5, 6] {
            let write = model.begin(0..4, value);
            model.end(0..4, write, Fate::Done);
        }
        let mut bytes = disk(&model, &[6, 6, 6, 6]);
        bytes.copy_within(0..512, 1024);
        let why = model.judge_all(After::Kill, 4, &bytes).unwrap_err();
        assert!(why.contains("sector 2") && why.contains("content of sector 0"), "{why}");
        let read = model.begin_read();
        let old = disk(&model, &[5]);
        assert!(model.end_read(read, 0, &old).unwrap_err().contains("operation 5"));
    }

    #[test]
    fn a_shrunk_and_grown_disk_reads_as_zeroes() {
        let mut model = Model::new(9, UNIT, 2, |_| true);
        let shrink = model.begin_resize(1);
        assert!(judge(&model, After::Kill, &[1]) && judge(&model, After::Kill, &[1, 1]));
        model.end_resize(shrink, Fate::Done);
        assert!(!judge(&model, After::Kill, &[1, 1]));
        let grow = model.begin_resize(2);
        model.end_resize(grow, Fate::Done);
        assert!(judge(&model, After::Kill, &[1, 0]) && !judge(&model, After::Kill, &[1, 1]));
        assert!(judge(&model, After::Power, &[1, 1]));
    }

    #[test]
    fn what_is_durable_by_itself_survives_a_loss_of_power_without_a_flush() {
        let mut model = Model::new(9, UNIT, 2, |_| true);
        let write = model.begin(0..2, 5);
        model.end(0..2, write, Fate::Durable);
        assert!(judge(&model, After::Power, &[5, 5]) && !judge(&model, After::Power, &[1, 5]));
        let later = model.begin(0..1, 6);
        model.end(0..1, later, Fate::Done);
        assert!(judge(&model, After::Power, &[5, 5]) && judge(&model, After::Power, &[6, 5]));
        assert!(!judge(&model, After::Kill, &[5, 5]));
    }

    #[test]
    fn what_is_withdrawn_was_never_there_and_certainty_ends_where_another_writes() {
        let mut model = Model::new(9, UNIT, 2, |_| true);
        let own = model.begin(0..2, 5);
        assert!(model.is_certain(own, 0, &[INITIAL; 2]) && !model.is_certain(own, 0, &[ZERO; 2]));
        let other = model.begin(1..2, 6);
        assert!(!model.is_certain(own, 0, &[INITIAL; 2]) && model.latest(1) == 6);
        model.withdraw(0..2, own);
        model.end(1..2, other, Fate::Done);
        assert!(judge(&model, After::Kill, &[1, 6]) && !judge(&model, After::Kill, &[5, 6]));
    }
}
