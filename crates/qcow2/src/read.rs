// SPDX-License-Identifier: Apache-2.0
//! Reading, and what is where. A run of clusters that are contiguous in the guest and in the file
//! is one read. Where that is all of a request, and the tables are in memory, nothing but that read
//! is awaited: this is the data path.
use sgl::Sgl;

use crate::ErrorKind;
use crate::core::{Core, Found, Spot};
use crate::error::Result;
use crate::gate::Inside;
use crate::geometry::Kind;
use crate::layout::entry::Compressed;
use crate::storage::{Extent, Storage};

/// Where a guest's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// In the image's file, or the external data file, as they are.
    Data {
        /// Offset there.
        host: u64,
    },
    /// They are compressed.
    Compressed,
    /// They are zero.
    Zero {
        /// Where the place that is kept for them is.
        host: Option<u64>,
    },
    /// They are those of the backing store, or zero where there is none.
    Unallocated,
}

/// As [`Mapping`], for reading.
enum Place {
    Data(u64),
    Zero(Option<u64>),
    Unallocated,
    Compressed(Compressed),
}

/// The length, from granule `first` on, of the run of granules of the same state in a mask.
fn run(mask: u32, first: u32) -> u32 {
    let shifted = mask >> first;
    if shifted & 1 != 0 { shifted.trailing_ones() } else { shifted.trailing_zeros() }
}

impl<S: Storage + 'static> Core<S> {
    /// Fills `data` from `offset`, which is inside the image.
    pub(crate) async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<()> {
        match self.begin_read(offset, data.len() as u64) {
            Some((_inside, host)) => Ok(self.data().read(data, host).await?),
            None => Box::pin(self.read_pieces(data, offset)).await,
        }
    }

    /// Enters the gate for a read of data that is in one piece, as the tables in memory say, and not
    /// encrypted. What else there is to read, or to refuse, is left to
    /// [`read_pieces`](Self::read_pieces).
    #[inline]
    fn begin_read(&self, offset: u64, len: u64) -> Option<(Inside<'_>, u64)> {
        let inside = self.try_enter()?;
        self.check_range(offset, len).ok()?;
        if self.encryption.is_some() {
            return None;
        }
        let Ok(Found::Spot(spot)) = self.find(offset) else { return None };
        match self.place(&spot, offset, len) {
            Ok((Place::Data(host), there)) if there == len && self.is_data(host, len) => {
                Some((inside, host))
            }
            _ => None,
        }
    }

    async fn read_pieces(&self, data: &Sgl<'_>, offset: u64) -> Result<()> {
        let _inside = self.enter().await;
        self.check_range(offset, data.len() as u64)?;
        self.read_inside(data, offset).await
    }

    /// As [`read`](Self::read), for who is in the gate.
    pub(crate) async fn read_inside(&self, data: &Sgl<'_>, offset: u64) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            let pos = offset + done as u64;
            let left = data.len() - done;
            let (place, len) = match self.find(pos)? {
                Found::Spot(spot) => self.place(&spot, pos, left as u64)?,
                Found::NoTable => (Place::Unallocated, self.to_table_end(pos, left as u64)),
                Found::Load(at) => {
                    Box::pin(self.load(at)).await?;
                    continue;
                }
            };
            // Not more than is left.
            let len = usize::try_from(len).unwrap_or(left).min(left);
            let part;
            let whole = if len == data.len() {
                data
            } else {
                part = data.slice(done..done + len);
                &part
            };
            match place {
                Place::Data(host) => {
                    if !self.is_data(host, len as u64) {
                        Box::pin(self.check_data(host, len as u64, pos)).await?;
                    }
                    self.read_data(whole, host, pos).await?;
                }
                Place::Zero(_) => whole.fill(0..len, 0),
                Place::Unallocated => Box::pin(self.read_backing(whole, pos)).await?,
                Place::Compressed(from) => {
                    let cluster = Box::pin(self.inflate(from, pos)).await?;
                    let start = usize::try_from(pos & (self.geo.cluster_size() - 1)).unwrap_or(0);
                    whole.write_at(0, cluster.get(start..start + len).unwrap_or_default());
                }
            }
            done += len;
        }
        Ok(())
    }

    /// What the backing store has, or zeroes.
    pub(crate) async fn read_backing(&self, data: &Sgl<'_>, pos: u64) -> Result<()> {
        let there = self.backing_len.saturating_sub(pos).min(data.len() as u64);
        let there = usize::try_from(there).unwrap_or(0);
        match &self.backing {
            Some(backing) if there == data.len() => backing.read(data, pos).await?,
            Some(backing) if there > 0 => {
                backing.read(&data.slice(0..there), pos).await?;
                data.fill(there..data.len(), 0);
            }
            _ => data.fill(0..data.len(), 0),
        }
        Ok(())
    }

    fn to_table_end(&self, pos: u64, most: u64) -> u64 {
        let size = 1u64.checked_shl(self.geo.table_bits()).unwrap_or(u64::MAX);
        (size - (pos & (size - 1))).min(most)
    }

    /// Where the bytes from `pos` on are, and how many of the next `most` are there, as far as this
    /// slice tells.
    #[inline]
    fn place(&self, spot: &Spot, pos: u64, most: u64) -> Result<(Place, u64)> {
        let first = self.place_in_cluster(spot, spot.index, pos, most)?;
        if first.1 == most { Ok(first) } else { self.place_run(spot, pos, most, first) }
    }

    /// As [`place`](Self::place), where that is known of the first cluster.
    fn place_run(
        &self,
        spot: &Spot,
        pos: u64,
        most: u64,
        (mut place, mut len): (Place, u64),
    ) -> Result<(Place, u64)> {
        let geo = &self.geo;
        let mut index = spot.index + 1;
        while len < most
            && index < geo.slice_entries()
            && (pos + len) & (geo.cluster_size() - 1) == 0
            && !matches!(place, Place::Compressed(_))
        {
            let Ok((next, more)) = self.place_in_cluster(spot, index, pos + len, most - len) else {
                break;
            };
            match (&mut place, next) {
                (Place::Data(host), Place::Data(other)) if *host + len == other => {}
                (Place::Unallocated, Place::Unallocated) => {}
                (Place::Zero(host), Place::Zero(other)) if host.is_none() && other.is_none() => {}
                (Place::Zero(Some(host)), Place::Zero(Some(other))) if *host + len == other => {}
                _ => break,
            }
            len += more;
            index += 1;
        }
        Ok((place, len))
    }

    #[inline]
    fn place_in_cluster(
        &self,
        spot: &Spot,
        index: usize,
        pos: u64,
        most: u64,
    ) -> Result<(Place, u64)> {
        let geo = &self.geo;
        let kind = spot.slice.entry(geo, index).kind(geo);
        let kind = kind.map_err(|what| self.bad_entry(spot, index, pos, what))?;
        let within = pos & (geo.cluster_size() - 1);
        let in_cluster = geo.cluster_size() - within;
        Ok(match kind {
            Kind::Compressed(compressed) => (Place::Compressed(compressed), most.min(in_cluster)),
            Kind::Plain { host, data, zero } => {
                let mut len = in_cluster;
                // Less than 32.
                let first = u32::try_from(within >> geo.granule_bits).unwrap_or(0);
                if geo.extended() {
                    let granules = run(data, first).min(run(zero, first)).min(32 - first);
                    len = (u64::from(first + granules) << geo.granule_bits) - within;
                }
                let at = host.map(|host| host + within);
                let place = match at {
                    Some(at) if data >> first & 1 != 0 => Place::Data(at),
                    at if zero >> first & 1 != 0 => Place::Zero(at),
                    _ => Place::Unallocated,
                };
                (place, most.min(len))
            }
        })
    }

    /// The error of an entry that cannot be.
    #[cold]
    pub(crate) fn bad_entry(&self, spot: &Spot, index: usize, pos: u64, what: &str) -> ErrorKind {
        let entry = spot.slice.entry(&self.geo, index);
        ErrorKind::hopeless(format_args!(
            "the L2 entry {:#x} of the cluster at {:#x} {what}",
            entry.word,
            pos & !(self.geo.cluster_size() - 1)
        ))
    }

    /// What is at `pos`, and how many of the next `most` bytes are alike.
    pub(crate) async fn map(&self, pos: u64, most: u64) -> Result<(Mapping, u64)> {
        let _inside = self.enter().await;
        self.check_range(pos, most)?;
        if most == 0 {
            return Err(ErrorKind::Unsupported("the range is empty".into()));
        }
        let Some(spot) = self.spot(pos).await? else {
            return Ok((Mapping::Unallocated, self.to_table_end(pos, most)));
        };
        let (place, len) = self.place(&spot, pos, most)?;
        let mapping = match place {
            Place::Data(host) => Mapping::Data { host },
            Place::Zero(host) => Mapping::Zero { host },
            Place::Unallocated => Mapping::Unallocated,
            Place::Compressed(_) => Mapping::Compressed,
        };
        Ok((mapping, len))
    }

    /// Whether the backing store is known to read as zeroes in a range.
    pub(crate) async fn backing_is_zero(&self, pos: u64, len: u64) -> Result<bool> {
        let Some(backing) = &self.backing else { return Ok(true) };
        let end = (pos + len).min(self.backing_len);
        let mut at = pos;
        while at < end {
            match backing.map(at, end - at).await? {
                (Extent::Zero, len) => at += len.max(1),
                (Extent::Data, _) => return Ok(false),
            }
        }
        Ok(true)
    }
}
