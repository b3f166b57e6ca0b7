// SPDX-License-Identifier: Apache-2.0
//! Bringing bitmaps to the file, at closing. In: those whose bits are in memory. Out: bitmaps that
//! are valid. One for which there is no space stays marked as in use; the image closes all the
//! same.
use std::ops::Range;
use std::rc::Rc;

use sgl::Sgl;
use zerocopy::IntoBytes;

use super::{Bitmaps, Kept};
use crate::ErrorKind;
use crate::core::Core;
use crate::error::{Result, is_no_space};
use crate::layout::bitmaps::IN_USE;
use crate::layout::entry::OFFSET_MASK;
use crate::slice::Slice;
use crate::storage::{SECTOR, Storage};
use crate::tables::Owner;

impl<S: Storage + 'static> Core<S> {
    /// Saves what is in use, and takes the marks. The gate is closed. Part of a job.
    pub(crate) async fn save_bitmaps(&self) -> Result<()> {
        let Some(bitmaps) = &self.bitmaps else { return Ok(()) };
        let mut saved = Vec::new();
        for kept in bitmaps.kept.iter().filter(|kept| bitmaps.is_in_use(kept.place)) {
            let result = match kept.lost.get() {
                true => {
                    Err(ErrorKind::invalid("its table could not be changed to the image's size"))
                }
                false => self.save_bitmap(bitmaps, kept).await,
            };
            match result {
                Ok(()) => saved.push(kept.place),
                Err(e) if is_no_space(&e) || matches!(e, ErrorKind::Invalid(_)) => {
                    tracing::warn!("the bitmap {:?} stays marked as in use: {e}", kept.name);
                    // The new table may be nobody's.
                    self.sound.set(false);
                }
                Err(e) => return Err(e),
            }
        }
        if saved.is_empty() {
            return Ok(());
        }
        self.flush().await?;
        // The next write marks them again.
        self.writable.set(false);
        for (slice, at) in saved.into_iter().filter_map(|place| bitmaps.flags(place)) {
            self.set(slice, at, slice.get(at) & !u64::from(IN_USE));
        }
        self.flush().await
    }

    /// Brings one to the file.
    async fn save_bitmap(&self, bitmaps: &Bitmaps, kept: &Kept) -> Result<()> {
        let parts = kept.dirty.borrow().parts();
        if parts != kept.entries.borrow().len() {
            self.resize_table(bitmaps, kept, parts).await?;
        }
        for number in 0..parts {
            if kept.dirty.borrow().has_changed(number) {
                self.save_part(kept, number).await?;
            }
        }
        if kept.unwritten.get() {
            self.check_own(kept.table.get(), &kept.name).await?;
            self.write_table(kept).await?;
            kept.unwritten.set(false);
        }
        Ok(())
    }

    async fn save_part(&self, kept: &Kept, number: usize) -> Result<()> {
        let part = Sgl::zeroed(usize::try_from(self.geo.cluster_size()).unwrap_or(0));
        part.write_at(0, kept.dirty.borrow().part(number));
        let entry = kept.entries.borrow().get(number).copied().unwrap_or(0);
        let place = entry & OFFSET_MASK;
        if place != 0 {
            self.check_own(place, &kept.name).await?;
            self.storage.write(&part, place).await?;
        } else {
            let claim = self.claim(1).await?;
            let place = claim.first << self.geo.cluster_bits;
            self.storage.write(&part, place).await?;
            if let Some(entry) = kept.entries.borrow_mut().get_mut(number) {
                *entry = place;
            }
            kept.unwritten.set(true);
            self.metadata.borrow_mut().insert(claim.first);
            claim.keep();
        }
        kept.dirty.borrow_mut().saved(number);
        Ok(())
    }

    /// Refuses to write to what a table refers to, where it is not its own.
    async fn check_own(&self, place: u64, name: &str) -> Result<()> {
        let what = format!("the bitmap {name:?}");
        match self.fixed_metadata(place) {
            None if self.owner(place, &what).await? == Owner::Own => Ok(()),
            None => Err(ErrorKind::damaged(format_args!(
                "{what} refers to the cluster at {place:#x}, which something else has, too"
            ))),
            Some(other) => Err(ErrorKind::damaged(format_args!(
                "{what} refers to {place:#x}, where the {other} is"
            ))),
        }
    }

    async fn write_table(&self, kept: &Kept) -> Result<()> {
        let words: Vec<u64> = kept.entries.borrow().iter().map(|entry| entry.to_be()).collect();
        let bytes = words.as_bytes();
        let table = Sgl::zeroed(bytes.len().next_multiple_of(usize::try_from(SECTOR).unwrap_or(1)));
        table.write_at(0, bytes);
        Ok(self.storage.write(&table, kept.table.get()).await?)
    }

    /// Gives a bitmap a table of another length. It is marked as in use.
    async fn resize_table(&self, bitmaps: &Bitmaps, kept: &Kept, parts: usize) -> Result<()> {
        let places = bitmaps.directory.slot(kept.place).zip(bitmaps.flags(kept.place));
        let Some(((offset, offset_at), (flags, at))) = places else {
            return Err(ErrorKind::invalid("it has no entry in the directory"));
        };
        // Until all is done, nobody knows which table the directory refers to.
        kept.lost.set(true);
        let bits = self.geo.cluster_bits;
        let clusters = |entries: usize| (entries as u64 * 8).div_ceil(1 << bits).max(1);
        let count = clusters(parts);
        let claim = self.claim_run(count).await?;
        let first = claim.first;
        claim.keep();
        self.metadata.borrow_mut().extend(first..first + count);
        let old_table = kept.table.replace(first << bits);
        let mut entries = kept.entries.borrow().clone();
        let old = entries.len();
        let cut = entries.split_off(parts.min(old));
        entries.resize(parts, 0);
        kept.entries.replace(entries);
        self.write_table(kept).await?;
        self.flush().await?;
        let len = (parts as u64) << 32 | flags.get(at) & u64::from(u32::MAX);
        // Each pair that can be seen is inside of a table.
        let mut words: [(&Rc<Slice>, usize, u64); 2] =
            [(offset, offset_at, first << bits), (flags, at, len)];
        if parts < old {
            words.reverse();
        }
        let [before, after] = words;
        self.set(before.0, before.1, before.2);
        self.flush().await?;
        self.set(after.0, after.1, after.2);
        let gone = cut.iter().map(|entry| entry & OFFSET_MASK).filter(|place| *place != 0);
        let gone = gone.map(|place| place >> bits..(place >> bits) + 1);
        let old_first = old_table >> bits;
        let table: Range<u64> = old_first..old_first + clusters(old);
        for range in gone.chain([table]) {
            self.unmapped_clusters(after.0, range.start, range.end - range.start);
        }
        self.flush().await?;
        kept.lost.set(false);
        Ok(())
    }
}
