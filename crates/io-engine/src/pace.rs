//! Whether a file's buffered writes are fast enough to be done on the engine's own thread.
//!
//! A buffered write is a copy to the page cache: 1 to 10 us, less than the way through io_uring's
//! workers takes (ext4 on Linux 6.1 has no buffered writes without waiting, so io_uring gives each
//! one to a worker). But the kernel makes writers wait when too much is dirty, and a file system
//! that is slow or frozen makes them wait at any time; a device whose commands then wait one
//! after the other is as slow as if its queue depth were 1. So writes are done inline until one
//! takes long, and go through the driver for a second from then on.
//!
//! Time is taken from the coarse clock, whose reading costs a few instructions on every clock
//! source but which advances in ticks of 1 to 10 ms. A write is slow when two ticks went by while
//! it ran, or one in each of two writes in a row.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How long writes go through the driver after a slow one, in nanoseconds.
const COOL_DOWN: u64 = 1_000_000_000;

/// The pace of one file. Shared by nobody in truth: atomics make it `Sync` at no cost.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Until when writes are not inline, by the coarse clock; 0: they are.
    slow_until: AtomicU64,
    /// Whether the clock ticked during the last inline write.
    ticked: AtomicBool,
}

/// The coarse clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::MonotonicCoarse))
}

fn nanoseconds(time: Timespec) -> u64 {
    let (seconds, rest) = (time.tv_sec.cast_unsigned(), time.tv_nsec);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(rest).unwrap_or(0))
}

/// The tick of the coarse clock, in nanoseconds.
pub(crate) fn tick() -> u64 {
    use std::sync::OnceLock;
    static TICK: OnceLock<u64> = OnceLock::new();
    *TICK.get_or_init(|| nanoseconds(rustix::time::clock_getres(ClockId::MonotonicCoarse)).max(1))
}

impl Pace {
    /// Whether a write that begins `now` is done inline.
    pub(crate) fn inline(&self, now: u64) -> bool {
        let until = self.slow_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        if now < until {
            return false;
        }
        self.slow_until.store(0, Relaxed);
        self.ticked.store(false, Relaxed);
        true
    }

    /// An inline write ran from `begin` to `end`.
    pub(crate) fn took(&self, begin: u64, end: u64, tick: u64) {
        if begin == end {
            if self.ticked.load(Relaxed) {
                self.ticked.store(false, Relaxed);
            }
            return;
        }
        if end.saturating_sub(begin) >= 2 * tick || self.ticked.load(Relaxed) {
            self.slow_until.store(end + COOL_DOWN, Relaxed);
            return;
        }
        self.ticked.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 4_000_000;
    const START: u64 = 1000 * TICK;

    #[test]
    fn fast_writes_stay_inline_even_across_a_tick() {
        let pace = Pace::default();
        for i in 0..100 {
            let now = START + i * TICK;
            assert!(pace.inline(now));
            pace.took(now, now, TICK);
            pace.took(now, now + TICK, TICK);
            pace.took(now + TICK, now + TICK, TICK);
        }
        assert!(pace.inline(START));
    }

    #[test]
    fn a_slow_write_sends_the_next_ones_away_for_a_second() {
        let pace = Pace::default();
        pace.took(START, START + 2 * TICK, TICK);
        let end = START + 2 * TICK;
        assert!(!pace.inline(end));
        assert!(!pace.inline(end + COOL_DOWN - 1));
        assert!(pace.inline(end + COOL_DOWN));
        assert!(pace.inline(end + COOL_DOWN));
    }

    #[test]
    fn two_writes_in_a_row_that_each_see_a_tick_are_slow() {
        let pace = Pace::default();
        pace.took(START, START + TICK, TICK);
        assert!(pace.inline(START + TICK));
        pace.took(START + TICK, START + 2 * TICK, TICK);
        assert!(!pace.inline(START + 2 * TICK));
    }

    #[test]
    fn the_coarse_clock_advances() {
        let (begin, tick) = (now(), tick());
        assert!((500_000..=20_000_000).contains(&tick), "{tick}");
        std::thread::sleep(std::time::Duration::from_nanos(3 * tick));
        assert!(now() >= begin + 2 * tick);
    }
}
