// SPDX-License-Identifier: Apache-2.0
//! Discarding, and writing zeroes. Whole granules lose their data by a change of their entries;
//! the rest of a range is written to, or, where it is only discarded, left alone.
//!
//! Rules: a discarded granule reads as zeroes, never as the backing store. Its cluster is freed as
//! the module `free` says. The range is worked through by the slice, so that a large one holds
//! nobody up.
use sgl::Sgl;

use crate::core::{Core, Found, Spot};
use crate::error::Result;
use crate::geometry::{Entry, Kind};
use crate::storage::Storage;
use crate::tables::Owner;

/// What is to become of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeroing {
    /// Its space may be given up; what is easy reads as zeroes.
    Discard,
    /// It reads as zeroes; its space may be given up.
    Unmap,
    /// It reads as zeroes; its space is kept.
    Keep,
}

/// A granule's share of a range that has to be written to.
const MAX_WRITTEN: u64 = 2 << 20;

/// A part of the data file is being zeroed: when that ends, in whatever way, it is in the file and
/// not on stable storage.
struct Noted<'a, S: Storage + 'static>(&'a Core<S>);

impl<S: Storage + 'static> Drop for Noted<'_, S> {
    fn drop(&mut self) {
        self.0.data_zeroed.set(self.0.syncs.started.get());
    }
}

impl<S: Storage + 'static> Core<S> {
    /// See [`Zeroing`]. The range is inside the image.
    pub(crate) async fn zero(&self, offset: u64, len: u64, how: Zeroing) -> Result<()> {
        self.check_writable()?;
        self.check_range(offset, len)?;
        let end = offset + len;
        let granule = self.geo.granule_size();
        let first = offset.next_multiple_of(granule);
        // What is past the end of the image is nobody's, so that its last cluster is a whole one.
        let last = if end == self.size.get() { self.end_of_clusters() } else { end };
        let last = last & !(granule - 1);
        // The first granule may begin past the end, too.
        if first >= last.min(end) {
            return self.write_zeroes(offset, end, how).await;
        }
        self.write_zeroes(offset, first, how).await?;
        let mut pos = first;
        while pos < last {
            pos = self.zero_slice(pos, last, how).await?;
            self.tend();
        }
        if last < end { self.write_zeroes(last, end, how).await } else { Ok(()) }
    }

    /// The end of the image's last cluster.
    fn end_of_clusters(&self) -> u64 {
        self.size.get().next_multiple_of(self.geo.cluster_size())
    }

    /// Zeroes parts of granules by writing to them.
    async fn write_zeroes(&self, mut pos: u64, end: u64, how: Zeroing) -> Result<()> {
        if how == Zeroing::Discard {
            return Ok(());
        }
        while pos < end {
            let _inside = self.enter().await;
            self.check_range(pos, end - pos)?;
            let (zero, len) = self.is_zero(pos, end - pos).await?;
            let len = len.min(MAX_WRITTEN);
            if !zero {
                let zeroes = Sgl::zeroed(usize::try_from(len).unwrap_or(0));
                self.write_inside(&zeroes, pos).await?;
            }
            pos += len;
        }
        Ok(())
    }

    /// Whether what is at `pos` is known to be zero, and for how many bytes that holds.
    async fn is_zero(&self, pos: u64, most: u64) -> Result<(bool, u64)> {
        let granule = self.geo.granule_size();
        let len = (granule - (pos & (granule - 1))).min(most);
        if self.busy.is_locked(pos >> self.geo.cluster_bits) {
            // A write takes the flag away soon. What is under it then may be that write's, or what an
            // older one has brought there since: zeroes have to come after both.
            return Ok((false, len));
        }
        let Some(spot) = self.spot(pos).await? else {
            return Ok((!self.geo.raw_data_file && self.backing_is_zero(pos, len).await?, len));
        };
        if !spot.written {
            // What one that was dropped left in memory does not count yet.
            return Ok((false, len));
        }
        let kind = spot.slice.entry(&self.geo, spot.index).kind(&self.geo);
        let within = pos & (self.geo.cluster_size() - 1);
        let touched = self.geo.granules(within, within + len);
        Ok(match kind {
            Ok(Kind::Plain { data, zero, .. })
                if data & touched == 0 && !self.geo.raw_data_file =>
            {
                (zero & touched != 0 || self.backing_is_zero(pos, len).await?, len)
            }
            _ => (false, len),
        })
    }

    /// Zeroes whole granules of one slice. Returns where to go on.
    async fn zero_slice(&self, pos: u64, last: u64, how: Zeroing) -> Result<u64> {
        let geo = &self.geo;
        let _inside = self.enter().await;
        if last > self.end_of_clusters() {
            // It was made smaller meanwhile.
            self.check_range(pos, last - pos)?;
        }
        if !self.writable.get() {
            self.begin_writing().await?;
        }
        self.check_synced()?;
        let size = geo.cluster_size();
        let (_, index) = geo.l2_index(pos);
        let cluster = pos >> geo.cluster_bits;
        let in_slice = (geo.slice_entries() - index) as u64;
        let end = last.min((cluster + in_slice) << geo.cluster_bits);
        self.mark_dirty(pos, end - pos);
        let clusters = cluster..end.div_ceil(size);
        let _locked = self.busy.lock(&self.jobs, clusters.clone()).await;
        if geo.data_file {
            let file_len = self.data().length().await?;
            let there = end.min(file_len).saturating_sub(pos);
            if there > 0 && (geo.raw_data_file || how != Zeroing::Keep && self.punch) {
                let _noted = Noted(self);
                self.data().zero(pos, there, how != Zeroing::Keep).await?;
            }
            if geo.raw_data_file {
                return Ok(end);
            }
        }
        if matches!(self.find(pos)?, Found::NoTable) && self.backing_is_zero(pos, end - pos).await?
        {
            return Ok(end);
        }
        if !geo.zero_flag && self.backing.is_some() && pos < self.backing_len {
            // Version 2 cannot say of a cluster that it is zero.
            if how != Zeroing::Discard {
                let zeroes = MAX_WRITTEN.min(end - pos).min(self.size.get() - pos);
                drop(_locked);
                let zeroes = Sgl::zeroed(usize::try_from(zeroes).unwrap_or(0));
                self.write_inside(&zeroes, pos).await?;
                let done = pos + zeroes.len() as u64;
                return Ok(if done >= self.size.get() { last } else { done });
            }
            return Ok(end);
        }
        if !self.in_use.get() {
            let core = self.rc();
            self.run(async move { core.mark_in_use().await }).await?;
        }
        let spot = self.spot_for_write(pos).await?;
        let slice = &spot.slice;
        let mut left_over = Vec::new();
        for cluster in clusters {
            let start = cluster << geo.cluster_bits;
            let (from, to) = (pos.max(start), end.min(start + size));
            let index =
                spot.index + usize::try_from(cluster - (pos >> geo.cluster_bits)).unwrap_or(0);
            let spot = Spot { slice: slice.clone(), index, written: false };
            let touched = geo.granules(from - start, to - start);
            if !self.zero_cluster(&spot, from, touched, how).await? {
                left_over.push((from, to));
            }
        }
        self.commit(slice, slice.changed.get()).await?;
        self.collect_freed();
        drop(_locked);
        for (from, to) in left_over {
            let zeroes = Sgl::zeroed(usize::try_from(to - from).unwrap_or(0));
            self.write_inside(&zeroes, from).await?;
        }
        drop(_inside);
        if self.freed.is_full() {
            self.flush().await?;
        }
        Ok(end)
    }

    /// Changes one entry, in memory. Returns whether that did; if not, zeroes have to be written.
    async fn zero_cluster(
        &self,
        spot: &Spot,
        pos: u64,
        touched: u32,
        how: Zeroing,
    ) -> Result<bool> {
        let geo = &self.geo;
        let all = geo.all_granules();
        let old = spot.slice.entry(geo, spot.index);
        let kind = old.kind(geo).map_err(|what| self.bad_entry(spot, spot.index, pos, what))?;
        // Without anything under it no flag is needed.
        let covers = self.backing.is_some() && pos < self.backing_len;
        let flags = if geo.zero_flag && covers { touched } else { 0 };
        let (new, freed) = match kind {
            Kind::Compressed(_) if touched == all => (Entry::homeless(geo, flags), true),
            Kind::Compressed(_) => return Ok(false),
            Kind::Plain { host: None, zero, .. } => (Entry::homeless(geo, zero | flags), false),
            Kind::Plain { host: Some(_), data, zero }
                if how != Zeroing::Keep && data & !touched == 0 =>
            {
                let rest = if geo.zero_flag && covers { zero | flags } else { zero & !touched };
                (Entry::homeless(geo, rest), true)
            }
            Kind::Plain { host: Some(host), data, zero } if how != Zeroing::Keep => {
                // Other subclusters have data; whose the cluster is does not change.
                let _ = host;
                let bitmap = u64::from(data & !touched) | u64::from(zero | touched) << 32;
                (Entry { word: old.word, bitmap }, false)
            }
            Kind::Plain { host: Some(host), data, zero } => {
                if data & touched == 0 && zero & touched == touched {
                    return Ok(true);
                }
                if !geo.zero_flag {
                    return Ok(false);
                }
                match self.check_owner(spot, pos, host).await? {
                    Owner::Own => (Entry::owned(geo, host, data & !touched, zero | touched), false),
                    Owner::Shared if touched == all => (Entry::homeless(geo, touched), true),
                    Owner::Shared => return Ok(false),
                }
            }
        };
        if let Kind::Plain { host: Some(host), .. } = kind
            && freed
            && !geo.data_file
        {
            // What is freed has to be a guest's.
            self.check_owner(spot, pos, host).await?;
        }
        if new != old {
            self.set_entry(&spot.slice, spot.index, new);
            spot.slice.set_fresh(spot.index, false);
            if freed {
                spot.slice.set_checked(spot.index, false);
                self.unmapped(spot, Ok(kind));
            }
        }
        Ok(true)
    }
}
