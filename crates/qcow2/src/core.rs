// SPDX-License-Identifier: Apache-2.0
//! What all parts of the engine share: the storages, the tables in memory, and the state of the
//! image. The modules around it each add one concept.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use sgl::Sgl;

use crate::ErrorKind;
use crate::bitmaps::Bitmaps;
use crate::busy::Busy;
use crate::crypt::Encryption;
use crate::data::Inflated;
use crate::error::Result;
use crate::free::Freed;
use crate::gate::Gate;
use crate::geometry::Geometry;
use crate::layout::entry::OFFSET_MASK;
use crate::layout::header::Header;
use crate::pack::Pack;
use crate::planted::Bug;
use crate::reserve::Reserve;
use crate::slice::{Cache, Slice, Table};
use crate::storage::Storage;
use crate::sync::Syncs;
use crate::wait::Jobs;

/// Words of the header, by their place in the first cluster.
pub(crate) mod field {
    pub(crate) const SIZE: usize = 3;
    /// The encryption method, and the number of L1 entries.
    pub(crate) const L1_ENTRIES: usize = 4;
    pub(crate) const L1_OFFSET: usize = 5;
    pub(crate) const REFTABLE_OFFSET: usize = 6;
    /// The refcount table's clusters, and the number of snapshots.
    pub(crate) const REFTABLE_CLUSTERS: usize = 7;
    pub(crate) const SNAPSHOTS_OFFSET: usize = 8;
    pub(crate) const INCOMPATIBLE: usize = 9;
    pub(crate) const AUTOCLEAR: usize = 11;
}

/// See the module's text.
pub(crate) struct Core<S: Storage + 'static> {
    pub(crate) me: Weak<Core<S>>,
    pub(crate) storage: S,
    pub(crate) data_file: Option<S>,
    pub(crate) backing: Option<S>,
    /// Length of the backing store in bytes.
    pub(crate) backing_len: u64,
    pub(crate) geo: Geometry,
    /// How guest data is encrypted.
    pub(crate) encryption: Option<Encryption>,
    /// As it was at opening.
    pub(crate) header: Header,
    pub(crate) read_only: bool,
    /// Whether the space of freed clusters is given back.
    pub(crate) punch: bool,
    /// Whether guest data is written compressed.
    pub(crate) compress: bool,
    /// Virtual size in bytes.
    pub(crate) size: Cell<u64>,
    /// The number of clusters in the file, the last of which may be a part.
    pub(crate) end: Cell<u64>,
    /// The first slice of the header.
    pub(crate) head: Rc<Slice>,
    pub(crate) l1: RefCell<Table>,
    pub(crate) reftable: RefCell<Table>,
    /// Clusters of metadata, by number: none is a guest's.
    pub(crate) metadata: RefCell<BTreeSet<u64>>,
    pub(crate) cache: Cache,
    /// Slices that differ from the file.
    pub(crate) dirty: RefCell<BTreeMap<u64, Rc<Slice>>>,
    pub(crate) inflated: Inflated,
    pub(crate) syncs: Syncs,
    pub(crate) gate: Gate,
    /// Guest clusters.
    pub(crate) busy: Busy,
    /// Entries of the L1 table.
    pub(crate) busy_tables: Busy,
    pub(crate) reserve: Reserve,
    pub(crate) pack: Pack,
    pub(crate) freed: Freed,
    pub(crate) jobs: Jobs,
    /// Whether the header allows writes to guest data.
    pub(crate) writable: Cell<bool>,
    /// Whether the header says that the image is in use.
    pub(crate) in_use: Cell<bool>,
    /// Whether the refcounts are right, as far as that is known: they were when it was opened, and
    /// no error has left clusters whose refcounts are too high for good.
    pub(crate) sound: Cell<bool>,
    /// The last sync that had been started when a part of the data file was zeroed.
    pub(crate) data_zeroed: Cell<u64>,
    /// Length of the file at opening, in bytes.
    pub(crate) opened_len: u64,
    /// A bug to be found.
    #[cfg(feature = "planted")]
    pub(crate) planted: Option<crate::Bug>,
    /// Why nothing may be written any more.
    pub(crate) broken: RefCell<Option<String>>,
    /// Those that count, where it may be written.
    pub(crate) bitmaps: Option<Bitmaps>,
}

/// A cached L2 entry.
pub(crate) struct Spot {
    pub(crate) slice: Rc<Slice>,
    pub(crate) index: usize,
    /// Whether the file has it and all that leads to it.
    pub(crate) written: bool,
}

/// What there is for a guest's offset.
pub(crate) enum Found {
    /// Its entry.
    Spot(Spot),
    /// The slice at this offset has to be read.
    Load(u64),
    /// No L2 table.
    NoTable,
}

impl<S: Storage + 'static> Core<S> {
    pub(crate) fn rc(&self) -> Rc<Core<S>> {
        // Nobody calls a method of what is not there any more.
        #[allow(clippy::expect_used)]
        self.me.upgrade().expect("a method of it runs")
    }

    /// Where guest data is.
    pub(crate) fn data(&self) -> &S {
        self.data_file.as_ref().unwrap_or(&self.storage)
    }

    /// Looks in memory for the entry of a guest's offset.
    #[inline]
    pub(crate) fn find(&self, pos: u64) -> Result<Found> {
        let l1 = self.l1.borrow();
        let Some((l1_slice, within)) = l1.slot(self.geo.l1_index(pos)) else {
            return Ok(Found::NoTable);
        };
        let table = l1_slice.get(within) & OFFSET_MASK;
        if table == 0 {
            return Ok(Found::NoTable);
        }
        if table & (self.geo.cluster_size() - 1) != 0 {
            return Err(self.bad_table(pos, table));
        }
        let (slice_offset, index) = self.geo.l2_index(pos);
        let offset = table + slice_offset;
        Ok(match self.cache.get(offset) {
            Some(slice) => {
                let written = l1_slice.is_clean() && slice.is_clean();
                Found::Spot(Spot { slice, index, written })
            }
            None => Found::Load(offset),
        })
    }

    #[cold]
    fn bad_table(&self, pos: u64, table: u64) -> ErrorKind {
        ErrorKind::hopeless(format_args!(
            "the L1 entry {} refers to an L2 table at {table:#x}, which is not aligned to a cluster",
            self.geo.l1_index(pos)
        ))
    }

    /// The entry of a guest's offset, if there is an L2 table.
    pub(crate) async fn spot(&self, pos: u64) -> Result<Option<Spot>> {
        loop {
            match self.find(pos)? {
                Found::Spot(spot) => return Ok(Some(spot)),
                Found::NoTable => return Ok(None),
                Found::Load(offset) => drop(self.load(offset).await?),
            }
        }
    }

    /// A slice of an L2 table or a refcount block, from the cache or the file.
    pub(crate) async fn load(&self, offset: u64) -> Result<Rc<Slice>> {
        struct Loading<'a>(&'a Cache, u64);
        impl Drop for Loading<'_> {
            fn drop(&mut self) {
                self.0.loading.borrow_mut().remove(&self.1);
                self.0.loaded.notify();
            }
        }
        loop {
            if let Some(slice) = self.cache.get(offset) {
                return Ok(slice);
            }
            if !self.cache.loading.borrow_mut().insert(offset) {
                self.jobs.wait(&self.cache.loaded).await;
                continue;
            }
            let loading = Loading(&self.cache, offset);
            self.check_inside(offset, 1, "an L2 table or refcount block").await?;
            let slice = Rc::new(read_slice(&self.storage, offset, self.geo.slice_size()).await?);
            self.cache.insert(&slice, self.has(Bug::EvictedDirty));
            drop(loading);
            return Ok(slice);
        }
    }

    /// Reads a table of `len` entries wholly.
    pub(crate) async fn load_table(
        storage: &S,
        geo: &Geometry,
        offset: u64,
        len: usize,
    ) -> Result<Table> {
        let size = geo.slice_size();
        let bytes = len as u64 * 8;
        let mut slices = Vec::new();
        let mut at = 0;
        while at < bytes {
            // A megabyte at a time.
            let part = (bytes - at).next_multiple_of(size).min(1 << 20);
            let buf = Sgl::zeroed(usize::try_from(part).unwrap_or(0));
            storage.read(&buf, offset + at).await?;
            for within in (0..part).step_by(usize::try_from(size).unwrap_or(512)) {
                let start = usize::try_from(within).unwrap_or(0);
                let end = usize::try_from(within + size).unwrap_or(0);
                slices.push(Rc::new(Slice::new(offset + at + within, &buf.slice(start..end))));
            }
            at += part;
        }
        Ok(Table::new(offset, len, slices, geo.slice_bits))
    }

    /// Refuses what is not inside the image. To be asked inside the gate.
    #[inline]
    pub(crate) fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size.get() => Ok(()),
            _ => Err(self.past_the_end()),
        }
    }

    #[cold]
    fn past_the_end(&self) -> ErrorKind {
        ErrorKind::Unsupported(format!(
            "it is past the end of the image, which has {} bytes",
            self.size.get()
        ))
    }

    /// The error for an image that may not be written to.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(ErrorKind::ReadOnly);
        }
        match &*self.broken.borrow() {
            Some(why) => Err(ErrorKind::Invalid(why.clone())),
            None => Ok(()),
        }
    }

    /// Runs something to its end that must not stop half-way, whatever becomes of the caller.
    pub(crate) async fn run<T: 'static>(
        &self,
        work: impl Future<Output = Result<T>> + 'static,
    ) -> Result<T> {
        struct Outcome<T> {
            value: RefCell<Option<Result<T>>>,
            ended: crate::wait::Event,
        }
        let outcome = Rc::new(Outcome { value: RefCell::new(None), ended: Default::default() });
        let theirs = outcome.clone();
        self.jobs.push(Box::pin(async move {
            let value = work.await;
            *theirs.value.borrow_mut() = Some(value);
            theirs.ended.notify();
        }));
        loop {
            if let Some(value) = outcome.value.take() {
                return value;
            }
            self.jobs.wait(&outcome.ended).await;
        }
    }
}

/// Reads a slice.
pub(crate) async fn read_slice(
    storage: &impl Storage,
    offset: u64,
    size: u64,
) -> std::io::Result<Slice> {
    let buf = Sgl::zeroed(usize::try_from(size).unwrap_or(0));
    storage.read(&buf, offset).await?;
    Ok(Slice::new(offset, &buf))
}
