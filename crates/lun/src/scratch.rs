// SPDX-License-Identifier: Apache-2.0
//! Memory of our own for commands that need more than the initiator's buffer (VERIFY, COMPARE AND
//! WRITE, EXTENDED COPY ...). There are [`SLOTS`] buffers of at most [`CHUNK`] bytes for a logical
//! unit, so that no number of queued commands makes it take more.
//!
//! Order of locks: a scratch buffer first, a range of blocks then. Whoever holds a range never
//! waits for a buffer.
use std::cell::Cell;

use sgl::Sgl;

use crate::range_lock::{Guard, RangeLock};

/// The largest buffer, in bytes; longer ranges are worked on piece by piece.
pub(crate) const CHUNK: usize = 1 << 20;
/// How many buffers there are at a time.
const SLOTS: u64 = 4;

/// The buffers of one logical unit.
#[derive(Default)]
pub(crate) struct Scratch {
    slots: RangeLock,
    next: Cell<u64>,
}

/// A buffer, until it is dropped.
pub(crate) struct Buffer<'a> {
    pub(crate) memory: Sgl<'static>,
    _slot: Guard<'a>,
}

impl Scratch {
    /// The right to a buffer of at most [`CHUNK`] bytes, for who brings its memory.
    pub(crate) async fn slot(&self) -> Guard<'_> {
        let slot = self.next.get() % SLOTS;
        self.next.set(slot + 1);
        self.slots.exclusive(slot..slot + 1).await
    }

    /// A zeroed buffer of `len` bytes, at most [`CHUNK`].
    pub(crate) async fn get(&self, len: u64) -> Buffer<'_> {
        let guard = self.slot().await;
        let len = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
        Buffer { memory: Sgl::zeroed(len), _slot: guard }
    }
}

impl Buffer<'_> {
    /// A view of its first `len` bytes, or of all there are.
    pub(crate) fn view(&self, len: usize) -> Sgl<'static> {
        self.memory.slice(0..len)
    }
}
