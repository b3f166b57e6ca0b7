// SPDX-License-Identifier: Apache-2.0
//! Writing with `compress=on`: each cluster that a write touches is compressed as a whole, with what
//! it has around what is written, and goes to a new place. One that would not become smaller is
//! written as it is.
//!
//! Rule: **data before mapping**: all bytes of a compressed cluster are on stable storage before an
//! entry refers to them. What it replaces is freed as the module `free` says.
use sgl::Sgl;

use crate::ErrorKind;
use crate::compress::compress;
use crate::core::{Core, Spot};
use crate::error::Result;
use crate::geometry::{Entry, Kind};
use crate::layout::entry::L2Entry;
use crate::reserve::Claim;
use crate::storage::{SECTOR, Storage};

/// How many bytes of the guest share a barrier, at most, unless a cluster is larger.
const MAX_BATCH_BYTES: u64 = 1 << 20;

impl<S: Storage + 'static> Core<S> {
    /// Writes the first bytes of `data`. Returns how many.
    pub(crate) async fn write_compressed(&self, data: &Sgl<'_>, pos: u64) -> Result<usize> {
        let geo = &self.geo;
        let bits = geo.cluster_bits;
        self.check_synced()?;
        let (_, first) = geo.l2_index(pos);
        let cluster = pos >> bits;
        let wanted = (pos + data.len() as u64).div_ceil(1 << bits) - cluster;
        let in_slice = (geo.slice_entries() - first) as u64;
        let count = wanted.min(in_slice).min((MAX_BATCH_BYTES >> bits).max(1));
        let _locked = self.busy.lock(&self.jobs, cluster..cluster + count).await;
        let spot = self.spot_for_write(pos).await?;
        let start = cluster << bits;
        let end = (pos + data.len() as u64).min(start + (count << bits));
        let len = usize::try_from(end - pos).unwrap_or(0);
        let content = self.around(&data.slice(0..len), pos).await?;
        let size = usize::try_from(geo.cluster_size()).unwrap_or(0);
        let mut written = Vec::new();
        for number in 0..usize::try_from(count).unwrap_or(0) {
            let spot =
                Spot { slice: spot.slice.clone(), index: spot.index + number, written: false };
            let at = start + (number * size) as u64;
            let kind = spot.slice.entry(geo, spot.index).kind(geo);
            let old = kind.map_err(|what| self.bad_entry(&spot, spot.index, at, what))?;
            if let Kind::Plain { host: Some(host), .. } = old {
                self.check_owner(&spot, at, host).await?;
            }
            let part = content.slice(number * size..(number + 1) * size);
            let (entry, claim) = self.write_cluster(&part).await?;
            written.push((spot, old, entry, claim));
        }
        self.barrier().await?;
        for (spot, old, entry, claim) in written {
            self.set_entry(&spot.slice, spot.index, entry);
            spot.slice.set_checked(spot.index, false);
            spot.slice.set_fresh(spot.index, false);
            claim.keep();
            self.unmapped(&spot, Ok(old));
        }
        self.commit(&spot.slice, spot.slice.changed.get()).await?;
        self.collect_freed();
        Ok(len)
    }

    /// Whole clusters: `data`, which is at `pos`, and around it what the guest has.
    async fn around(&self, data: &Sgl<'_>, pos: u64) -> Result<Sgl<'static>> {
        let size = self.geo.cluster_size();
        let end = pos + data.len() as u64;
        let start = pos & !(size - 1);
        let head = usize::try_from(pos - start).unwrap_or(0);
        let tail = head + data.len();
        let whole = usize::try_from(end.next_multiple_of(size) - start).unwrap_or(0);
        let content = Sgl::zeroed(whole);
        self.read_old(&content.slice(0..head), start).await?;
        self.read_old(&content.slice(tail..whole), end).await?;
        data.copy_to(&content.slice(head..tail));
        Ok(content)
    }

    /// Writes one cluster to a new place, and returns what its entry is to be.
    async fn write_cluster(&self, content: &Sgl<'_>) -> Result<(Entry, Claim<'_, S>)> {
        let geo = &self.geo;
        let mut bytes = vec![0; content.len()];
        content.read_at(0, &mut bytes);
        let sector = usize::try_from(SECTOR).unwrap_or(1);
        let smaller = compress(self.header.compression, &bytes)
            .filter(|bytes| bytes.len().next_multiple_of(sector) < content.len());
        let Some(smaller) = smaller else {
            let claim = self.claim(1).await?;
            let host = claim.first << geo.cluster_bits;
            self.storage.write(content, host).await?;
            return Ok((Entry::owned(geo, host, geo.all_granules(), 0), claim));
        };
        let padded = Sgl::zeroed(smaller.len().next_multiple_of(sector));
        padded.write_at(0, &smaller);
        let (host, claim) = self.claim_piece(padded.len() as u64).await?;
        let Some(entry) = L2Entry::of_compressed(host, smaller.len() as u64, geo.cluster_bits)
        else {
            return Err(ErrorKind::Unsupported(format!(
                "a compressed cluster cannot be at {host:#x}; write to it without compress=on"
            )));
        };
        self.storage.write(&padded, host).await?;
        Ok((Entry { word: entry.0, bitmap: 0 }, claim))
    }
}
