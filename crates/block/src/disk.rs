// SPDX-License-Identifier: Apache-2.0
//! A store made fit for front ends: every [`Store`] in, one behaviour out.
//!
//! - Ranges are checked against the size, again when they are held: it may have changed meanwhile.
//! - Two writes of the same bytes do not interleave; compound operations ([`Disk::lock`]) are
//!   atomic. Reads beside a write may see either.
//! - Where the store wants alignment ([`Facts::request_alignment`]), ends that are not aligned are
//!   read and written by whole units.
//! - A size that is no whole number of the front end's sectors can be rounded up: the rest reads as
//!   zeroes, and the store grows when it is written.
//! - What a store cannot do (zeroing, repeating) is done by writes in pieces through bounded memory.
//! - Without a write cache, what is acknowledged is on stable storage.
//! - Operations, bytes, waiting times and errors are counted.
//!
//! Reads and writes are the data path: they check numbers, note their range, and allocate nothing.
//! Dropping the future of an operation aborts it.
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use sgl::Sgl;

use crate::range_lock::{Guard, RangeLock};
use crate::scratch::{CHUNK, Scratch};
use crate::statistics::{Kind, Snapshot, Statistics};

pub use crate::scratch::{Buffer, Slot};
use crate::{Access, Error, ErrorKind, Event, Facts, Provisioning, Store};

/// Bytes that one call of the store discards or zeroes, so that a large range can be aborted.
const STEP: u64 = 1 << 34;

/// How a front end wants its disk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether writes may stay in a volatile cache until a flush.
    pub write_cache: bool,
    /// The size is rounded up to a multiple of this, in bytes; 1: it stays as it is.
    pub round_up: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { write_cache: true, round_up: 1 }
    }
}

/// A store as front ends see it. It lives on one thread; operations run side by side there.
#[derive(Debug)]
pub struct Disk<S: Store> {
    store: S,
    /// For messages.
    name: String,
    round_up: u64,
    /// The store's, but for the size. As of the opening or the last change.
    facts: RefCell<Facts>,
    /// In bytes, rounded up.
    size: Cell<u64>,
    /// Of the store, in bytes.
    stored: Cell<u64>,
    read_only: Cell<bool>,
    /// The unit of requests, less 1.
    unit_mask: Cell<u64>,
    write_cache: Cell<bool>,
    locks: RangeLock,
    scratch: Scratch,
    statistics: Arc<Statistics>,
}

/// A range that is held until this is dropped. Its operations have to be inside of it.
#[derive(Debug)]
#[must_use = "the range is released when this is dropped"]
pub struct Locked<'a, S: Store> {
    disk: &'a Disk<S>,
    _guard: Guard<'a>,
}

/// Runs an operation of the store and counts it. Its first poll is apart: an operation that ends
/// with it takes no time from the clock.
macro_rules! measured {
    ($disk:expr, $kind:expr, $bytes:expr, $operation:expr) => {{
        let mut operation = pin!($operation);
        let first = poll_fn(|cx| Poll::Ready(operation.as_mut().poll(cx))).await;
        let (result, waited) = match first {
            Poll::Ready(result) => (result, None),
            Poll::Pending => {
                let since = Instant::now();
                let result = operation.await;
                (result, Some(since.elapsed()))
            }
        };
        $disk.statistics.count($kind, $bytes, waited, &result);
        result
    }};
}

/// How a range is made zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zeroing {
    /// The store's `write_zeroes`.
    WriteZeroes,
    /// The store's `discard`, after which it reads as zeroes.
    Discard,
    /// Zeroes are written.
    Write,
}

impl<S: Store> Disk<S> {
    /// The disk of an open store; `name` is for messages.
    pub fn new(store: S, name: impl Into<String>, options: Options) -> Self {
        let disk = Disk {
            name: name.into(),
            round_up: u64::from(options.round_up.max(1)),
            facts: RefCell::new(store.facts()),
            store,
            size: Cell::default(),
            stored: Cell::default(),
            read_only: Cell::default(),
            unit_mask: Cell::default(),
            write_cache: Cell::new(options.write_cache),
            locks: RangeLock::default(),
            scratch: Scratch::default(),
            statistics: Arc::default(),
        };
        disk.look();
        disk
    }

    /// Counts in what others look at, too.
    #[must_use]
    pub fn with_statistics(self, statistics: Arc<Statistics>) -> Self {
        Disk { statistics, ..self }
    }

    /// Takes over what the store says of itself now; whether its size is another one.
    fn look(&self) -> bool {
        let mut facts = self.store.facts();
        self.stored.set(facts.size);
        let rounded = facts.size.checked_next_multiple_of(self.round_up);
        facts.size = rounded.unwrap_or(facts.size);
        self.read_only.set(facts.read_only);
        self.unit_mask.set(u64::from(facts.request_alignment.max(1).next_power_of_two()) - 1);
        let changed = self.size.replace(facts.size) != facts.size;
        *self.facts.borrow_mut() = facts;
        changed
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// What the disk is and can do.
    pub fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// Capacity in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.get()
    }

    /// Whether writes are refused.
    #[inline]
    pub fn read_only(&self) -> bool {
        self.read_only.get()
    }

    /// Whether there is a volatile write cache.
    #[inline]
    pub fn write_cache(&self) -> bool {
        self.write_cache.get()
    }

    /// Turns the volatile write cache on or off, and says how it was. Turning it off flushes
    /// nothing by itself: call [`flush`](Self::flush).
    pub fn set_write_cache(&self, on: bool) -> bool {
        self.write_cache.replace(on)
    }

    /// What it has done since it was opened.
    pub fn statistics(&self) -> Snapshot {
        self.statistics.snapshot()
    }

    /// A zeroed buffer for what needs more memory than came with it: `len` bytes, at most
    /// [`CHUNK`]. Take it before you lock a range.
    pub async fn buffer(&self, len: u64) -> Buffer<'_> {
        self.scratch.get(len).await
    }

    /// The right to so much memory, for who brings it; the same.
    pub async fn slot(&self) -> Slot<'_> {
        self.scratch.slot().await
    }

    /// Waits until something happens to the store that nobody here has done. A new size has been
    /// taken over when this returns, operations beside it being finished.
    pub async fn event(&self) -> Event {
        let event = self.store.event().await;
        if let Event::Resized = event {
            let _alone = self.locks.lock(0..u64::MAX, Access::Alone).await;
            self.look();
        }
        event
    }

    #[cold]
    fn error(&self, kind: ErrorKind, operation: &str) -> Error {
        Error::new(kind, operation, &self.name)
    }

    #[cold]
    fn out_of_bounds(&self) -> Error {
        self.error(ErrorKind::OutOfBounds { size: self.size.get() }, "find a range")
    }

    fn writable(&self) -> Result<(), Error> {
        if self.read_only.get() { Err(self.error(ErrorKind::ReadOnly, "write")) } else { Ok(()) }
    }

    /// Holds a range, in bytes, for several operations: nobody does meanwhile what `access`
    /// excludes.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`].
    #[inline]
    pub async fn lock(&self, range: Range<u64>, access: Access) -> Result<Locked<'_, S>, Error> {
        let end = range.end;
        let _guard = self.hold(range, access).await;
        if end > self.size.get() {
            return Err(self.out_of_bounds());
        }
        Ok(Locked { disk: self, _guard })
    }

    /// Holds the whole units that a range touches.
    #[inline]
    async fn hold(&self, range: Range<u64>, access: Access) -> Guard<'_> {
        let mask = self.unit_mask.get();
        let range = range.start & !mask..range.end.saturating_add(mask) & !mask;
        match self.locks.try_lock(range.clone(), access) {
            Some(guard) => guard,
            None => self.locks.lock(range, access).await,
        }
    }

    /// The range of a buffer.
    #[inline]
    fn range(&self, offset: u64, len: u64) -> Result<Range<u64>, Error> {
        match offset.checked_add(len) {
            Some(end) => Ok(offset..end),
            None => Err(self.out_of_bounds()),
        }
    }

    /// Holds the range of a request that the store can be given as it is, if that can be done at
    /// once.
    #[inline]
    fn begin(&self, offset: u64, len: u64, access: Access) -> Option<Guard<'_>> {
        let end = offset.checked_add(len)?;
        if (offset | len) & self.unit_mask.get() != 0 || end > self.stored.get() {
            return None;
        }
        self.locks.try_lock(offset..end, access)
    }

    /// Fills the buffer.
    #[inline]
    pub async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let len = data.len() as u64;
        let Some(_guard) = self.begin(offset, len, Access::Read) else {
            return Box::pin(self.read_slowly(data, offset)).await;
        };
        measured!(self, Kind::Read, len, self.store.read(data, offset))
    }

    #[cold]
    async fn read_slowly(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let range = self.range(offset, data.len() as u64)?;
        self.lock(range, Access::Read).await?.read(data, offset).await
    }

    /// Writes the buffer; it is on stable storage with `fua` or without a write cache.
    #[inline]
    pub async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        let len = data.len() as u64;
        if self.read_only.get() {
            return self.writable();
        }
        let Some(_guard) = self.begin(offset, len, Access::Write) else {
            return Box::pin(self.write_slowly(data, offset, fua)).await;
        };
        let durable = fua || !self.write_cache.get();
        measured!(self, Kind::Write, len, self.store.write(data, offset, durable))
    }

    #[cold]
    async fn write_slowly(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        let range = self.range(offset, data.len() as u64)?;
        self.lock(range, Access::Write).await?.write(data, offset, fua).await
    }

    /// Brings everything acknowledged to stable storage.
    pub async fn flush(&self) -> Result<(), Error> {
        measured!(self, Kind::Flush, 0, self.store.flush())
    }

    /// After changes that are not writes.
    async fn settle(&self) -> Result<(), Error> {
        if self.write_cache.get() { Ok(()) } else { self.flush().await }
    }

    /// Gives up the space of ranges, as [`Facts::discard`] says; there has to be such a fact.
    pub async fn discard(&self, ranges: &[Range<u64>]) -> Result<(), Error> {
        self.writable()?;
        for range in ranges {
            let locked = self.lock(range.clone(), Access::Write).await?;
            locked.discard(range.clone()).await?;
        }
        self.settle().await
    }

    /// Makes a range read as zeroes; with `may_unmap` its space may be given up.
    pub async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        let range = self.range(offset, len)?;
        self.writable()?;
        match self.zeroing(may_unmap) {
            Zeroing::WriteZeroes => {
                let locked = self.lock(range.clone(), Access::Write).await?;
                locked.zero(range, may_unmap).await?;
            }
            Zeroing::Discard => {
                let locked = self.lock(range.clone(), Access::Write).await?;
                locked.discard(range).await?;
            }
            Zeroing::Write => return self.fill(range, None).await,
        }
        self.settle().await
    }

    /// Whether zeroing is cheaper than writing zeroes.
    pub fn zeroes_cheaply(&self, may_unmap: bool) -> bool {
        self.zeroing(may_unmap) != Zeroing::Write
    }

    fn zeroing(&self, may_unmap: bool) -> Zeroing {
        let facts = self.facts.borrow();
        if facts.write_zeroes {
            Zeroing::WriteZeroes
        } else if may_unmap && facts.discard.is_some_and(|discard| discard.zeroes) {
            Zeroing::Discard
        } else {
            Zeroing::Write
        }
    }

    /// Writes `pattern` all over a range whose length is a multiple of its own; the range is seen
    /// as it was or as it will be.
    pub async fn repeat(&self, pattern: &Sgl<'_>, range: Range<u64>) -> Result<(), Error> {
        self.writable()?;
        self.fill(range, Some(pattern)).await
    }

    async fn fill(&self, range: Range<u64>, pattern: Option<&Sgl<'_>>) -> Result<(), Error> {
        let unit = pattern.map_or(1, |pattern| pattern.len().max(1));
        let most = (CHUNK / unit).max(1) * unit;
        let len = range.end.saturating_sub(range.start);
        let buffer = self.scratch.get(len.min(most as u64)).await;
        let memory = buffer.view(buffer.len());
        if let Some(pattern) = pattern {
            for at in (0..memory.len()).step_by(unit) {
                pattern.copy_to(&memory.slice(at..at + unit));
            }
        }
        let locked = self.lock(range.clone(), Access::Alone).await?;
        let mut at = range.start;
        while at < range.end {
            let n = usize::try_from(range.end - at).unwrap_or(CHUNK).min(memory.len());
            locked.write(&memory.slice(0..n), at, false).await?;
            at += n as u64;
        }
        Ok(())
    }

    /// Whether the range that begins at `offset` takes up space, and how long the answer holds.
    pub async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        if self.facts.borrow().discard.is_none() {
            return Ok((Provisioning::Mapped, len));
        }
        match self.stored.get().saturating_sub(offset) {
            0 => Ok((Provisioning::Deallocated, len)),
            there => self.store.provisioning(offset, len.min(there)).await,
        }
    }

    /// Takes a new capacity when no operation is under way any more; whether it is another one.
    /// On an error the capacity is what the store says that it is.
    pub async fn resize(&self, size: u64) -> Result<bool, Error> {
        let _alone = self.locks.lock(0..u64::MAX, Access::Alone).await;
        if size == self.size.get() {
            return Ok(false);
        }
        let result = self.store.resize(size).await;
        let changed = self.look();
        result.map(|()| changed)
    }

    /// Flushes and closes the store, which is closed even where it cannot be flushed.
    ///
    /// # Errors
    /// Of what failed first.
    pub async fn close(&self) -> Result<(), Error> {
        let flushed = if self.read_only.get() { Ok(()) } else { self.flush().await };
        let closed = self.store.close().await;
        flushed.and(closed)
    }

    /// Whether a request can be given to the store as it is.
    #[inline]
    fn is_plain(&self, offset: u64, len: u64) -> bool {
        (offset | len) & self.unit_mask.get() == 0 && offset + len <= self.stored.get()
    }

    /// Reads aligned units, of which a part may lie past the end of the store.
    async fn read_units(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let there = self.stored.get().saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(data.len());
        data.fill(there..data.len(), 0);
        if there == 0 {
            return Ok(());
        }
        let part = data.slice(0..there);
        measured!(self, Kind::Read, there as u64, self.store.read(&part, offset))
    }

    /// Reads what is not aligned, or past the end of the store.
    async fn read_any(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let mask = self.unit_mask.get();
        let mut done = 0;
        for piece in pieces(offset, data.len() as u64, mask) {
            let n = length(piece.end - piece.start);
            let part = data.slice(done..done + n);
            if piece.start & mask == 0 && n as u64 & mask == 0 {
                self.read_units(&part, piece.start).await?;
            } else {
                let unit = self.read_unit(piece.start).await?;
                let at = length(piece.start & mask);
                unit.slice(at..at + n).copy_to(&part);
            }
            done += n;
        }
        Ok(())
    }

    /// The unit in which `offset` is.
    async fn read_unit(&self, offset: u64) -> Result<Sgl<'static>, Error> {
        let mask = self.unit_mask.get();
        let unit = Sgl::zeroed(length(mask + 1));
        self.read_units(&unit, offset & !mask).await?;
        Ok(unit)
    }

    /// Writes what is not aligned, or past the end of the store. The units are held.
    async fn write_any(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        let mask = self.unit_mask.get();
        if offset + data.len() as u64 > self.stored.get() {
            self.store.resize(self.size.get()).await?;
            self.look();
        }
        let mut done = 0;
        for piece in pieces(offset, data.len() as u64, mask) {
            let n = length(piece.end - piece.start);
            let part = data.slice(done..done + n);
            if piece.start & mask == 0 && n as u64 & mask == 0 {
                measured!(self, Kind::Write, n as u64, self.store.write(&part, piece.start, fua))?;
            } else {
                let unit = self.read_unit(piece.start).await?;
                let at = length(piece.start & mask);
                part.copy_to(&unit.slice(at..at + n));
                let start = piece.start & !mask;
                measured!(self, Kind::Write, n as u64, self.store.write(&unit, start, fua))?;
            }
            done += n;
        }
        Ok(())
    }
}

impl<S: Store> Locked<'_, S> {
    /// Fills the buffer.
    #[inline]
    pub async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let disk = self.disk;
        let len = data.len() as u64;
        if !disk.is_plain(offset, len) {
            return Box::pin(disk.read_any(data, offset)).await;
        }
        measured!(disk, Kind::Read, len, disk.store.read(data, offset))
    }

    /// Writes the buffer; it is on stable storage with `fua` or without a write cache.
    #[inline]
    pub async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        let disk = self.disk;
        if disk.read_only.get() {
            return disk.writable();
        }
        let durable = fua || !disk.write_cache.get();
        let len = data.len() as u64;
        if !disk.is_plain(offset, len) {
            return Box::pin(disk.write_any(data, offset, durable)).await;
        }
        measured!(disk, Kind::Write, len, disk.store.write(data, offset, durable))
    }

    /// Compares the first half of `data` with what is at `offset`, and if it is that, writes the
    /// second half there: where the first byte is that differs, if one does. On stable storage with
    /// `fua` or without a write cache. `None`: the store cannot, so that whoever holds the range
    /// reads and writes.
    pub async fn compare_and_write(
        &self,
        data: &Sgl<'_>,
        offset: u64,
        fua: bool,
    ) -> Option<Result<Option<u64>, Error>> {
        let disk = self.disk;
        if !disk.is_plain(offset, data.len() as u64 / 2) {
            return None;
        }
        let result = disk.store.compare_and_write(data, offset).await?;
        match result {
            Ok(None) if fua || !disk.write_cache.get() => Some(disk.flush().await.map(|()| None)),
            result => Some(result),
        }
    }

    /// Gives up the whole units of a range.
    async fn discard(&self, range: Range<u64>) -> Result<(), Error> {
        let (disk, whole) = (self.disk, self.whole_units(&range));
        for piece in steps(whole.clone()) {
            let len = piece.end - piece.start;
            measured!(disk, Kind::Discard, len, disk.store.discard(piece.start, len))?;
        }
        if self.disk.facts.borrow().discard.is_some_and(|discard| discard.zeroes) {
            self.write_edges(&range, &whole).await?;
        }
        Ok(())
    }

    async fn zero(&self, range: Range<u64>, may_unmap: bool) -> Result<(), Error> {
        let (disk, whole) = (self.disk, self.whole_units(&range));
        for piece in steps(whole.clone()) {
            let len = piece.end - piece.start;
            let zero = disk.store.write_zeroes(piece.start, len, may_unmap);
            measured!(disk, Kind::Zero, len, zero)?;
        }
        self.write_edges(&range, &whole).await
    }

    /// The whole units of a range that are in the store; an empty range at its start where there
    /// are none.
    fn whole_units(&self, range: &Range<u64>) -> Range<u64> {
        let mask = self.disk.unit_mask.get();
        let start = range.start.saturating_add(mask) & !mask;
        // What is past the end of the store reads as zeroes already.
        let end = range.end.min(self.disk.stored.get()) & !mask;
        if start < end { start..end } else { range.start..range.start }
    }

    /// Writes zeroes to what `whole` leaves of `range`: less than a unit at each end.
    async fn write_edges(&self, range: &Range<u64>, whole: &Range<u64>) -> Result<(), Error> {
        let end = range.end.min(self.disk.stored.get());
        for edge in [range.start..whole.start, whole.end..end] {
            if edge.start < edge.end {
                let zeroes = Sgl::zeroed(length(edge.end - edge.start));
                self.write(&zeroes, edge.start, false).await?;
            }
        }
        Ok(())
    }
}

/// A range cut where its first and its last whole unit begin and end.
fn pieces(offset: u64, len: u64, mask: u64) -> impl Iterator<Item = Range<u64>> {
    let end = offset + len;
    let first = (offset.saturating_add(mask) & !mask).min(end);
    let last = (end & !mask).max(first);
    [offset..first, first..last, last..end].into_iter().filter(|piece| piece.start < piece.end)
}

/// A range in pieces of [`STEP`] bytes.
fn steps(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let step = usize::try_from(STEP).unwrap_or(usize::MAX);
    range.step_by(step).map(move |start| start..end.min(start.saturating_add(STEP)))
}

/// A length of what is in memory.
fn length(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "what is in memory has a short length")]
mod tests;
