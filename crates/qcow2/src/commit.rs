// SPDX-License-Identifier: Apache-2.0
//! Writing metadata. A slice has one writer at a time, which writes all sectors that differ from
//! the file; who changes a slice meanwhile waits for the next.
//!
//! Rule: **metadata is written through.** An operation is acknowledged when the sectors that it
//! changed, and those that it relies on, are in the file (page cache). When a write fails or its
//! future is dropped, its sectors stay dirty: whoever needs them next, or a flush, tries again.
use std::rc::Rc;

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::core::Core;
use crate::error::Result;
use crate::geometry::Entry;
use crate::planted::Bug;
use crate::slice::Slice;
use crate::storage::Storage;

/// A write of some sectors of a slice.
struct Writing<'a> {
    slice: &'a Slice,
    /// Those that are dirty again unless the write succeeds.
    sectors: u8,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.slice.dirty.set(self.slice.dirty.get() | self.sectors);
        self.slice.writing.set(false);
        self.slice.event.notify();
    }
}

impl<S: Storage + 'static> Core<S> {
    /// Changes a word of a table in memory. Returns the version that is to be committed.
    pub(crate) fn set(&self, slice: &Rc<Slice>, index: usize, value: u64) -> u64 {
        if slice.is_clean() {
            self.dirty.borrow_mut().insert(slice.offset, slice.clone());
        }
        slice.put(index, value);
        slice.changed.get()
    }

    /// Changes an L2 entry in memory.
    pub(crate) fn set_entry(&self, slice: &Rc<Slice>, index: usize, entry: Entry) -> u64 {
        if self.geo.extended() {
            self.set(slice, 2 * index, entry.word);
            return self.set(slice, 2 * index + 1, entry.bitmap);
        }
        self.set(slice, index, entry.word)
    }

    /// Returns when the file has a version of a slice.
    pub(crate) async fn commit(&self, slice: &Rc<Slice>, version: u64) -> Result<()> {
        while slice.written.get() < version {
            if slice.writing.get() {
                self.jobs.wait(&slice.event).await;
            } else {
                self.write_slice(slice).await?;
            }
        }
        Ok(())
    }

    async fn write_slice(&self, slice: &Rc<Slice>) -> Result<()> {
        let version = slice.changed.get();
        let sectors = slice.dirty.replace(0);
        slice.writing.set(true);
        let mut writing = Writing { slice, sectors };
        let last = if self.has(Bug::HalfTable) { 0x80 >> sectors.leading_zeros() } else { 0 };
        let some = if sectors == last { sectors } else { sectors & !last };
        let (mut copy, offset) = slice.copy(some);
        self.storage.write(&Sgl::from_slice(copy.as_mut_bytes()), offset).await?;
        writing.sectors = 0;
        slice.written.set(version);
        if slice.is_clean() {
            self.dirty.borrow_mut().remove(&slice.offset);
        }
        Ok(())
    }

    /// Writes all that differs from the file now.
    pub(crate) async fn commit_all(&self) -> Result<()> {
        let dirty: Vec<_> = self.dirty.borrow().values().cloned().collect();
        for slice in dirty {
            self.commit(&slice, slice.changed.get()).await?;
        }
        Ok(())
    }

    /// Changes words of one sector of the header, on stable storage. All else is written before.
    /// After an error nobody knows which of them the file has: nothing that either of them refers to
    /// may be freed, and the next write sees to it first that the old ones are there.
    pub(crate) async fn switch_header(&self, words: &[(usize, u64)]) -> Result<()> {
        let old: Vec<_> = words.iter().map(|(index, _)| (*index, self.head.get(*index))).collect();
        for (index, value) in words {
            self.set(&self.head, *index, *value);
        }
        let result = self.flush().await;
        if result.is_err() {
            for (index, value) in old {
                self.set(&self.head, index, value);
            }
            self.writable.set(false);
        }
        result
    }

    /// Brings all that has been done to stable storage.
    pub(crate) async fn flush(&self) -> Result<()> {
        self.commit_all().await?;
        self.collect_freed();
        self.barrier().await?;
        Ok(())
    }
}
