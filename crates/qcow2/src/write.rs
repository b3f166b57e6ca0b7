// SPDX-License-Identifier: Apache-2.0
//! Writing guest data: overwriting what is there, and giving places to what has none.
//!
//! Rules:
//! - **Data before mapping where it matters.** Into a fresh cluster of the reserve, over content
//!   that reads as zeroes, data and mapping go in any order: whatever is missing after a loss of
//!   power is zero, as before. Over any other content (of a backing store, compressed, shared with
//!   a snapshot, stale bytes under a zero flag) what is mapped is first written wholly, then a
//!   barrier, then the entry.
//! - In an encrypted image no place is zeroed (see the module `crypt`).
//! - **A write relies on its mapping**: where the file has not got it yet, the write waits for that.
//! - One operation changes the mapping of a cluster at a time (`busy`); what was claimed and not
//!   mapped is freed as if it had been used.
//!
//! Where all of a request may be overwritten in one piece, and the tables in memory say so, nothing
//! but that write is awaited: this is the data path.
use sgl::Sgl;

use crate::core::{Core, Found, Spot};
use crate::error::Result;
use crate::gate::Inside;
use crate::geometry::{Entry, Kind};
use crate::planted::Bug;
use crate::slice::Slice;
use crate::storage::{Extent, Storage};
use crate::tables::Owner;

impl<S: Storage + 'static> Core<S> {
    /// Writes all of `data` at `offset`, which is inside the image.
    pub(crate) async fn write(&self, data: &Sgl<'_>, offset: u64) -> Result<()> {
        match self.begin_write(offset, data.len() as u64) {
            Some((_inside, host)) => Ok(self.data().write(data, host).await?),
            None => Box::pin(self.write_pieces(data, offset)).await,
        }
    }

    /// Enters the gate for a write that overwrites one piece, as the tables in memory say, and is
    /// neither encrypted nor compressed. What else there is to write, or to refuse, is left to
    /// [`write_pieces`](Self::write_pieces).
    #[inline]
    fn begin_write(&self, offset: u64, len: u64) -> Option<(Inside<'_>, u64)> {
        let inside = self.try_enter()?;
        self.check_range(offset, len).ok()?;
        if !self.writable.get() || self.encryption.is_some() || self.compress {
            return None;
        }
        match self.owned_run(offset, len) {
            Ok(Some((host, there))) if there == len => {
                self.mark_dirty(offset, len);
                Some((inside, host))
            }
            _ => None,
        }
    }

    async fn write_pieces(&self, data: &Sgl<'_>, offset: u64) -> Result<()> {
        let _inside = self.enter().await;
        self.check_range(offset, data.len() as u64)?;
        self.write_inside(data, offset).await
    }

    /// As [`write`](Self::write), for who is in the gate.
    pub(crate) async fn write_inside(&self, data: &Sgl<'_>, offset: u64) -> Result<()> {
        // An image that turned out to be damaged, or was closed, is not writable.
        if !self.writable.get() {
            Box::pin(self.begin_writing()).await?;
        }
        self.mark_dirty(offset, data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            let pos = offset + done as u64;
            let left = data.len() - done;
            let owned = if self.compress { None } else { self.owned_run(pos, left as u64)? };
            match owned {
                Some((host, len)) => {
                    let len = usize::try_from(len).unwrap_or(left).min(left);
                    if len == data.len() {
                        self.write_data(data, host, pos).await?;
                    } else {
                        self.write_data(&data.slice(done..done + len), host, pos).await?;
                    }
                    done += len;
                }
                None => {
                    let rest = data.slice(done..data.len());
                    done += match self.compress {
                        true => Box::pin(self.write_compressed(&rest, pos)).await?,
                        false => Box::pin(self.write_mapping(&rest, pos)).await?,
                    };
                }
            }
        }
        Ok(())
    }

    /// The place of what may be overwritten from `pos` on, and its length: in clusters that have
    /// been checked, and whose mapping is in the file.
    #[inline]
    fn owned_run(&self, pos: u64, most: u64) -> Result<Option<(u64, u64)>> {
        let Found::Spot(spot) = self.find(pos)? else { return Ok(None) };
        if !spot.written && !self.has(Bug::AcknowledgedEarly) {
            return Ok(None);
        }
        let Some((host, mut len)) = self.owned_part(&spot.slice, spot.index, pos, most) else {
            return Ok(None);
        };
        for index in spot.index + 1..self.geo.slice_entries() {
            if len == most {
                break;
            }
            match self.owned_part(&spot.slice, index, pos + len, most - len) {
                Some((next, part)) if host + len == next => len += part,
                _ => break,
            }
        }
        Ok(Some((host, len)))
    }

    /// As [`owned_run`](Self::owned_run), in the cluster of one entry.
    #[inline]
    fn owned_part(&self, slice: &Slice, index: usize, pos: u64, most: u64) -> Option<(u64, u64)> {
        let geo = &self.geo;
        if most == 0 || !slice.is_checked(index) {
            return None;
        }
        let within = pos & (geo.cluster_size() - 1);
        let part = (geo.cluster_size() - within).min(most);
        match slice.entry(geo, index).kind(geo) {
            Ok(Kind::Plain { host: Some(host), data, .. }) => {
                let wanted = geo.granules(within, within + part);
                (data & wanted == wanted).then_some((host + within, part))
            }
            _ => None,
        }
    }

    /// Writes the first bytes of `data`, into clusters whose mapping or its state has to change.
    /// Returns how many.
    async fn write_mapping(&self, data: &Sgl<'_>, pos: u64) -> Result<usize> {
        let geo = &self.geo;
        self.check_synced()?;
        let cluster = pos >> geo.cluster_bits;
        let (_, first) = geo.l2_index(pos);
        let in_slice = (geo.slice_entries() - first) as u64;
        let last = (pos + data.len() as u64 - 1) >> geo.cluster_bits;
        let count = (last - cluster + 1).min(in_slice);
        let _locked = self.busy.lock(&self.jobs, cluster..cluster + count).await;
        let spot = self.spot_for_write(pos).await?;
        let kind = spot.slice.entry(geo, spot.index).kind(geo);
        match kind.map_err(|what| self.bad_entry(&spot, spot.index, pos, what))? {
            Kind::Compressed(_) => self.replace(data, pos, &spot).await,
            Kind::Plain { host: Some(host), data: there, zero: _ } => {
                match self.check_owner(&spot, pos, host).await? {
                    Owner::Shared => self.replace(data, pos, &spot).await,
                    Owner::Own => self.write_in_place(data, pos, &spot, host, there).await,
                }
            }
            Kind::Plain { host: None, .. } => {
                let mut run = 1;
                while run < count {
                    let index = spot.index + usize::try_from(run).unwrap_or(0);
                    let kind = spot.slice.entry(geo, index).kind(geo);
                    if !matches!(kind, Ok(Kind::Plain { host: None, .. })) {
                        break;
                    }
                    run += 1;
                }
                self.write_fresh(data, pos, &spot, run).await
            }
        }
    }

    /// Writes into `run` clusters that have no place.
    async fn write_fresh(&self, data: &Sgl<'_>, pos: u64, spot: &Spot, run: u64) -> Result<usize> {
        let geo = &self.geo;
        let size = geo.cluster_size();
        let start = pos & !(size - 1);
        let claim = if geo.data_file { None } else { Some(self.claim(run).await?) };
        let (host, count) = match &claim {
            Some(claim) => (claim.first << geo.cluster_bits, claim.count),
            None => (start, run),
        };
        let end = (pos + data.len() as u64).min(start + count * size);
        let len = usize::try_from(end - pos).unwrap_or(0);
        let zeroed = self.encryption.is_none()
            && (claim.is_some() || self.data_file_is_zero(start, count * size).await?);
        let granule = geo.granule_size();
        let span = pos & !(granule - 1)..end.next_multiple_of(granule);
        self.fill(&data.slice(0..len), pos, host + (pos - start), span, zeroed).await?;
        for number in 0..count {
            let index = spot.index + usize::try_from(number).unwrap_or(0);
            let at = start + number * size;
            let touched = geo.granules(pos.max(at) - at, end.min(at + size) - at);
            let old = spot.slice.entry(geo, index).kind(geo);
            let zero = match old {
                Ok(Kind::Plain { zero, .. }) => zero & !touched,
                _ => 0,
            };
            let entry = Entry::owned(geo, host + number * size, touched, zero);
            self.set_entry(&spot.slice, index, entry);
            spot.slice.set_checked(index, true);
            spot.slice.set_fresh(index, zeroed);
        }
        if let Some(claim) = claim {
            claim.keep();
        }
        self.commit(&spot.slice, spot.slice.changed.get()).await?;
        Ok(len)
    }

    /// Writes into a cluster that has its place, some granules of which may not be data.
    async fn write_in_place(
        &self,
        data: &Sgl<'_>,
        pos: u64,
        spot: &Spot,
        host: u64,
        there: u32,
    ) -> Result<usize> {
        let geo = &self.geo;
        let size = geo.cluster_size();
        let within = pos & (size - 1);
        let start = pos - within;
        let end = (pos + data.len() as u64).min(start + size);
        let len = usize::try_from(end - pos).unwrap_or(0);
        let data = data.slice(0..len);
        let touched = geo.granules(within, end - start);
        if touched & !there == 0 {
            self.write_data(&data, host + within, pos).await?;
        } else {
            // Others write into granules that are data: those are not touched more than asked.
            let granule = geo.granule_size();
            let lies = |at: u64| there & geo.granules(at - start, at - start + 1) != 0;
            let from = if lies(pos) { pos } else { pos & !(granule - 1) };
            let to = if lies(end - 1) { end } else { end.next_multiple_of(granule) };
            let zeroed = spot.slice.is_fresh(spot.index);
            self.fill(&data, pos, host + within, from..to, zeroed).await?;
            // Granules may have become data meanwhile, or others of them zero, not these.
            let now = spot.slice.entry(geo, spot.index).kind(geo);
            if let Ok(Kind::Plain { data: there, zero, .. }) = now {
                let entry = Entry::owned(geo, host, there | touched, zero & !touched);
                self.set_entry(&spot.slice, spot.index, entry);
            }
        }
        self.commit(&spot.slice, spot.slice.changed.get()).await?;
        Ok(len)
    }

    /// Writes `data`, which is at `pos` for the guest and goes to `host`, and around it what
    /// `span` of the guest has now. Where the place reads as zeroes (`zeroed`) and so does what was
    /// there before, the data alone will do; else all of it is on stable storage on return.
    async fn fill(
        &self,
        data: &Sgl<'_>,
        pos: u64,
        host: u64,
        span: std::ops::Range<u64>,
        zeroed: bool,
    ) -> Result<()> {
        let mut zero = self.backing_is_zero(span.start, span.end - span.start).await?;
        if zero && zeroed {
            return self.write_data(data, host, pos).await;
        }
        let end = pos + data.len() as u64;
        let head = Sgl::zeroed(usize::try_from(pos - span.start).unwrap_or(0));
        let tail = Sgl::zeroed(usize::try_from(span.end - end).unwrap_or(0));
        if !zero && span.end - span.start <= self.geo.cluster_size() {
            // Somebody may have written zeroes there.
            let middle = Sgl::zeroed(data.len());
            self.read_old(&head, span.start).await?;
            self.read_old(&middle, pos).await?;
            self.read_old(&tail, end).await?;
            zero = head.is_zero() && middle.is_zero() && tail.is_zero();
            if zero && zeroed {
                return self.write_data(data, host, pos).await;
            }
        } else if !zero {
            self.read_old(&head, span.start).await?;
            self.read_old(&tail, end).await?;
        }
        if !head.is_empty() {
            self.write_data(&head, host - head.len() as u64, span.start).await?;
        }
        self.write_data(data, host, pos).await?;
        if !tail.is_empty() {
            self.write_data(&tail, host + data.len() as u64, end).await?;
        }
        if self.has(Bug::CopyWithoutBarrier) {
            return Ok(());
        }
        self.barrier().await
    }

    /// What the guest has at `pos`; nothing of it where `data` is empty.
    pub(crate) async fn read_old(&self, data: &Sgl<'_>, pos: u64) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        Box::pin(self.read_inside(data, pos)).await
    }

    /// Writes into a cluster that is compressed, or shared with a snapshot: a new one takes its
    /// place.
    async fn replace(&self, data: &Sgl<'_>, pos: u64, spot: &Spot) -> Result<usize> {
        let geo = &self.geo;
        let size = geo.cluster_size();
        let within = usize::try_from(pos & (size - 1)).unwrap_or(0);
        let start = pos - within as u64;
        let cluster = Sgl::zeroed(usize::try_from(size).unwrap_or(0));
        let len = data.len().min(cluster.len() - within);
        let old = spot.slice.entry(geo, spot.index).kind(geo);
        if within > 0 || len < cluster.len() {
            self.read_old(&cluster, start).await?;
        }
        data.slice(0..len).copy_to(&cluster.slice(within..within + len));
        let claim = self.claim(1).await?;
        let host = claim.first << geo.cluster_bits;
        self.write_data(&cluster, host, start).await?;
        self.barrier().await?;
        let entry = Entry::owned(geo, host, geo.all_granules(), 0);
        self.set_entry(&spot.slice, spot.index, entry);
        spot.slice.set_checked(spot.index, true);
        spot.slice.set_fresh(spot.index, false);
        claim.keep();
        self.unmapped(spot, old);
        self.commit(&spot.slice, spot.slice.changed.get()).await?;
        self.collect_freed();
        Ok(len)
    }

    /// The place that an entry referred to before its latest change is to be freed.
    pub(crate) fn unmapped(&self, spot: &Spot, old: std::result::Result<Kind, &'static str>) {
        match old {
            Ok(Kind::Compressed(compressed)) => self.unmapped_compressed(&spot.slice, compressed),
            Ok(Kind::Plain { host: Some(host), .. }) if !self.geo.data_file => {
                self.unmapped_clusters(&spot.slice, host >> self.geo.cluster_bits, 1);
            }
            _ => {}
        }
    }

    /// Whether the external data file is known to read as zeroes, on stable storage, in a range.
    async fn data_file_is_zero(&self, pos: u64, len: u64) -> Result<bool> {
        let Some(file) = &self.data_file else { return Ok(false) };
        if self.data_zeroed.get() >= self.syncs.done.get() {
            return Ok(false);
        }
        let mut at = pos;
        while at < pos + len {
            match file.map(at, pos + len - at).await? {
                (Extent::Zero, len) => at += len.max(1),
                (Extent::Data, _) => return Ok(false),
            }
        }
        Ok(true)
    }
}
