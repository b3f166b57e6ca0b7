// SPDX-License-Identifier: Apache-2.0
//! `file//path`: a regular file or a block device that holds the blocks as they are.
//!
//! I/O goes through the page cache, as the C daemon's does: what is acknowledged survives the
//! death of the daemon, and [`Store::flush`] is fdatasync.
//!
//! | | regular file | block device |
//! | --- | --- | --- |
//! | discard | a hole; reads as zeroes | BLKDISCARD; content undefined |
//! | write zeroes, may unmap | a hole | write-zeroes of the device that unmaps |
//! | write zeroes | unwritten extents (FALLOC_FL_ZERO_RANGE) | write-zeroes of the device |
//! | provisioning | SEEK_HOLE, SEEK_DATA | all is mapped |
//! | resize | grows the file; shrinking leaves its content | the device has to be large enough |
//!
//! Where a file system supports none of these, zeroes are written.
mod lock;
mod medium;
mod open;
mod sys;

use std::cell::Cell;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use sgl::Sgl;

use crate::format::probe::{Guard, PROBED, disguise};
use crate::{Config, Error, ErrorKind, Facts, Locking, OpenOptions, Provisioning, Store};
pub use lock::{Locks, lock as lock_image};
pub(crate) use medium::Medium;
pub use open::Held;
pub(crate) use open::{Image, Place, open as open_image};

/// A file or block device, or memory that looks like a file.
#[derive(Debug)]
pub struct FileStore {
    medium: Medium,
    path: PathBuf,
    size: Cell<u64>,
    read_only: bool,
    optimal_io: u32,
    /// Of an image that was only taken to be raw.
    guard: Option<Box<Guard>>,
}

pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    Place::find(config.path()?).map(drop)
}

pub(crate) async fn open(config: &Config<'_>, options: &OpenOptions) -> Result<FileStore, Error> {
    open_path(config.path()?, options).await
}

/// Opens the raw image at `path`.
pub(crate) async fn open_path(path: &Path, options: &OpenOptions) -> Result<FileStore, Error> {
    let place = Place::find(path)?;
    let locked = options.locking != Locking::None;
    let image = open_image(&place, options.read_only, locked, options.predecessor.as_ref()).await?;
    FileStore::from_image(image, place.path(), options)
}

impl FileStore {
    /// Takes an open image; `path` is for messages.
    pub(crate) fn from_image(
        image: Image,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let size = options.capacity(image.size, path, |size| format!("truncate -s {size}"))?;
        let medium = Medium::new(image, options.read_only);
        let medium = medium.map_err(|e| Error::new(e, "find its properties", path))?;
        Ok(FileStore {
            optimal_io: medium.optimal_io(),
            medium,
            path: path.to_owned(),
            size: Cell::new(size),
            read_only: options.read_only,
            guard: options.probed.then(Box::default),
        })
    }

    fn error(&self, kind: impl Into<ErrorKind>, operation: impl Display) -> Error {
        Error::new(kind, operation.to_string(), &self.path)
    }

    /// An error of an operation on a range, where there is one.
    fn range<T>(
        &self,
        result: io::Result<T>,
        what: &str,
        len: u64,
        offset: u64,
    ) -> Result<T, Error> {
        result.map_err(|e| self.error(e, format_args!("{what} {len} bytes at {offset}")))
    }

    fn writable(&self, what: &str) -> Result<(), Error> {
        if self.read_only { Err(self.error(ErrorKind::ReadOnly, what)) } else { Ok(()) }
    }

    /// The guard, if a change at `offset` has to be judged by it.
    #[inline]
    fn guard(&self, offset: u64) -> Option<&Guard> {
        self.guard.as_deref().filter(|_| offset < PROBED as u64)
    }

    /// Refuses a change of the first bytes that would make the image look like one of a format.
    async fn judge(&self, data: &Sgl<'_>, offset: u64, what: &str) -> Result<(), Error> {
        let mut head = [0; PROBED];
        let read = self.medium.file().read_at(&Sgl::from_slice(&mut head), 0).await;
        self.range(read, "read", PROBED as u64, 0)?;
        match disguise(&mut head, data, offset) {
            None => Ok(()),
            Some(format) => Err(self.error(
                ErrorKind::Disguise(format),
                format_args!("{what} {} bytes at {offset}", data.len()),
            )),
        }
    }

    /// A zeroing or discard of an image that is guarded; `data` are zeroes.
    #[cold]
    async fn change_guarded(
        &self,
        guard: &Guard,
        data: &Sgl<'_>,
        offset: u64,
        what: &str,
        change: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let _turn = guard.turn().await;
        self.judge(data, offset, what).await?;
        change.await
    }

    #[cold]
    fn write_failed(&self, e: io::Error, len: usize, offset: u64, fua: bool) -> Error {
        let lost = fua && self.medium.has_lost_data();
        let what = durable(format_args!("write {len} bytes at {offset}"), lost);
        self.error(e, what)
    }

    /// A write of an image that is guarded.
    #[cold]
    async fn write_guarded(
        &self,
        guard: &Guard,
        data: &Sgl<'_>,
        offset: u64,
        fua: bool,
    ) -> Result<(), Error> {
        let _turn = guard.turn().await;
        self.judge(data, offset, "write").await?;
        let written = self.medium.file().write_at(data, offset, fua).await;
        written.map_err(|e| self.write_failed(e, data.len(), offset, fua))
    }

    async fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        let result = self.medium.zero(offset, len, may_unmap).await;
        self.range(result, "write zeroes to", len, offset)
    }

    async fn give_up(&self, offset: u64, len: u64) -> Result<(), Error> {
        let result = self.medium.discard(offset, len).await;
        self.range(result, "discard", len, offset)
    }
}

/// An operation that ends on stable storage, for the message of its error; `lost`: a flush has
/// failed, now or earlier.
pub(crate) fn durable(operation: impl Display, lost: bool) -> String {
    let hint = if lost {
        " (what was written may be lost: flushes fail until the image is closed and opened again)"
    } else {
        ""
    };
    format!("{operation}{hint}")
}

/// The zeroes of a range that is to be judged.
fn zeroes_at(offset: u64, len: u64) -> Sgl<'static> {
    let left = (PROBED as u64).saturating_sub(offset);
    Sgl::zeroed(usize::try_from(left.min(len)).unwrap_or(PROBED))
}

impl Store for FileStore {
    fn held(&self) -> Held {
        Held::new(vec![self.medium.image().clone()])
    }

    fn facts(&self) -> Facts {
        Facts {
            size: self.size.get(),
            read_only: self.read_only,
            optimal_io: self.optimal_io,
            request_alignment: 1,
            shared: false,
            compare_and_write: None,
            discard: self.medium.discards().filter(|_| !self.read_only),
            write_zeroes: self.medium.zeroes(),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let n = match self.medium.file().read_at(data, offset).await {
            Ok(n) if n == data.len() => return Ok(()),
            Ok(n) => n,
            Err(e) => return self.range(Err(e), "read", data.len() as u64, offset),
        };
        let text = format!("the file ends at {}: it was cut off", offset + n as u64);
        let e = io::Error::new(io::ErrorKind::UnexpectedEof, text);
        self.range(Err(e), "read", data.len() as u64, offset)
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.writable("write")?;
        if let Some(guard) = self.guard(offset) {
            return Box::pin(self.write_guarded(guard, data, offset, fua)).await;
        }
        match self.medium.file().write_at(data, offset, fua).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.write_failed(e, data.len(), offset, fua)),
        }
    }

    async fn flush(&self) -> Result<(), Error> {
        let file = self.medium.file();
        file.sync(true)
            .await
            .map_err(|e| self.error(e, durable("flush", self.medium.has_lost_data())))
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.writable("discard")?;
        let change = self.give_up(offset, len);
        match self.guard(offset) {
            None => change.await,
            Some(guard) => {
                let zeroes = zeroes_at(offset, len);
                Box::pin(self.change_guarded(guard, &zeroes, offset, "discard", change)).await
            }
        }
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        self.writable("write zeroes")?;
        let change = self.zero(offset, len, may_unmap);
        match self.guard(offset) {
            None => change.await,
            Some(guard) => {
                let zeroes = zeroes_at(offset, len);
                let change = self.change_guarded(guard, &zeroes, offset, "write zeroes to", change);
                Box::pin(change).await
            }
        }
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let found = self.medium.extent(offset, len);
        found.map_err(|e| self.error(e, format_args!("look for data at {offset}")))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        let what = format_args!("resize to {size} bytes").to_string();
        let failed = |e: io::Error| self.error(e, &what);
        let there = self.medium.len().map_err(failed)?;
        if size > there {
            self.writable(&what)?;
            if self.medium.is_block_device() {
                let text = format!(
                    "the block device has {there} bytes; enlarge it first, or make the size at \
                     most {there}"
                );
                return Err(self.error(ErrorKind::Invalid(text), what));
            }
            self.medium.set_len(size).map_err(failed)?;
        }
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        if self.read_only { Ok(()) } else { self.flush().await }
    }
}

#[cfg(test)]
mod tests;
