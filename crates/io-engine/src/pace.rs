// SPDX-License-Identifier: Apache-2.0
//! Whether calls that may block are fast enough to be made on the engine's own thread: a file's
//! buffered writes, say. This text tells of those.
//!
//! A buffered write is a copy to the page cache: 1 to 10 us, less than the way through io_uring's
//! workers takes (ext4 on Linux 6.1 has no buffered writes without waiting, so io_uring gives each
//! one to a worker). But the kernel makes writers wait when too much is dirty, and a file system
//! that is slow or frozen makes them wait at any time; a device whose commands then wait one
//! after the other is as slow as if its queue depth were 1. So:
//!
//! - *Fast*: writes are inline, and the coarse clock is read around each. When two of its ticks
//!   pass during a write, or one in each of two writes in a row, the file becomes suspect.
//! - *Suspect*, for a second: writes are inline and measured exactly. Was there one that took over
//!   2 ms and really waited (a thread whose CPU was taken away did not), then the file is slow.
//! - *Slow*, for a second: writes go through the driver. Then the file is suspect again.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::meter;

/// How long a file is suspect or slow, in nanoseconds.
const TERM: u64 = 1_000_000_000;
/// What a write of a suspect file may take, in nanoseconds.
const LIMIT: u64 = 2_000_000;

/// The pace of one file, or of what else may block: calls that wait for more than 2 ms are to be made
/// elsewhere for a second. One thread uses it; atomics make it `Sync` at no cost.
#[derive(Debug, Default)]
pub struct Pace {
    /// Until when the file is suspect or slow, by the coarse clock; 0: it is fast.
    until: AtomicU64,
    /// Which of the two.
    slow: AtomicBool,
    /// Whether the clock ticked during the last write of a fast file.
    ticked: AtomicBool,
}

/// A call on the thread itself that has begun.
#[derive(Debug)]
pub struct Begun(pub(crate) Start);

#[derive(Debug)]
pub(crate) enum Start {
    /// By the coarse clock.
    Roughly(u64),
    /// By the exact clock, and how often the thread had waited.
    Exactly(u64, libc::c_long),
}

impl Pace {
    /// Begins a call on this thread; `None`: it has to be made elsewhere.
    pub fn begin(&self) -> Option<Begun> {
        let coarse = meter::coarse();
        if self.until.load(Relaxed) == 0 {
            return Some(Begun(Start::Roughly(coarse)));
        }
        match self.verdict(coarse) {
            Verdict::Fast => Some(Begun(Start::Roughly(coarse))),
            Verdict::Suspect => Some(Begun(Start::Exactly(meter::now(), meter::waits()))),
            Verdict::Slow => None,
        }
    }

    /// Ends it.
    pub fn end(&self, begun: Begun) {
        match begun.0 {
            Start::Roughly(begin) => self.took_roughly(begin, meter::coarse(), meter::tick()),
            Start::Exactly(begin, waits) => {
                let took = meter::now().saturating_sub(begin);
                // The second half is a system call: not for each.
                if took > LIMIT && meter::waits() > waits {
                    self.slow.store(true, Relaxed);
                    self.until.store(meter::coarse() + TERM, Relaxed);
                }
            }
        }
    }

    fn verdict(&self, now: u64) -> Verdict {
        let until = self.until.load(Relaxed);
        if now < until {
            return if self.slow.load(Relaxed) { Verdict::Slow } else { Verdict::Suspect };
        }
        if until != 0 && self.slow.load(Relaxed) {
            self.suspect(now);
            return Verdict::Suspect;
        }
        self.until.store(0, Relaxed);
        Verdict::Fast
    }

    fn suspect(&self, now: u64) {
        self.slow.store(false, Relaxed);
        self.ticked.store(false, Relaxed);
        self.until.store(now + TERM, Relaxed);
    }

    fn took_roughly(&self, begin: u64, end: u64, tick: u64) {
        if begin == end {
            if self.ticked.load(Relaxed) {
                self.ticked.store(false, Relaxed);
            }
        } else if end - begin >= 2 * tick || self.ticked.load(Relaxed) {
            self.suspect(end);
        } else {
            self.ticked.store(true, Relaxed);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fast,
    Suspect,
    Slow,
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    const TICK: u64 = 4_000_000;
    const START: u64 = 1000 * TICK;

    #[test]
    fn fast_writes_stay_inline_even_across_a_tick() {
        let pace = Pace::default();
        for i in 0..100 {
            let now = START + i * TICK;
            pace.took_roughly(now, now, TICK);
            pace.took_roughly(now, now + TICK, TICK);
            pace.took_roughly(now + TICK, now + TICK, TICK);
            assert_eq!(pace.verdict(now), Verdict::Fast);
        }
    }

    #[test]
    fn a_long_write_or_two_with_a_tick_each_make_a_file_suspect_for_a_second() {
        let pace = Pace::default();
        pace.took_roughly(START, START + 2 * TICK, TICK);
        let end = START + 2 * TICK;
        assert_eq!(pace.verdict(end + TERM - 1), Verdict::Suspect);
        assert_eq!(pace.verdict(end + TERM), Verdict::Fast);
        pace.took_roughly(end, end + TICK, TICK);
        assert_eq!(pace.verdict(end + TICK), Verdict::Fast);
        pace.took_roughly(end + TICK, end + 2 * TICK, TICK);
        assert_eq!(pace.verdict(end + 2 * TICK), Verdict::Suspect);
    }

    #[test]
    fn a_suspect_file_whose_write_waits_is_slow_for_a_second_and_then_suspect() {
        let pace = Pace::default();
        pace.suspect(meter::coarse());
        let begun = pace.begin().unwrap();
        assert!(matches!(begun, Begun(Start::Exactly(..))));
        sleep(Duration::from_millis(3));
        pace.end(begun);
        assert!(pace.begin().is_none());
        let until = pace.until.load(Relaxed);
        assert_eq!(pace.verdict(until - 1), Verdict::Slow);
        assert_eq!(pace.verdict(until), Verdict::Suspect);
        assert_eq!(pace.verdict(until + TERM), Verdict::Fast);
    }

    #[test]
    fn a_suspect_file_whose_write_only_computed_is_not_slow() {
        let pace = Pace::default();
        pace.suspect(meter::coarse());
        // Until 3 ms were spent with no wait by chance (a page fault, a lock of the allocator).
        let begin = meter::now().saturating_sub(10_000_000);
        pace.end(Begun(Start::Exactly(begin, libc::c_long::MAX)));
        assert!(pace.begin().is_some());
    }
}
