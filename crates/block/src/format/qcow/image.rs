// SPDX-License-Identifier: Apache-2.0
//! A qcow2 image as a store.
//!
//! # Concurrency
//! - Every I/O holds `image` shared. Operations that remove mappings (discard, zeroes, resize,
//!   reopening) hold it exclusively, so no I/O is in flight then: a cluster that is freed, and may be
//!   handed out again, is neither read nor written by anything older. The engine's futures wait
//!   for the kernel when they are dropped, so this also holds for aborted commands.
//! - Operations that change metadata also hold `meta`: there is one at a time. `imago` keeps an L2
//!   table locked during an allocating write anyway, and this way nothing changes its caches while
//!   they are written out.
//!
//! # Crash consistency
//! A write that allocates is acknowledged after `imago` has written its metadata to the file:
//! refcounts first, then L2 tables. One such flush serves all writes that wait at that time (group
//! commit: `dirty` and `committed` count). Killed at any moment, the process leaves an image
//! without errors, in which clusters may be leaked; it can be used again without a
//! repair. There is no barrier between the two steps, so after a loss of
//! *power* between two flushes of the guest `qemu-img check -r all` may be needed.
//!
//! After an error in the middle of a change, `imago`'s memory may differ from the file (its L1
//! table and reference table are written once only). Then the image is `suspect`, and reopened
//! from the file before the next change.
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};

use imago::format::PreallocateMode;
use sgl::Sgl;
use smallvec::SmallVec;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::extents::Extents;
use super::header::Header;
use super::layered::{Imago, Target};
use super::storage::Storage;
use crate::{Discard, Error, ErrorKind, Facts, Provisioning};

/// How many clusters are looked up at once for the cache of extents.
const LOOKAHEAD: u64 = 64;
/// How many clusters are discarded or zeroed in one go, while other I/O waits.
const BATCH: u64 = 4096;
/// How many mappings an answer about provisioning is made of.
const MAX_STEPS: u32 = 64;
/// `imago` caches 128 L2 tables and 32 refcount blocks, however large. Images with larger clusters
/// than this are reopened when ...
const LARGE_CLUSTER: u64 = 64 << 10;
/// ... so many bytes have been loaded.
const MAX_LOADED: u64 = 16 << 20;
/// Zeroes are written in pieces of this size.
const ZEROES: usize = 64 << 10;

/// A qcow2 image, version 2 or 3. Offsets and lengths in bytes.
#[derive(Debug)]
pub(super) struct Qcow2 {
    image: RwLock<Imago>,
    meta: Mutex<()>,
    storage: Storage,
    extents: RefCell<Extents>,
    path: PathBuf,
    read_only: bool,
    version: u32,
    cluster_size: u64,
    snapshots: bool,
    has_backing: bool,
    /// Virtual size.
    image_size: Cell<u64>,
    /// Size of the logical unit, at most that of the image.
    size: Cell<u64>,
    /// Counts changes of metadata in memory.
    dirty: Cell<u64>,
    /// Up to which of them is in the file.
    committed: Cell<u64>,
    /// Up to which of them is on stable storage.
    synced: Cell<u64>,
    /// A change was broken off.
    suspect: Cell<bool>,
}

/// A piece of guest data that was found in, or put into, the image's file.
struct Found {
    guest: u64,
    len: u64,
    host: u64,
}

/// A change of metadata that is under way; if it is not finished, the image is suspect.
struct Change<'a> {
    image: &'a Qcow2,
    finished: bool,
}

impl<'a> Change<'a> {
    fn begin(image: &'a Qcow2) -> Self {
        image.dirty.set(image.dirty.get() + 1);
        Change { image, finished: false }
    }

    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.image.suspect.set(true);
        }
    }
}

/// The class of an error of `imago`.
pub(super) fn kind_of(e: io::Error, path: &Path) -> ErrorKind {
    if e.kind() == io::ErrorKind::InvalidData {
        return ErrorKind::Invalid(format!("{e}; run `qemu-img check {}`", path.display()));
    }
    ErrorKind::Io(e)
}

impl Qcow2 {
    /// Takes an open image; `size` is that of the logical unit.
    pub(super) fn new(
        image: Imago,
        header: &Header,
        storage: Storage,
        path: &Path,
        read_only: bool,
        size: u64,
    ) -> Self {
        Qcow2 {
            has_backing: image.backing_size().is_some(),
            image: RwLock::new(image),
            meta: Mutex::new(()),
            storage,
            extents: RefCell::default(),
            path: path.to_owned(),
            read_only,
            version: header.version,
            cluster_size: header.cluster_size(),
            snapshots: header.snapshots > 0,
            image_size: header.size.into(),
            size: size.into(),
            dirty: Cell::new(0),
            committed: Cell::new(0),
            synced: Cell::new(0),
            suspect: Cell::new(false),
        }
    }

    pub(super) fn facts(&self) -> Facts {
        let cluster_size = u32::try_from(self.cluster_size).unwrap_or(u32::MAX);
        // Version 2 has no clusters that read as zeroes although the backing file has data.
        let discards = !self.read_only && (self.version >= 3 || !self.has_backing);
        Facts {
            size: self.size.get(),
            read_only: self.read_only,
            optimal_io: cluster_size,
            request_alignment: 1,
            shared: false,
            discard: discards.then_some(Discard { granularity: cluster_size, zeroes: true }),
            write_zeroes: !self.read_only && self.version >= 3,
        }
    }

    fn error(&self, kind: impl Into<ErrorKind>, operation: String) -> Error {
        Error::new(kind, operation, &self.path)
    }

    /// An error of an operation on a range, where there is one.
    fn range<T>(
        &self,
        result: io::Result<T>,
        what: &str,
        len: u64,
        offset: u64,
    ) -> Result<T, Error> {
        result.map_err(|e| {
            self.error(kind_of(e, &self.path), format!("{what} {len} bytes at {offset}"))
        })
    }

    fn check_bounds(&self, what: &str, len: u64, offset: u64) -> Result<(), Error> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size.get() => Ok(()),
            _ => self.range(Err(io::ErrorKind::InvalidInput.into()), what, len, offset),
        }
    }

    fn check_writable(&self, what: &str) -> Result<(), Error> {
        if self.read_only { Err(self.error(ErrorKind::ReadOnly, what.into())) } else { Ok(()) }
    }

    async fn shared(&self) -> RwLockReadGuard<'_, Imago> {
        match self.image.try_read() {
            Ok(image) => image,
            Err(_) => self.image.read().await,
        }
    }

    /// Exclusive access to an image that can be trusted.
    async fn exclusive(&self) -> io::Result<RwLockWriteGuard<'_, Imago>> {
        loop {
            self.refresh().await?;
            let image = self.image.write().await;
            if !self.suspect.get() {
                return Ok(image);
            }
        }
    }

    /// Whether the image has to be reopened.
    fn is_stale(&self) -> bool {
        self.suspect.get()
            || self.cluster_size > LARGE_CLUSTER && self.storage.loaded() > MAX_LOADED
    }

    /// Reopens the image if it has to be.
    async fn refresh(&self) -> io::Result<()> {
        if !self.is_stale() {
            return Ok(());
        }
        let mut image = self.image.write().await;
        if !self.is_stale() {
            return Ok(());
        }
        let suspect = self.suspect.get();
        let now = self.dirty.get();
        if !self.read_only {
            // From here on only the file counts; what is lost was not acknowledged.
            self.suspect.set(true);
            if let Err(e) = image.access().flush().await {
                tracing::warn!("{}: metadata cannot be written: {e}", self.path.display());
            }
        }
        if suspect {
            tracing::warn!("{}: reopening it after an error", self.path.display());
        }
        self.extents.borrow_mut().clear();
        image.reopen(!self.read_only).await?;
        self.storage.take_loaded();
        self.committed.set(now);
        self.suspect.set(false);
        Ok(())
    }

    /// Fills all of `data` from `offset`.
    pub(super) async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let len = data.len() as u64;
        self.check_bounds("read", len, offset)?;
        if self.is_stale()
            && let Err(e) = Box::pin(self.refresh()).await
        {
            // Reading what is in memory is still possible.
            tracing::warn!("{}: cannot be reopened: {e}", self.path.display());
        }
        let image = self.shared().await;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let found = self.extents.borrow_mut().find(at);
            let result = match found {
                Some((host, n)) => {
                    let n = usize::try_from(n).unwrap_or(usize::MAX).min(data.len() - done);
                    let result = if n == data.len() {
                        self.storage.read(data, host).await
                    } else {
                        self.storage.read(&data.slice(done..done + n), host).await
                    };
                    result.map(|()| n)
                }
                None => {
                    Box::pin(self.read_unmapped(&image, &data.slice(done..data.len()), at)).await
                }
            };
            done += self.range(result, "read", len, offset)?;
        }
        Ok(())
    }

    /// Reads a part that the cache does not know, and tells the cache; returns how many bytes.
    async fn read_unmapped(&self, image: &Imago, data: &Sgl<'_>, offset: u64) -> io::Result<usize> {
        let start = offset - offset % self.cluster_size;
        let skip = offset - start;
        let wanted = (skip + data.len() as u64).max(LOOKAHEAD * self.cluster_size);
        let most = wanted.min(self.image_size.get() - start);
        let (target, n) = image.resolve(start, most).await?;
        match target {
            Target::Data { offset: host, top: true, owned, .. } if n > skip => {
                // A mapping that is not in the file yet may only be used by whoever waits for
                // that.
                let settled = owned && self.dirty.get() == self.committed.get();
                if settled || self.read_only {
                    self.extents.borrow_mut().insert(start, n, host);
                }
                let len = data.len().min(usize::try_from(n - skip).unwrap_or(usize::MAX));
                self.storage.read(&data.slice(0..len), host + skip).await?;
                Ok(len)
            }
            target if skip == 0 => image.read_target(&target, data, n).await,
            _ => {
                let (target, n) = image.resolve(offset, data.len() as u64).await?;
                image.read_target(&target, data, n).await
            }
        }
    }

    /// Writes all of `data` at `offset`.
    pub(super) async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.check_writable("write")?;
        let len = data.len() as u64;
        self.check_bounds("write", len, offset)?;
        // With all metadata on stable storage, the data alone has to follow.
        let dsync = fua && self.synced.get() == self.committed.get();
        let image = self.shared().await;
        let mut done = 0;
        while done < data.len() {
            let found = self.extents.borrow_mut().find(offset + done as u64);
            let Some((host, n)) = found else {
                break;
            };
            let n = usize::try_from(n).unwrap_or(usize::MAX).min(data.len() - done);
            let result = if n == data.len() {
                self.storage.write(data, host, dsync).await
            } else {
                self.storage.write(&data.slice(done..done + n), host, dsync).await
            };
            if result.is_err() && dsync {
                return self.range(result, &self.storage.durable("write"), len, offset);
            }
            self.range(result, "write", len, offset)?;
            done += n;
        }
        drop(image);
        if done < data.len() {
            let rest = data.slice(done..data.len());
            let result = Box::pin(self.write_unmapped(&rest, offset + done as u64)).await;
            self.range(result, "write", len, offset)?;
        } else if dsync {
            return Ok(());
        }
        if fua { self.flush().await } else { Ok(()) }
    }

    /// Writes what the cache does not know, allocating where needed; tells the cache.
    async fn write_unmapped(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        loop {
            self.refresh().await?;
            let image = self.image.read().await;
            let meta = self.meta.lock().await;
            if self.suspect.get() {
                continue;
            }
            let mut found = SmallVec::new();
            let written = self.write_locked(&image, data, offset, &mut found).await;
            drop(meta);
            // Also after an error: what was allocated may have to be freed again.
            let committed = self.commit(&image).await;
            written?;
            committed?;
            let mut extents = self.extents.borrow_mut();
            for Found { guest, len, host } in found {
                // Whole clusters: all of a cluster is where its part is.
                let head = guest % self.cluster_size;
                let len = (head + len).next_multiple_of(self.cluster_size);
                extents.insert(guest - head, len, host - head);
            }
            return Ok(());
        }
    }

    /// Writes while nobody else changes metadata; adds to `found` where the data is.
    async fn write_locked(
        &self,
        image: &Imago,
        data: &Sgl<'_>,
        offset: u64,
        found: &mut SmallVec<[Found; 2]>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (target, n) = image.resolve(at, (data.len() - done) as u64).await?;
            let (host, n) = match target {
                Target::Data { offset: host, owned: true, .. } => {
                    let n = usize::try_from(n).unwrap_or(usize::MAX).min(data.len() - done);
                    self.storage.write(&data.slice(done..done + n), host, false).await?;
                    (host, n)
                }
                Target::Compressed { depth: 0, .. } => {
                    self.check_edges(image, at, n).await?;
                    self.allocate(image, &data.slice(done..data.len()), at, n).await?
                }
                _ => self.allocate(image, &data.slice(done..data.len()), at, n).await?,
            };
            found.push(Found { guest: at, len: n as u64, host });
            done += n;
        }
        Ok(())
    }

    /// Checks the compressed clusters that a write from `at` to `at + len` changes in part.
    async fn check_edges(&self, image: &Imago, at: u64, len: u64) -> io::Result<()> {
        let first = at - at % self.cluster_size;
        let end = at + len;
        let last = end - end % self.cluster_size;
        if first != at {
            image.check_compressed(first).await?;
        }
        if last != end && (last != first || first == at) {
            image.check_compressed(last).await?;
        }
        Ok(())
    }

    /// Writes the beginning of `data`, at most `len` bytes, to clusters that are allocated for it;
    /// returns where it is and how much.
    async fn allocate(
        &self,
        image: &Imago,
        data: &Sgl<'_>,
        offset: u64,
        len: u64,
    ) -> io::Result<(u64, usize)> {
        let change = Change::begin(self);
        let mapping = image.access().prepare_data_mapping(offset, len, true).await?;
        let host = mapping.offset();
        if host < self.cluster_size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the cluster of its header counts as free",
            ));
        }
        let n = usize::try_from(mapping.length()).unwrap_or(usize::MAX).min(data.len());
        if let Err(e) = self.storage.write(&data.slice(0..n), host, false).await {
            // The clusters are freed by the next flush, and nothing else has changed.
            drop(mapping);
            change.finish();
            return Err(e);
        }
        image.access().commit_data_mapping(mapping).await?;
        change.finish();
        Ok((host, n))
    }

    /// Waits until all changes up to now are in the file.
    async fn commit(&self, image: &Imago) -> io::Result<()> {
        let wanted = self.dirty.get();
        while self.committed.get() < wanted {
            let _meta = self.meta.lock().await;
            let now = self.dirty.get();
            if self.committed.get() >= wanted {
                break;
            }
            if let Err(e) = image.access().flush().await {
                self.suspect.set(true);
                return Err(e);
            }
            self.committed.set(now);
        }
        Ok(())
    }

    /// Brings everything acknowledged to stable storage; its metadata is in the file already.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        let committed = self.committed.get();
        let result = self.storage.sync_data().await;
        result.map_err(|e| self.error(e, self.storage.durable("flush")))?;
        self.synced.set(self.synced.get().max(committed));
        Ok(())
    }

    /// Frees a range; it reads as zeroes then.
    pub(super) async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.check_writable("discard")?;
        self.check_bounds("discard", len, offset)?;
        if self.facts().discard.is_none() {
            let text = "version 2 images with a backing file cannot discard; run `qemu-img amend \
                        -o compat=1.1` on it";
            return Err(self.error(ErrorKind::Unsupported(text.into()), "discard".into()));
        }
        let result = Box::pin(self.zero(offset, len, true)).await;
        self.range(result, "discard", len, offset)
    }

    /// Makes a range read as zeroes.
    pub(super) async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        may_unmap: bool,
    ) -> Result<(), Error> {
        self.check_writable("write zeroes")?;
        self.check_bounds("write zeroes", len, offset)?;
        if self.version >= 3 || may_unmap && !self.has_backing {
            let result = Box::pin(self.zero(offset, len, may_unmap)).await;
            return self.range(result, "write zeroes to", len, offset);
        }
        let mut zeroes = vec![0; ZEROES];
        let zeroes = Sgl::from_slice(&mut zeroes);
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).unwrap_or(usize::MAX).min(ZEROES);
            self.write(&zeroes.slice(0..n), offset + done, false).await?;
            done += n as u64;
        }
        Ok(())
    }

    /// Makes a range read as zeroes; frees its clusters with `free`.
    async fn zero(&self, offset: u64, len: u64, free: bool) -> io::Result<()> {
        let end = offset + len;
        let batch = BATCH * self.cluster_size;
        let mut at = offset;
        while at < end {
            let next = end.min((at / batch + 1) * batch);
            let mut image = self.exclusive().await?;
            let zeroed = self.zero_batch(&mut image, at, next, free).await;
            let committed = self.commit(&image).await;
            zeroed.and(committed)?;
            at = next;
        }
        Ok(())
    }

    async fn zero_batch(
        &self,
        image: &mut Imago,
        start: u64,
        end: u64,
        free: bool,
    ) -> io::Result<()> {
        let cluster_size = self.cluster_size;
        let first = start.next_multiple_of(cluster_size);
        // Past the end of the image, the last cluster holds no data.
        let last = if end == self.image_size.get() { end } else { end - end % cluster_size };
        if first >= last {
            return self.zero_part(image, start, end).await;
        }
        self.zero_part(image, start, first).await?;
        self.zero_part(image, last, end).await?;
        self.extents.borrow_mut().remove(first..last.next_multiple_of(cluster_size));
        let mut at = first;
        while at < last {
            let (target, n) = image.resolve(at, last - at).await?;
            let (is_zero, host) = match target {
                Target::Zero { explicit } => (!explicit || !free, None),
                Target::Data { owned: true, offset, .. } => (false, Some(offset)),
                _ => (false, None),
            };
            // The clusters of a layer below may be smaller.
            let whole =
                if is_zero { n - n % cluster_size } else { n.next_multiple_of(cluster_size) };
            let reaches_end = is_zero && at + n == last;
            let n = if reaches_end { n } else { whole.max(cluster_size).min(last - at) };
            if !(reaches_end || is_zero && whole > 0) {
                // Before the clusters are freed: after that they may be used for metadata at any time.
                if let Some(host) = host.filter(|_| free)
                    && let Err(e) = self.storage.punch(host, n.next_multiple_of(cluster_size)).await
                {
                    tracing::warn!("{}: cannot punch a hole: {e}", self.path.display());
                }
                self.remap(image, at, n, free).await?;
            }
            at += n;
        }
        Ok(())
    }

    /// Makes whole clusters read as zeroes, however they are mapped.
    async fn remap(&self, image: &mut Imago, offset: u64, len: u64, free: bool) -> io::Result<()> {
        let change = Change::begin(self);
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let driver = image.access_mut().inner_mut();
            let (from, n) = match (free, self.version) {
                (false, _) => driver.ensure_zero_mapping(at, end - at).await?,
                (true, 3..) => driver.discard_to_zero(at, end - at).await?,
                // Only without a backing file, see `discard` and `write_zeroes`.
                (true, _) => driver.discard_to_backing(at, end - at).await?,
            };
            if from != at || n == 0 {
                return Err(io::Error::other(format!("the cluster at {at} was left out")));
            }
            at += n;
        }
        change.finish();
        Ok(())
    }

    /// Writes zeroes to a part of a cluster, where it has data.
    async fn zero_part(&self, image: &Imago, start: u64, end: u64) -> io::Result<()> {
        let mut at = start;
        let mut zeroes = Vec::new();
        while at < end {
            let (target, n) = image.resolve(at, end - at).await?;
            if matches!(target, Target::Zero { .. }) {
                at += n;
                continue;
            }
            zeroes.resize(ZEROES, 0);
            let n = usize::try_from(n).unwrap_or(usize::MAX).min(ZEROES);
            let data = Sgl::from_slice(&mut zeroes).slice(0..n);
            self.write_locked(image, &data, at, &mut SmallVec::new()).await?;
            at += n as u64;
        }
        Ok(())
    }

    /// Whether there is data at `offset`, here or in a backing file, and for how many bytes, at
    /// most `len`, that holds.
    pub(super) async fn provisioning(
        &self,
        offset: u64,
        len: u64,
    ) -> Result<(Provisioning, u64), Error> {
        self.check_bounds("look for data in", len, offset)?;
        let image = self.image.read().await;
        let mut answer = None;
        let mut at = offset;
        for _ in 0..MAX_STEPS {
            let left = offset + len - at;
            if left == 0 {
                break;
            }
            let resolved = image.resolve(at, left).await;
            let (target, n) = self.range(resolved, "look for data in", len, offset)?;
            let kind = match target {
                Target::Zero { .. } => Provisioning::Deallocated,
                Target::Data { .. } | Target::Compressed { .. } => Provisioning::Mapped,
            };
            if answer.is_some_and(|answer| answer != kind) {
                break;
            }
            answer = Some(kind);
            at += n.min(left);
        }
        Ok((answer.unwrap_or(Provisioning::Deallocated), (at - offset).max(1)))
    }

    /// Changes the size of the logical unit. The image is grown where it is smaller; it is never
    /// made smaller, which would destroy data: `qemu-img resize --shrink` does that.
    pub(super) async fn resize(&self, size: u64) -> Result<(), Error> {
        let what = format!("resize to {size} bytes");
        if size > self.image_size.get() {
            self.check_writable(&what)?;
            if self.version < 3 && self.snapshots {
                let text = "version 2 images with snapshots have one size only";
                return Err(self.error(ErrorKind::Unsupported(text.into()), what));
            }
            let result = Box::pin(self.grow(size)).await;
            result.map_err(|e| match e.kind() {
                io::ErrorKind::Unsupported => {
                    self.error(ErrorKind::Unsupported(e.to_string()), what)
                }
                _ => self.error(kind_of(e, &self.path), what),
            })?;
        }
        self.size.set(size);
        Ok(())
    }

    async fn grow(&self, size: u64) -> io::Result<()> {
        let image = self.exclusive().await?;
        let old = self.image_size.get();
        if size <= old {
            return Ok(());
        }
        // What the backing file has past the old end must not become visible.
        let hides = image.backing_size().is_some_and(|backing| backing > old);
        let mode = if hides { PreallocateMode::Zero } else { PreallocateMode::None };
        if hides && self.version < 3 {
            let text = "the backing file of a version 2 image is larger than the image; run \
                        `qemu-img amend -o compat=1.1` on it";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let change = Change::begin(self);
        let grown = image.access().resize_grow(size, mode).await;
        if grown.is_ok() {
            self.image_size.set(size);
            change.finish();
        }
        let rest = match grown {
            // The rest of the last cluster may hold anything.
            Ok(()) => {
                let end = old.next_multiple_of(self.cluster_size).min(size);
                self.zero_part(&image, old, end).await
            }
            Err(e) => Err(e),
        };
        let committed = self.commit(&image).await;
        rest.and(committed)
    }

    /// Brings everything to stable storage.
    pub(super) async fn close(&self) -> Result<(), Error> {
        if self.read_only {
            return Ok(());
        }
        let closing = async {
            let image = self.exclusive().await?;
            image.access().flush().await?;
            self.committed.set(self.dirty.get());
            self.storage.sync_data().await
        };
        closing.await.map_err(|e| self.error(kind_of(e, &self.path), "close".into()))
    }
}
