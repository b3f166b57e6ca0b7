// SPDX-License-Identifier: Apache-2.0
//! A store below a format. It is seen as a [`Disk`], which makes up for the alignment and the zeroing
//! that it lacks, and which becomes longer where it is written past its end, as a file does.
use std::cell::Cell;
use std::path::Path;

use sgl::Sgl;

use crate::range_lock::RangeLock;
use crate::{Access, AnyStore, Disk, Error, Event, Provisioning, Store, disk};

#[derive(Debug)]
pub(super) struct Nested {
    disk: Disk<AnyStore>,
    /// In bytes. What was added to the disk counts when it has been zeroed.
    size: Cell<u64>,
    /// Where bytes of before may be past the end: that is where a store was longer.
    stale: Cell<u64>,
    /// Held by a change of the size.
    turn: RangeLock,
}

impl Nested {
    pub(super) fn new(store: AnyStore, path: &Path) -> Self {
        let stale = Cell::new(if store.grows_by_noise() { u64::MAX } else { 0 });
        let disk = Disk::new(store, path.to_string_lossy(), disk::Options::default());
        Nested { size: Cell::new(disk.size()), disk, stale, turn: RangeLock::default() }
    }

    pub(super) fn disk(&self) -> &Disk<AnyStore> {
        &self.disk
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size.get()
    }

    /// Reads what of a range is inside; returns how many bytes that is.
    pub(super) async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<usize, Error> {
        let left = self.size().saturating_sub(offset);
        let there = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        if there > 0 {
            self.disk.read(&data.slice(0..there), offset).await?;
        }
        Ok(there)
    }

    /// Writes, past the end, too.
    pub(super) async fn write(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.size() {
            let _turn = self.turn.lock(0..1, Access::Alone).await;
            if end > self.size() {
                self.grow(end).await?;
            }
        }
        self.disk.write(data, offset, false).await
    }

    /// Makes it longer, by zeroes, or shorter. A store with sectors ends with a whole one.
    pub(super) async fn set_len(&self, len: u64) -> Result<(), Error> {
        let _turn = self.turn.lock(0..1, Access::Alone).await;
        let there = self.size();
        if len > there {
            return self.grow(len).await;
        }
        self.disk.resize(self.whole(len)).await?;
        self.size.set(self.disk.size());
        self.stale.set(self.stale.get().max(there));
        Ok(())
    }

    fn whole(&self, len: u64) -> u64 {
        let unit = u64::from(self.disk.facts().request_alignment.max(1));
        len.checked_next_multiple_of(unit).unwrap_or(len)
    }

    /// Makes it longer, by zeroes.
    async fn grow(&self, len: u64) -> Result<(), Error> {
        let there = self.size();
        self.disk.resize(self.whole(len)).await?;
        let size = self.disk.size();
        let end = self.stale.get().min(size);
        if there < end {
            self.disk.write_zeroes(there, end - there, true).await?;
        }
        self.size.set(size);
        Ok(())
    }

    /// Whether a range takes up space. A disk that cannot be discarded tells of no holes, and a store
    /// that is only read may have some.
    pub(super) async fn provisioning(
        &self,
        offset: u64,
        len: u64,
    ) -> Result<(Provisioning, u64), Error> {
        match self.size().saturating_sub(offset) {
            0 => Ok((Provisioning::Deallocated, len.max(1))),
            left => self.disk.store().provisioning(offset, len.min(left)).await,
        }
    }

    /// Waits until something happens to the store that nobody here has done.
    pub(super) async fn event(&self) -> Event {
        let event = self.disk.event().await;
        if let Event::Resized = event {
            self.size.set(self.disk.size());
        }
        event
    }
}
