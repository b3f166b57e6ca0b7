// SPDX-License-Identifier: Apache-2.0
//! What is done to an image: drawn from a seed once, kept as a list that can be cut and run again.
use std::fmt;
use std::ops::Range;

use io_engine::sim::{Knobs, Rng};

use crate::crash::image::Format;
use crate::crash::storage::Planted;

/// What is asked of the image; sectors of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads and judges.
    Read(Range<u64>),
    /// Writes.
    Write(Range<u64>),
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
    /// Closes and opens again.
    Reopen,
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

/// A whole run.
#[derive(Clone, Debug)]
pub struct Record {
    /// Of the world, and of what the sectors hold.
    pub seed: u64,
    /// Of the crashes.
    pub crash_seed: u64,
    /// Of the image.
    pub format: Format,
    /// Size of the image.
    pub sectors: u64,
    /// Size of the backing file.
    pub backing: u64,
    /// What the engine's caches may take, in bytes.
    pub cache: u64,
    /// Whether discarded space is given back.
    pub discard: bool,
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
        writeln!(f, "{:?}", self.format)?;
        writeln!(
            f,
            "{} sectors, backing {}, cache {} bytes, discard {}, depth {}, a crash in {} steps",
            self.sectors, self.backing, self.cache, self.discard, self.depth, self.every
        )?;
        writeln!(f, "{:?}", self.knobs)?;
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        Ok(())
    }
}

fn one_of<T: Copy>(rng: &mut Rng, values: &[T]) -> T {
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
        backing: !data_file && rng.chance(400_000),
    }
}

impl Record {
    /// What a seed draws.
    pub fn drawn(seed: u64) -> Record {
        let rng = &mut Rng::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(77));
        let format = format(rng);
        let cluster = 1u64 << (format.cluster_bits - 9);
        let sectors =
            (cluster * (4 + rng.below(60))).clamp(64, 2048) + rng.below(2) * rng.below(16);
        let backing = if format.backing { rng.below(sectors * 3 / 2) + 1 } else { 0 };
        let mut knobs = Knobs::drawn(rng);
        if rng.chance(150_000) {
            knobs.write_error = one_of(rng, &[0, 500, 10_000]);
            knobs.read_error = one_of(rng, &[0, 500, 5000]);
            knobs.allocate_error = one_of(rng, &[0, 500, 20_000]);
            knobs.sync_error = one_of(rng, &[0, 0, 5000]);
        }
        if rng.chance(80_000) {
            knobs.space = (sectors * 512 * (20 + rng.below(90)) / 100).max(64 << 10);
        }
        let mut record = Record {
            seed,
            crash_seed: rng.draw(),
            format,
            sectors,
            backing,
            cache: one_of(rng, &[0, 4096, 16384, 1 << 20]),
            discard: rng.chance(700_000),
            depth: one_of(rng, &[1, 2, 4, 8, 16, 32]),
            knobs,
            every: one_of(rng, &[1, 3, 8, 20]),
            fatal: one_of(rng, &[500, 5000, 30_000]),
            bug: None,
            ops: Vec::new(),
        };
        record.draw_ops(rng);
        record
    }

    fn draw_ops(&mut self, rng: &mut Rng) {
        let count = one_of(rng, &[10, 40, 150, 400]);
        let longest = one_of(rng, &[1, 8, 64, 300]);
        let hot = one_of(rng, &[0, 500_000, 900_000]);
        let cancels = one_of(rng, &[0, 0, 50_000, 300_000]);
        let resizes = one_of(rng, &[0, 0, 20_000, 100_000]);
        let reopens = one_of(rng, &[0, 5000, 50_000]);
        let shares: Vec<u64> = (0..6).map(|_| rng.below(10)).collect();
        let total: u64 = shares.iter().sum::<u64>() + 10;
        let mut size = self.sectors;
        for number in 2..2 + count {
            let spot = rng.below(size / 4 + 1);
            let start = if rng.chance(hot) { spot } else { rng.below(size) };
            let range = start..(start + 1 + rng.below(longest)).min(size);
            let mut drawn = rng.below(total);
            let mut share = 0;
            while share < shares.len() && drawn >= shares[share] {
                drawn -= shares[share];
                share += 1;
            }
            let kind = if rng.chance(resizes) {
                size = one_of(rng, &[size / 2, size + size / 3, self.sectors]).clamp(8, 3000);
                Kind::Resize(size)
            } else if rng.chance(reopens) {
                Kind::Reopen
            } else {
                match share {
                    0 => Kind::Read(range),
                    1 | 2 => Kind::Flush,
                    3 => Kind::Discard(range),
                    4 => Kind::Zero(range, rng.chance(500_000)),
                    5 if rng.chance(200_000) => Kind::Map(start),
                    _ => Kind::Write(range),
                }
            };
            let alone = matches!(kind, Kind::Resize(_) | Kind::Reopen);
            let cancel = (!alone && rng.chance(cancels)).then(|| {
                let scale = one_of(rng, &[20_000, 300_000, 20_000_000]);
                rng.below(scale)
            });
            self.ops.push(Op { number, kind, cancel });
        }
    }
}
