// SPDX-License-Identifier: Apache-2.0
//! Persistent bitmaps (qcow2, "Bitmaps"). In: every change of guest data. Out: at closing, in the
//! image, the granules that changed.
//!
//! Rules:
//! - **No bitmap lies.** Before the first change of guest data, each bitmap that has to tell of it
//!   is marked as in use in the directory, on stable storage. A bit is set before the change that
//!   it tells of begins. The mark goes when data and table of a bitmap are on stable storage, with
//!   nobody writing. After a crash the mark stays, for good: nobody knows what is missing.
//! - **What is in use may be overwritten.** Data and tables are written where they are; new parts
//!   lie in clusters of the reserve, so that a table refers to owned clusters whatever is missing
//!   of it. A mark is a bit of an aligned word: a sector has it or not.
//! - **A table of another length is a new one.** It is on stable storage before the directory
//!   refers to it; offset and length may be in two sectors, and each pair that can be seen is
//!   inside of a table. The old one is freed afterwards.
//! - Bitmaps that are not known, or too large to be in memory, are marked if they would lie, and
//!   stay as they are otherwise. Resizing changes all: none is left with the old size and no mark.
//! - Without the autoclear bit, what the extension refers to is garbage: it is given back, and the
//!   extension then refers to nothing.
mod dirty;
pub(crate) mod load;
mod save;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use crate::core::Core;
use crate::error::Result;
use crate::geometry::Geometry;
use crate::layout::bitmaps::IN_USE;
use crate::layout::entry::OFFSET_MASK;
use crate::layout::header::{Header, autoclear, extension};
use crate::slice::{Slice, Table};
use crate::storage::Storage;

use dirty::Dirty;

/// The most bytes that the bitmaps of an image take in memory.
const MAX_BYTES: u64 = 64 << 20;

/// The bitmaps of an image, as they were at opening.
pub(crate) struct Bitmaps {
    /// The directory, in words.
    directory: Table,
    /// Those whose bits are in memory.
    kept: Vec<Kept>,
    /// All that are not in use.
    valid: Vec<Valid>,
}

/// A bitmap that is not in use.
struct Valid {
    /// Where its entry is in the directory, in words.
    place: usize,
    /// Every change of guest data makes it wrong.
    tracks: bool,
}

/// A bitmap whose bits are in memory.
struct Kept {
    name: String,
    /// Where its entry is in the directory, in words.
    place: usize,
    /// It tells of changes.
    tracks: bool,
    dirty: RefCell<Dirty>,
    /// Offset of its table.
    table: Cell<u64>,
    /// The table's entries, as they are to be in the file.
    entries: RefCell<Vec<u64>>,
    /// The file has not got all of them.
    unwritten: Cell<bool>,
    /// It has become too large to be kept, or its table cannot be changed.
    lost: Cell<bool>,
}

/// Which bitmaps something makes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Those that tell of changes.
    Tracking,
    /// All.
    All,
}

impl Bitmaps {
    /// The slice and the place in it of the word with a bitmap's flags.
    fn flags(&self, place: usize) -> Option<(&Rc<Slice>, usize)> {
        self.directory.slot(place + 1)
    }

    fn is_in_use(&self, place: usize) -> bool {
        self.directory.get(place + 1) & u64::from(IN_USE) != 0
    }

    /// The clusters in which they are.
    pub(crate) fn clusters(&self, geo: &Geometry) -> Vec<Range<u64>> {
        let mut all = vec![geo.clusters(self.directory.offset, self.directory.len as u64 * 8)];
        for kept in &self.kept {
            let entries = kept.entries.borrow();
            all.push(geo.clusters(kept.table.get(), entries.len() as u64 * 8));
            let parts = entries.iter().map(|entry| entry & OFFSET_MASK).filter(|part| *part != 0);
            all.extend(parts.map(|part| geo.clusters(part, 1)));
        }
        all
    }
}

/// Whether the image has bitmaps that do not count, and that take space.
pub(crate) fn are_stale(header: &Header) -> bool {
    let data = header.extension(extension::BITMAPS);
    header.autoclear & autoclear::BITMAPS == 0
        && data.is_some_and(|data| data.get(16..24).is_none_or(|offset| offset != [0; 8]))
}

/// Where the header's first slice has the offset of the directory.
fn directory_word(header: &Header, head: &Slice) -> Option<usize> {
    let byte_at = |at: usize| (head.get(at / 8) >> (56 - at % 8 * 8)) & 0xff;
    let number = |at: usize| (0..4).fold(0, |n, i| n << 8 | byte_at(at + i));
    let len = head.len() * 8;
    let mut at = usize::try_from(header.header_length()).ok()?;
    while at + 8 + 24 <= len {
        let (kind, size) = (number(at), number(at + 4));
        if kind == u64::from(extension::END) {
            return None;
        }
        if kind == u64::from(extension::BITMAPS) {
            return (size >= 24).then_some(at / 8 + 3);
        }
        at = at.checked_add(8 + usize::try_from(size).ok()?.next_multiple_of(8))?;
    }
    None
}

impl<S: Storage + 'static> Core<S> {
    /// What the extension of stale bitmaps referred to was given back.
    pub(crate) fn forget_stale_bitmaps(&self) {
        if let Some(at) = directory_word(&self.header, &self.head) {
            self.set(&self.head, at, 0);
        }
    }

    /// Marks bitmaps as in use, in memory.
    pub(crate) fn mark_bitmaps(&self, wrong: Wrong) {
        let Some(bitmaps) = &self.bitmaps else { return };
        for valid in bitmaps.valid.iter().filter(|valid| valid.tracks || wrong == Wrong::All) {
            if let Some((slice, at)) = bitmaps.flags(valid.place)
                && !bitmaps.is_in_use(valid.place)
            {
                self.set(slice, at, slice.get(at) | u64::from(IN_USE));
            }
        }
    }

    /// Returns when the file has all marks.
    pub(crate) async fn commit_marks(&self) -> Result<()> {
        let Some(bitmaps) = &self.bitmaps else { return Ok(()) };
        for slice in &bitmaps.directory.slices {
            self.commit(slice, slice.changed.get()).await?;
        }
        Ok(())
    }

    /// A part of the guest is going to change.
    pub(crate) fn mark_dirty(&self, offset: u64, len: u64) {
        let Some(bitmaps) = &self.bitmaps else { return };
        for kept in bitmaps.kept.iter().filter(|kept| kept.tracks) {
            kept.dirty.borrow_mut().mark(offset..offset.saturating_add(len));
        }
    }

    /// The virtual size is another. All are marked as in use. What is new counts as changed: it may
    /// have been there, with other content, before the image was made smaller.
    pub(crate) fn resize_bitmaps(&self, old: u64, new: u64) {
        let Some(bitmaps) = &self.bitmaps else { return };
        let mut room = MAX_BYTES;
        for kept in &bitmaps.kept {
            let dirty = &mut *kept.dirty.borrow_mut();
            let bytes = dirty.bytes_for(new);
            if bytes > room || new == 0 {
                kept.lost.set(true);
            }
            if kept.lost.get() {
                dirty.resize(0);
            } else {
                room -= bytes;
                dirty.resize(new);
            }
        }
        self.mark_dirty(old, new.saturating_sub(old));
    }
}
