// SPDX-License-Identifier: Apache-2.0
//! An open image. All of it runs on one thread, and any number of operations side by side: an
//! operation is a future, which may be dropped at any time. What it was doing is then done, or in
//! part, or not; the image stays consistent.
//!
//! # What survives
//! After the death of this process: all that was acknowledged. After loss of power: all that was
//! acknowledged before a [`flush`](Image::flush) that succeeded began; a sector written since has
//! its old or its new content. In both cases the image can be used at once; at worst clusters are
//! leaked. The rules that see to it stand at the top of the modules that keep them. An image that is
//! opened as [`scratch`](Options::scratch) survives the death of this process alone.
use std::convert::Infallible;
use std::rc::Rc;

use luks::Secret;
use sgl::Sgl;

use crate::core::Core;
use crate::layout::header::Header;
use crate::read::Mapping;
use crate::slice::CacheStatistics;
use crate::storage::Storage;
use crate::zero::Zeroing;
use crate::{Error, ErrorKind, open};

/// What an image consists of.
#[derive(Debug)]
pub struct Parts<S> {
    /// Its file.
    pub storage: S,
    /// Its external data file.
    pub data_file: Option<S>,
    /// What is below it. Without it, an image that has a backing file reads as zeroes there.
    pub backing: Option<S>,
}

/// How an image is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Nothing is written to it, whatever its state.
    pub read_only: bool,
    /// The bytes that cached tables may take; by default what the image needs, at most 32 MiB.
    pub cache_bytes: Option<u64>,
    /// Whether the space of what was discarded is given back.
    pub discard: bool,
    /// What is read is the snapshot with this identifier, or else this name.
    pub snapshot: Option<String>,
    /// Whether what is written is compressed.
    pub compress: bool,
    /// Nobody wants the image after a loss of power, which it then need not survive: nothing is
    /// brought to stable storage.
    pub scratch: bool,
    /// The passphrase of an encrypted image.
    pub secret: Option<Secret>,
    /// A bug to be found.
    #[cfg(feature = "planted")]
    pub planted: Option<crate::Bug>,
}

/// See the module's text.
pub struct Image<S: Storage + 'static> {
    pub(crate) core: Rc<Core<S>>,
}

impl<S: Storage + 'static> Image<S> {
    /// Opens an image.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] and [`ErrorKind::Unsupported`] for images that cannot be used.
    pub async fn open(parts: Parts<S>, options: &Options) -> Result<Self, Error> {
        let header = Header::read(&parts.storage).await?;
        let opened = open::open(parts, header, options).await;
        Ok(Image { core: opened.map_err(|kind| Error::new(kind, "open"))? })
    }

    /// Virtual size in bytes.
    pub fn size(&self) -> u64 {
        self.core.size.get()
    }

    /// Size of a cluster in bytes.
    pub fn cluster_size(&self) -> u64 {
        self.core.geo.cluster_size()
    }

    /// Size, in bytes, of what is given a place, discarded or zeroed by itself: a cluster or
    /// subcluster.
    pub fn granule_size(&self) -> u64 {
        self.core.geo.granule_size()
    }

    /// The header as it was at opening; of a snapshot, with the size and L1 table of that.
    pub fn header(&self) -> &Header {
        &self.core.header
    }

    /// What is below it.
    pub fn backing(&self) -> Option<&S> {
        self.core.backing.as_ref()
    }

    /// Whether it was opened to be read only.
    pub fn is_read_only(&self) -> bool {
        self.core.read_only
    }

    /// What the cache has.
    pub fn cache(&self) -> CacheStatistics {
        self.core.cache.statistics()
    }

    /// Fills `data` from `offset`.
    ///
    /// # Errors
    /// Of the storages, and [`ErrorKind::Invalid`] where the image is damaged.
    pub async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        match self.core.read(data, offset).await {
            Ok(()) => Ok(()),
            Err(kind) => {
                Err(Box::pin(self.failed_at(kind, "read", offset, data.len() as u64)).await)
            }
        }
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// As [`read`](Self::read). Each sector then has its old or its new content.
    pub async fn write(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        match self.core.write(data, offset).await {
            Ok(()) => Ok(()),
            Err(kind) => {
                Err(Box::pin(self.failed_at(kind, "write", offset, data.len() as u64)).await)
            }
        }
    }

    /// Brings all that was acknowledged before to stable storage.
    ///
    /// # Errors
    /// A failure is final: every later call fails, too.
    pub async fn flush(&self) -> Result<(), Error> {
        if self.core.read_only {
            return Ok(());
        }
        let result = self.core.flush().await;
        self.core.tend();
        result.map_err(|kind| Error::new(kind, "flush"))
    }

    /// Does the image's own work (giving space back after a flush, filling the reserve) while it is
    /// polled, though no operation runs. It never ends; dropping it loses nothing. Without it this
    /// work goes on with the next operation.
    pub async fn keep_house(&self) -> Infallible {
        self.core.jobs.keep().await
    }

    /// Gives up what whole clusters (subclusters) of a range hold: they read as zeroes. The rest
    /// of the range stays as it is.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.zero(offset, len, Zeroing::Discard, "discard").await
    }

    /// Makes a range read as zeroes; with `may_unmap` its space may be given up.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        let how = if may_unmap { Zeroing::Unmap } else { Zeroing::Keep };
        self.zero(offset, len, how, "write zeroes").await
    }

    async fn zero(
        &self,
        offset: u64,
        len: u64,
        how: Zeroing,
        operation: &str,
    ) -> Result<(), Error> {
        match self.core.zero(offset, len, how).await {
            Ok(()) => Ok(()),
            Err(kind) => Err(self.failed_at(kind, operation, offset, len).await),
        }
    }

    /// What is at `offset`, and for how many of the next `len` bytes, at least one, that holds.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn map(&self, offset: u64, len: u64) -> Result<(Mapping, u64), Error> {
        match self.core.map(offset, len).await {
            Ok(found) => Ok(found),
            Err(kind) => Err(self.failed_at(kind, "map", offset, len).await),
        }
    }

    /// Changes the virtual size. What is new reads as zeroes.
    ///
    /// # Errors
    /// As [`write`](Self::write); the size is then the old or the new one.
    pub async fn resize(&self, size: u64) -> Result<(), Error> {
        let work = self.alone(async move |core| core.resize(size).await);
        match work.await {
            Ok(()) => Ok(()),
            Err(kind) => Err(self.failed_at(kind, "resize", 0, size).await),
        }
    }

    /// Brings all to stable storage, gives back what is kept for later writes, and marks the image
    /// as closed. A later write opens it again: nobody else may have written to it meanwhile. An
    /// image that is dropped without this is as after the death of its process.
    ///
    /// # Errors
    /// Of the storages; the image is then as after the death of its process.
    pub async fn close(&self) -> Result<(), Error> {
        let work = self.alone(async move |core| core.close().await);
        match work.await {
            Ok(()) => Ok(()),
            Err(kind) => Err(self.failed(kind, "close".into()).await),
        }
    }

    /// Does something, whatever becomes of the caller, that needs the image for itself.
    pub(crate) async fn alone<T: 'static>(
        &self,
        work: impl AsyncFnOnce(Rc<Core<S>>) -> Result<T, ErrorKind> + 'static,
    ) -> Result<T, ErrorKind> {
        let exclusive = self.core.exclude().await;
        let core = self.core.clone();
        let work = async move {
            let result = work(core).await;
            drop(exclusive);
            result
        };
        self.core.run(work).await
    }

    /// As [`failed`](Self::failed), of an operation on a range.
    async fn failed_at(&self, kind: ErrorKind, operation: &str, offset: u64, len: u64) -> Error {
        self.failed(kind, format!("{operation} {len} bytes at {offset}")).await
    }

    /// The error of an operation. One that shows damage marks the image.
    pub(crate) async fn failed(&self, kind: ErrorKind, operation: String) -> Error {
        if let ErrorKind::Invalid(why) = &kind {
            self.core.mark_corrupt(why).await;
        }
        Error::new(kind, operation)
    }
}

impl<S: Storage + 'static> Drop for Image<S> {
    fn drop(&mut self) {
        // They have shares of the image.
        self.core.jobs.clear();
    }
}

impl<S: Storage + 'static> std::fmt::Debug for Image<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} bytes)", self.size())
    }
}
