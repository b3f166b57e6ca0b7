// SPDX-License-Identifier: Apache-2.0
//! Ranges of guest clusters, or of entries of the L1 table, whose mapping is being changed. A
//! second operation that wants to change it waits for the first, and looks again.
use std::cell::{Cell, RefCell};
use std::ops::Range;

use crate::wait::{Event, Jobs};

/// See the module's text.
#[derive(Default)]
pub(crate) struct Busy {
    ranges: RefCell<Vec<(u64, Range<u64>)>>,
    next: Cell<u64>,
    released: Event,
}

/// A range that nobody else changes.
pub(crate) struct Locked<'a> {
    busy: &'a Busy,
    id: u64,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.busy.ranges.borrow_mut().retain(|(id, _)| *id != self.id);
        self.busy.released.notify();
    }
}

impl Busy {
    /// Whether the mapping of `number` is being changed.
    pub(crate) fn is_locked(&self, number: u64) -> bool {
        self.ranges.borrow().iter().any(|(_, range)| range.contains(&number))
    }

    /// Waits until nobody changes a part of `range`.
    pub(crate) async fn lock(&self, jobs: &Jobs, range: Range<u64>) -> Locked<'_> {
        let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        while self.ranges.borrow().iter().any(|(_, other)| overlaps(other)) {
            jobs.wait(&self.released).await;
        }
        let id = self.next.get();
        self.next.set(id + 1);
        self.ranges.borrow_mut().push((id, range));
        Locked { busy: self, id }
    }
}
