// SPDX-License-Identifier: Apache-2.0
//! What a disk has done: operations, bytes, how long they waited, what failed.
//!
//! Counting an operation takes a few instructions. The clock is read only for operations that do
//! not end at once (their first poll): these wait for a device, a server or another thread, and
//! what two readings of the clock cost does not show there. The others are counted as immediate.
//!
//! One thread counts, that of the disk; any may look, also while that one hangs.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Error, ErrorClass};

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Flush,
    /// Discards.
    Discard,
    /// Ranges made zero by the store itself; where zeroes are written, these are writes.
    Zero,
}

impl Kind {
    /// All of them, each at its index.
    pub const ALL: [Kind; 5] = [Kind::Read, Kind::Write, Kind::Flush, Kind::Discard, Kind::Zero];

    /// As it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Flush => "flush",
            Kind::Discard => "discard",
            Kind::Zero => "zero",
        }
    }
}

/// How many buckets a histogram has.
pub const BUCKETS: usize = 32;

/// What operations of one kind have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// How many have succeeded.
    pub count: u64,
    /// How many bytes they concerned.
    pub bytes: u64,
    /// How many of them had to wait, by how long that was: bucket 0 for less than 1 µs, bucket n
    /// for 2^(n-1) µs or more and less than 2^n µs, the last one for all that is longer. What is
    /// missing to `count` had not to wait.
    pub waited: [u64; BUCKETS],
    /// For how long they have waited together, in microseconds.
    pub waited_us: u64,
}

impl Operations {
    /// How many ended at once.
    pub fn immediate(&self) -> u64 {
        self.count.saturating_sub(self.waited.iter().sum())
    }
}

/// What a disk has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By [`Kind`].
    pub operations: [Operations; Kind::ALL.len()],
    /// How many operations failed, by [`ErrorClass`].
    pub errors: [u64; ErrorClass::COUNT],
}

/// The counters of one disk, or of several on one thread, one after the other.
#[derive(Debug, Default)]
pub struct Statistics {
    operations: [Counters; Kind::ALL.len()],
    errors: [Counter; ErrorClass::COUNT],
}

#[derive(Debug, Default)]
struct Counters {
    count: Counter,
    bytes: Counter,
    waited: [Counter; BUCKETS],
    waited_us: Counter,
}

/// A number that one thread alone adds to, so that no step of a processor has to be exclusive, and that
/// any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, on the thread that does.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// As it is now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Statistics {
    /// Counts an operation; `waited` unless it ended at once.
    #[inline]
    pub(crate) fn count<T>(
        &self,
        kind: Kind,
        bytes: u64,
        waited: Option<Duration>,
        result: &Result<T, Error>,
    ) {
        if let Err(error) = result {
            return self.failed(error.class());
        }
        let counters = &self.operations[kind as usize];
        counters.count.add(1);
        counters.bytes.add(bytes);
        if let Some(waited) = waited {
            let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
            counters.waited[bucket(micros)].add(1);
            counters.waited_us.add(micros);
        }
    }

    #[cold]
    fn failed(&self, class: ErrorClass) {
        self.errors[class as usize].add(1);
    }

    /// All counters as they are now. Of an operation that ends meanwhile, some may be counted.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (to, from) in snapshot.operations.iter_mut().zip(&self.operations) {
            to.count = from.count.get();
            to.waited_us = from.waited_us.get();
            to.bytes = from.bytes.get();
            for (to, from) in to.waited.iter_mut().zip(&from.waited) {
                *to = from.get();
            }
        }
        for (to, from) in snapshot.errors.iter_mut().zip(&self.errors) {
            *to = from.get();
        }
        snapshot
    }
}

fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_twice_as_wide_as_the_one_before() {
        for (micros, at) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11)] {
            assert_eq!(bucket(micros), at, "{micros}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn kinds_are_at_their_index() {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
        }
    }
}
