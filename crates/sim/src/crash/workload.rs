// SPDX-License-Identifier: Apache-2.0
//! What is done to an image: drawn from a seed once, kept as a list that can be cut and run again.
use std::fmt;
use std::ops::Range;

use io_engine::sim::{Knobs, Rng};

use crate::crash::image::{Below, Filled, Format};
use crate::crash::mix::Mix;
use crate::crash::planted::Planted;

/// What is asked of the image; sectors of [`Record::unit`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads and judges.
    Read(Range<u64>),
    /// Writes; on return it is on stable storage, if so asked.
    Write(Range<u64>, bool),
    /// Writes one block again and again.
    Repeat(Range<u64>),
    /// Writes where the content is what it is believed to be (or, if not, certainly is not).
    CompareAndWrite(Range<u64>, bool),
    /// Flushes.
    Flush,
    /// Discards.
    Discard(Range<u64>),
    /// Writes zeroes, and may unmap.
    Zero(Range<u64>, bool),
    /// Asks what is where.
    Map(u64),
    /// Changes the size, alone.
    Resize(u64),
    /// Makes, applies or deletes a snapshot: the n-th of those that are there.
    Snapshot(Saving, u32),
    /// Closes and opens again.
    Reopen,
}

/// What is done with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// It is made.
    Create,
    /// The disk goes back to it.
    Apply,
    /// It is deleted.
    Delete,
}

/// An operation of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Whose content it writes.
    pub number: u32,
    /// What it does.
    pub kind: Kind,
    /// Its future is dropped after so many nanoseconds.
    pub cancel: Option<u64>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4} {:?}", self.number, self.kind)?;
        match self.cancel {
            Some(after) => write!(f, ", cancelled after {after} ns"),
            None => Ok(()),
        }
    }
}

/// What is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// The engine.
    Engine,
    /// The ring, a logical unit, the block layer and the engine.
    Stack,
}

impl Driven {
    /// That of this name.
    pub fn named(name: &str) -> Option<Driven> {
        match name {
            "engine" => Some(Driven::Engine),
            "stack" => Some(Driven::Stack),
            _ => None,
        }
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Record {
    /// Of the world, and of what the sectors hold.
    pub seed: u64,
    /// Of the crashes.
    pub crash_seed: u64,
    /// What is driven.
    pub driven: Driven,
    /// Of the image.
    pub format: Format,
    /// Bytes of a sector, which all operations are multiples of.
    pub unit: usize,
    /// Sectors of a block of the logical unit.
    pub block: u64,
    /// Whether writes may stay in a cache until a flush.
    pub write_cache: bool,
    /// Whether the image does its own work all the time, or with operations only.
    pub keeps_house: bool,
    /// Size of the image.
    pub sectors: u64,
    /// Size of what is below.
    pub backing: u64,
    /// Where that is an image: its format, and the size of what is below that.
    pub chain: Option<(Format, u64)>,
    /// What the engine's caches may take, in bytes.
    pub cache: u64,
    /// Whether discarded space is given back.
    pub discard: bool,
    /// Whether what is written is compressed.
    pub compress: bool,
    /// How many operations run side by side.
    pub depth: usize,
    /// The world.
    pub knobs: Knobs,
    /// Steps of the world between two crashes that are tried, on average.
    pub every: u64,
    /// Tried crashes after which the run goes on from the crash, in a million.
    pub fatal: u32,
    /// A bug to be found.
    pub bug: Option<Planted>,
    /// What is done.
    pub ops: Vec<Op>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, crash seed {}", self.seed, self.crash_seed)?;
        writeln!(f, "{:?}, {:?}, below it {:?}", self.driven, self.format, self.chain)?;
        writeln!(
            f,
            "{} sectors of {} bytes ({} a block), backing {}, write cache {}, keeps house {}",
            self.sectors, self.unit, self.block, self.backing, self.write_cache, self.keeps_house
        )?;
        writeln!(
            f,
            "cache {} bytes, discard {}, compress {}, depth {}, a crash in {} steps",
            self.cache, self.discard, self.compress, self.depth, self.every
        )?;
        writeln!(f, "{:?}", self.knobs)?;
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        Ok(())
    }
}

pub(crate) fn one_of<T: Copy>(rng: &mut Rng, values: &[T]) -> T {
    let n = rng.below(values.len() as u64);
    values[usize::try_from(n).unwrap_or(0)]
}

fn format(rng: &mut Rng) -> Format {
    let version = one_of(rng, &[3, 3, 3, 2]);
    let v3 = version == 3;
    let mut cluster_bits = one_of(rng, &[9, 9, 10, 12, 13, 16]);
    let extended_l2 = v3 && rng.chance(150_000);
    if extended_l2 {
        cluster_bits = one_of(rng, &[14, 15, 16]);
    }
    let data_file = v3 && rng.chance(150_000);
    Format {
        version,
        cluster_bits,
        refcount_order: if v3 { one_of(rng, &[4, 4, 0, 1, 2, 3, 5, 6]) } else { 4 },
        extended_l2,
        lazy_refcounts: v3 && rng.chance(100_000),
        data_file,
        below: match rng.below(10) {
            0..3 if !data_file => Below::Raw,
            3..5 if !data_file => Below::Image,
            _ => Below::Nothing,
        },
        bitmaps: (v3 && rng.chance(150_000)).then(|| one_of(rng, &[9, 10, 12, 16])),
        unknown: v3 && rng.chance(100_000),
        filled: filled(rng),
    }
}

/// Of an image that is below another.
fn chain(rng: &mut Rng) -> Format {
    let mut near = format(rng);
    near.below = Below::Base;
    (near.data_file, near.bitmaps) = (false, None);
    near.filled.data = near.filled.data.max(300_000);
    near.filled.preallocated = near.filled.preallocated.min(200_000);
    near
}

fn filled(rng: &mut Rng) -> Filled {
    let mut share = |values: &[u32]| one_of(rng, values);
    match share(&[0, 0, 0, 0, 1, 2, 3]) {
        0 => Filled::default(),
        1 => Filled { preallocated: 1_000_000, ..Filled::default() },
        2 => Filled { compressed: share(&[300_000, 1_000_000]), ..Filled::default() },
        _ => Filled {
            data: share(&[100_000, 400_000]),
            preallocated: share(&[0, 100_000]),
            zero: share(&[0, 200_000]),
            compressed: share(&[0, 200_000]),
        },
    }
}

fn faults(knobs: &mut Knobs, sectors: u64, rng: &mut Rng) {
    if rng.chance(150_000) {
        knobs.write_error = one_of(rng, &[0, 500, 10_000]);
        knobs.read_error = one_of(rng, &[0, 500, 5000]);
        knobs.allocate_error = one_of(rng, &[0, 500, 20_000]);
        knobs.sync_error = one_of(rng, &[0, 0, 5000]);
    }
    if rng.chance(80_000) {
        knobs.space = (sectors * 512 * (20 + rng.below(90)) / 100).max(64 << 10);
    }
    if rng.chance(40_000) {
        knobs.hang = one_of(rng, &[300, 3000]);
    }
}

impl Record {
    /// What a seed draws.
    pub fn drawn(seed: u64) -> Record {
        let drawn = one_of(&mut Rng::new(seed), &[Driven::Engine, Driven::Engine, Driven::Stack]);
        Record::drawn_for(seed, drawn)
    }

    /// What a seed draws for this to be driven.
    pub fn drawn_for(seed: u64, driven: Driven) -> Record {
        let rng = &mut Rng::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(77));
        let format = format(rng);
        let mut unit = one_of(rng, &[512, 512, 512, 64]);
        let mut block = one_of(rng, &[1, 1, 8]);
        match driven {
            Driven::Engine => block = 1,
            Driven::Stack => unit = 512,
        }
        let cluster = (1u64 << format.cluster_bits) / unit as u64;
        // Some clusters, and not more than is soon read after each crash.
        let sectors = (cluster * (4 + rng.below(60))).clamp(64, (cluster * 6).max(512));
        let sectors = (sectors + rng.below(2) * rng.below(16)).next_multiple_of(8);
        let backing = match format.below {
            Below::Nothing => 0,
            _ => rng.below(sectors * 3 / 2) + 1,
        };
        // An image has whole sectors.
        let backing = if unit == 512 { backing } else { backing.next_multiple_of(8) };
        let chain = (format.below == Below::Image)
            .then(|| (chain(rng), (rng.below(backing * 2) + 1).next_multiple_of(8)));
        let mut knobs = Knobs::drawn(rng);
        faults(&mut knobs, sectors, rng);
        let mut record = Record {
            seed,
            crash_seed: rng.draw(),
            driven,
            format,
            unit,
            block,
            write_cache: driven == Driven::Engine || rng.chance(800_000),
            keeps_house: rng.chance(500_000),
            sectors,
            backing,
            chain,
            cache: one_of(rng, &[0, 4096, 16384, 1 << 20]),
            discard: driven == Driven::Stack || rng.chance(700_000),
            compress: !format.data_file && rng.chance(150_000),
            depth: one_of(rng, &[1, 2, 4, 8, 16, 32]),
            knobs,
            every: one_of(rng, &[1, 3, 8, 20]),
            fatal: one_of(rng, &[500, 5000, 30_000]),
            bug: None,
            ops: Vec::new(),
        };
        let mut mix = Mix::drawn(rng);
        if driven == Driven::Stack || format.data_file {
            mix.snapshots = 0;
        }
        if rng.chance(100_000) {
            record.churn(&mut mix, rng);
        }
        record.draw_ops(&mix, rng);
        record
    }

    /// Clusters are given up and used again all the time, under reads that take long.
    fn churn(&mut self, mix: &mut Mix, rng: &mut Rng) {
        self.discard = true;
        self.depth = one_of(rng, &[16, 32]);
        self.every = 20;
        self.fatal = 500;
        self.knobs.slow_read = 500_000;
        self.knobs.inline = one_of(rng, &[100_000, 500_000]);
        let clusters = one_of(rng, &[1, 2, 6]);
        let longest = (clusters << self.format.cluster_bits) / self.unit as u64;
        *mix = Mix {
            count: 400,
            longest: longest.max(1),
            hot: 0,
            cancels: 0,
            resizes: 0,
            reopens: 0,
            shares: [8, 3, 6, 2, 0, 10],
            ..*mix
        };
    }

    /// Whether it has snapshots made.
    pub fn has_snapshots(&self) -> bool {
        self.ops.iter().any(|op| matches!(op.kind, Kind::Snapshot(..)))
    }

    /// Whether the size of the disk may change.
    pub fn changes_size(&self) -> bool {
        let changes = |op: &Op| matches!(op.kind, Kind::Resize(_) | Kind::Snapshot(..));
        self.ops.iter().any(changes)
    }

    /// Whether operations may fail.
    pub fn is_faulty(&self) -> bool {
        let Knobs { write_error, read_error, sync_error, allocate_error, space, .. } = self.knobs;
        write_error + read_error + sync_error + allocate_error > 0 || space != u64::MAX
    }

    /// A range of whole blocks in `size` sectors.
    fn range(&self, mix: &Mix, size: u64, rng: &mut Rng) -> Range<u64> {
        let spot = rng.below(size / 4 + 1);
        let start = if rng.chance(mix.hot) { spot } else { rng.below(size) };
        let end = (start + 1 + rng.below(mix.longest)).min(size);
        start / self.block * self.block..end.next_multiple_of(self.block)
    }

    /// A size that a resize asks for. A logical unit never cuts its image: that only grows.
    fn size(&self, size: u64, rng: &mut Rng) -> u64 {
        let drawn = one_of(rng, &[size / 2, size + size / 3, self.sectors]).clamp(8, 3000);
        let drawn = drawn.next_multiple_of(8);
        match self.driven {
            Driven::Engine => drawn,
            Driven::Stack => drawn.max(size),
        }
    }

    fn draw_ops(&mut self, mix: &Mix, rng: &mut Rng) {
        let mut size = self.sectors;
        for number in 2..2 + mix.count {
            let range = self.range(mix, size, rng);
            let kind = if rng.chance(mix.snapshots) {
                let what = [Saving::Create, Saving::Create, Saving::Apply, Saving::Delete];
                Kind::Snapshot(one_of(rng, &what), u32::try_from(rng.below(8)).unwrap_or(0))
            } else if rng.chance(mix.resizes) {
                size = self.size(size, rng);
                Kind::Resize(size)
            } else if rng.chance(mix.reopens) {
                Kind::Reopen
            } else {
                self.kind(mix, range, rng)
            };
            let apply = matches!(kind, Kind::Snapshot(Saving::Apply, _));
            let alone = matches!(kind, Kind::Resize(_) | Kind::Reopen);
            let cancel = (!alone && !apply && rng.chance(mix.cancels)).then(|| {
                let scale = one_of(rng, &[20_000, 300_000, 20_000_000]);
                rng.below(scale)
            });
            self.ops.push(Op { number, kind, cancel });
        }
    }

    fn kind(&self, mix: &Mix, range: Range<u64>, rng: &mut Rng) -> Kind {
        let stack = self.driven == Driven::Stack;
        match mix.share(rng) {
            0 => Kind::Read(range),
            1 => Kind::Flush,
            2 => Kind::Discard(range),
            3 => Kind::Zero(range, rng.chance(500_000)),
            4 if rng.chance(200_000) => Kind::Map(range.start),
            4 if stack && rng.chance(500_000) => Kind::Repeat(range),
            4 if stack => {
                let end = range.end.min(range.start + 8);
                Kind::CompareAndWrite(range.start..end, rng.chance(800_000))
            }
            _ => Kind::Write(range, rng.chance(mix.durable)),
        }
    }
}
