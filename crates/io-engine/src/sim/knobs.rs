// SPDX-License-Identifier: Apache-2.0
//! How unkind a world is.
use super::Kind;
use super::rng::Rng;

/// What happens to operations: chances are in a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Reads and writes that are done in the first poll, as from the page cache.
    pub inline: u32,
    /// Operations that take milliseconds in place of microseconds.
    pub slow: u32,
    /// Reads that take longer than anything else but what is very slow.
    pub slow_read: u32,
    /// Operations that take seconds to minutes.
    pub very_slow: u32,
    /// Operations that never end.
    pub hang: u32,
    /// Turns in which the clock leaps by seconds to hours: as of a machine that was asleep, or a
    /// thread that was not scheduled.
    pub leap: u32,
    /// Longer transfers that happen in parts.
    pub split: u32,
    /// Transfers that end early.
    pub short: u32,
    /// Reads that fail (EIO).
    pub read_error: u32,
    /// Writes that fail after a part of them (EIO).
    pub write_error: u32,
    /// Syncs that fail and lose pages (EIO).
    pub sync_error: u32,
    /// Holes and zeroes that fail (EIO).
    pub allocate_error: u32,
    /// Bytes that all files together can take; more is ENOSPC.
    pub space: u64,
    /// Bytes that a file can be long; more is EFBIG.
    pub longest: u64,
    /// Whether holes can be punched and ranges zeroed; else EOPNOTSUPP.
    pub punches: bool,
}

impl Knobs {
    /// A world where nothing fails and all is quick, in no particular order.
    pub const CALM: Knobs = Knobs {
        inline: 500_000,
        slow: 0,
        slow_read: 0,
        very_slow: 0,
        hang: 0,
        leap: 0,
        split: 100_000,
        short: 0,
        read_error: 0,
        write_error: 0,
        sync_error: 0,
        allocate_error: 0,
        space: u64::MAX,
        longest: 1 << 60,
        punches: true,
    };

    /// Where all is done at once: for judging what was found.
    pub const INSTANT: Knobs = Knobs { inline: 1_000_000, split: 0, ..Knobs::CALM };

    /// As a seed draws it: delays, parts and short transfers; no errors.
    pub fn drawn(rng: &mut Rng) -> Knobs {
        let mut one_of = |values: &[u32]| {
            let n = rng.below(values.len() as u64);
            values[usize::try_from(n).unwrap_or(0)]
        };
        Knobs {
            inline: one_of(&[0, 100_000, 500_000, 900_000, 990_000]),
            slow: one_of(&[0, 10_000, 200_000, 600_000]),
            slow_read: one_of(&[0, 0, 0, 0, 400_000]),
            very_slow: one_of(&[0, 0, 1000, 20_000]),
            leap: one_of(&[0, 0, 0, 300, 20_000]),
            split: one_of(&[0, 50_000, 500_000]),
            short: one_of(&[0, 1000, 50_000]),
            punches: one_of(&[1, 1, 1, 0]) == 1,
            ..Knobs::CALM
        }
    }

    /// How far the clock leaps in a turn, in nanoseconds.
    pub(super) fn leap(&self, rng: &mut Rng) -> u64 {
        if !rng.chance(self.leap) {
            return 0;
        }
        let most = if rng.draw() & 1 == 0 { 10 } else { 4 * 3600 };
        rng.below(most * 1_000_000_000)
    }

    /// How long an operation takes, in nanoseconds; `None`: for ever.
    pub(super) fn delay(&self, rng: &mut Rng, kind: Kind) -> Option<u64> {
        if rng.chance(self.hang) {
            return None;
        }
        if kind == Kind::Read && rng.chance(self.slow_read) {
            return Some(rng.below(500_000_000));
        }
        if rng.chance(self.very_slow) {
            return Some(1_000_000_000 + rng.below(120_000_000_000));
        }
        if rng.chance(self.slow) {
            return Some(rng.below(20_000_000));
        }
        Some(rng.below(100_000))
    }
}

/// What a loss of power leaves of the changes since the last sync, sector by sector (512 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Each with this chance in a million.
    Sectors(u32),
    /// Pages, with this chance in a million, each as it was at a moment of its own.
    Pages(u32),
    /// Those before a moment.
    Prefix,
    /// All but those of one sector.
    AllButOneSector,
    /// Those of one sector.
    OneSector,
}

impl Power {
    /// As a seed draws it.
    pub fn drawn(rng: &mut Rng) -> Power {
        match rng.below(10) {
            0 => Power::Nothing,
            1 => Power::Everything,
            2 => Power::Sectors(500_000),
            3 => Power::Sectors(100_000),
            4 => Power::Sectors(900_000),
            5 => Power::Pages(500_000),
            6 => Power::Pages(900_000),
            7 => Power::Prefix,
            8 => Power::AllButOneSector,
            _ => Power::OneSector,
        }
    }
}
