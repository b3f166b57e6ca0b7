// SPDX-License-Identifier: Apache-2.0
//! Memory for operations that need more than the buffer they come with (a comparison, a copy, an
//! emulated zeroing). A disk has [`SLOTS`] buffers of at most [`CHUNK`] bytes, so that no number of
//! queued operations makes it take more.
//!
//! Order of locks: a buffer first, a range then. Whoever holds a range never waits for a buffer.
use std::cell::Cell;

use sgl::Sgl;

use crate::range_lock::{Access, Guard, RangeLock};

/// The largest buffer, in bytes; longer ranges are worked on piece by piece.
pub const CHUNK: usize = 1 << 20;
/// How many buffers there are at a time.
const SLOTS: u64 = 4;

/// The buffers of one disk.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    slots: RangeLock,
    next: Cell<u64>,
}

/// The right to memory of at most [`CHUNK`] bytes, until it is dropped.
#[derive(Debug)]
#[must_use = "another may take the memory when it is dropped"]
pub struct Slot<'a> {
    _guard: Guard<'a>,
}

/// A buffer, until it is dropped.
#[derive(Debug)]
pub struct Buffer<'a> {
    memory: Sgl<'static>,
    _slot: Slot<'a>,
}

impl Scratch {
    /// The right to a buffer, for who brings its memory.
    pub(crate) async fn slot(&self) -> Slot<'_> {
        let slot = self.next.get() % SLOTS;
        self.next.set(slot + 1);
        Slot { _guard: self.slots.lock(slot..slot + 1, Access::Alone).await }
    }

    /// A zeroed buffer of `len` bytes, at most [`CHUNK`].
    pub(crate) async fn get(&self, len: u64) -> Buffer<'_> {
        let slot = self.slot().await;
        let len = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
        Buffer { memory: Sgl::zeroed(len), _slot: slot }
    }
}

impl Buffer<'_> {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "nobody takes an empty one")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// A view of its first `len` bytes, or of all there are.
    pub fn view(&self, len: usize) -> Sgl<'static> {
        self.memory.slice(0..len)
    }
}
