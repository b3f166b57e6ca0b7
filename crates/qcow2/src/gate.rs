// SPDX-License-Identifier: Apache-2.0
//! Every operation on guest data is inside the gate from before it looks at a mapping until it has
//! ended.
//!
//! Rule: **nothing in flight reaches a cluster that changed hands.** A cluster that was unmapped in
//! one generation is not touched before the generation two later: by then all operations that may
//! have seen the mapping have ended. Work that needs the image for itself closes the gate.
use std::cell::Cell;
use std::rc::Rc;

use crate::core::Core;
use crate::storage::Storage;
use crate::wait::Event;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Gate {
    generation: Cell<u64>,
    /// Operations that began in an even, and in an odd generation.
    inside: [Cell<usize>; 2],
    closed: Cell<bool>,
    /// It was opened, or an operation ended while it was closed.
    event: Event,
}

/// An operation that is inside.
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    generation: u64,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let count = &self.gate.inside[(self.generation & 1) as usize];
        count.set(count.get() - 1);
        if self.gate.closed.get() {
            self.gate.event.notify();
        }
    }
}

/// The gate is closed while this exists, and nobody is inside.
pub(crate) struct Exclusive<S: Storage + 'static>(Rc<Core<S>>);

impl<S: Storage + 'static> Drop for Exclusive<S> {
    fn drop(&mut self) {
        self.0.gate.closed.set(false);
        self.0.gate.event.notify();
    }
}

impl Gate {
    /// The present generation; a new one begins where that may be.
    pub(crate) fn generation(&self) -> u64 {
        let now = self.generation.get();
        if self.inside[((now + 1) & 1) as usize].get() == 0 {
            self.generation.set(now + 1);
        }
        now
    }

    /// Whether no operation is left that began in or before a generation.
    pub(crate) fn has_passed(&self, generation: u64) -> bool {
        // With nobody inside two steps are possible at once.
        self.generation();
        self.generation();
        self.generation.get() >= generation + 2
    }

    /// `exempt` is who has closed it.
    #[inline]
    fn try_enter(&self, exempt: bool) -> Option<Inside<'_>> {
        if self.closed.get() && !exempt {
            return None;
        }
        // Not the generation of what was unmapped before, where that may be: who waits for space
        // in here would keep it from being freed.
        self.generation();
        let generation = self.generation.get();
        let count = &self.inside[(generation & 1) as usize];
        count.set(count.get() + 1);
        Some(Inside { gate: self, generation })
    }
}

impl<S: Storage + 'static> Core<S> {
    /// Enters if the gate is open.
    #[inline]
    pub(crate) fn try_enter(&self) -> Option<Inside<'_>> {
        // Work that has the image for itself is done in jobs.
        self.gate.try_enter(self.jobs.is_running())
    }

    /// Waits until the gate is open, and enters.
    pub(crate) async fn enter(&self) -> Inside<'_> {
        loop {
            if let Some(inside) = self.try_enter() {
                return inside;
            }
            self.jobs.wait(&self.gate.event).await;
        }
    }

    /// Closes the gate, and waits until nobody is inside.
    pub(crate) async fn exclude(&self) -> Exclusive<S> {
        while self.gate.closed.get() {
            self.jobs.wait(&self.gate.event).await;
        }
        self.gate.closed.set(true);
        let exclusive = Exclusive(self.rc());
        while self.gate.inside.iter().any(|count| count.get() > 0) {
            self.jobs.wait(&self.gate.event).await;
        }
        exclusive
    }
}
