// SPDX-License-Identifier: Apache-2.0
//! What a format lies on: a file, block device or memory, or any other store. In front of a file
//! there is no box, so that an image in one is as fast as the file; a call of another store takes a
//! boxed future, which also ends the recursion of formats on formats.
//!
//! Bytes past the end read as zeroes. What is acknowledged survives the death of this process, and
//! loss of power once `sync` has returned; a `sync` that fails is final, see [`io_engine::File`].
mod nested;

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;

use qcow2::Extent;
use sgl::Sgl;

use crate::exclusive::ExclusiveLock;
use crate::protocol::file::Medium;
use crate::protocol::zeroes;
use crate::{AnyStore, Discard, Error, ErrorKind, Event, Provisioning, Store};
use nested::Nested;

/// Up to this many bytes, writing zeroes costs less than fallocate(2).
const WRITTEN_ZEROES: u64 = 16 << 10;

/// What a format lies on.
#[derive(Debug)]
pub struct Lower(Kind);

#[derive(Debug)]
enum Kind {
    File(Medium),
    Store(Box<Nested>),
}

/// A call of a store.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

impl Lower {
    /// A file, block device or memory.
    pub(crate) fn file(medium: Medium) -> Self {
        Lower(Kind::File(medium))
    }

    /// The content of any store; `path` is for messages.
    pub fn store(store: AnyStore, path: &Path) -> Self {
        Lower(Kind::Store(Box::new(Nested::new(store, path))))
    }

    /// In bytes.
    ///
    /// # Errors
    /// Of the system.
    pub fn size(&self) -> io::Result<u64> {
        match &self.0 {
            Kind::File(medium) => medium.len(),
            Kind::Store(nested) => Ok(nested.size()),
        }
    }

    /// Best alignment and length of an I/O, in bytes.
    pub fn optimal_io(&self) -> u32 {
        match &self.0 {
            Kind::File(medium) => medium.optimal_io(),
            Kind::Store(nested) => nested.disk().facts().optimal_io,
        }
    }

    /// How many bytes are compared and written in one step where that is limited
    /// ([`Facts::compare_and_write`](crate::Facts::compare_and_write)).
    pub(crate) fn compares_and_writes(&self) -> Option<u32> {
        match &self.0 {
            Kind::File(_) => None,
            Kind::Store(nested) => nested.disk().facts().compare_and_write,
        }
    }

    /// What a discard does, where there is one.
    pub(crate) fn discards(&self) -> Option<Discard> {
        match &self.0 {
            Kind::File(medium) => medium.discards(),
            Kind::Store(nested) => nested.disk().facts().discard,
        }
    }

    /// Gives up the space of a range.
    ///
    /// # Errors
    /// Of the system, or of the store.
    pub(crate) async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.0 {
            Kind::File(medium) => medium.discard(offset, len).await,
            Kind::Store(nested) => {
                let range = offset..offset.saturating_add(len);
                let call: Boxed<'_, ()> =
                    Box::pin(async move { nested.disk().discard(&[range]).await });
                call.await.map_err(to_io)
            }
        }
    }

    /// The exclusive lock of the store, where several hosts can have it open. A format that keeps
    /// nothing of it in memory passes it on.
    pub(crate) fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        match &self.0 {
            Kind::File(_) => None,
            Kind::Store(nested) => nested.disk().store().lock(),
        }
    }

    /// Waits until something happens to the store that nobody here has done; never returns for a
    /// file. Meanwhile the store does its own work.
    pub(crate) async fn event(&self) -> Event {
        match &self.0 {
            Kind::File(_) => std::future::pending().await,
            Kind::Store(nested) => {
                let event: Pin<Box<dyn Future<Output = Event> + '_>> = Box::pin(nested.event());
                event.await
            }
        }
    }

    /// Closes the store, see [`Store::close`]; a file needs no more than to be flushed.
    ///
    /// # Errors
    /// Of the store.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        match &self.0 {
            Kind::File(_) => Ok(()),
            Kind::Store(nested) => {
                let call: Boxed<'_, ()> = Box::pin(nested.disk().close());
                call.await
            }
        }
    }
}

/// An error of a layer below, as [`qcow2::Storage`] has them. [`from_io`] takes it out again.
pub(crate) fn to_io(error: Error) -> io::Error {
    let kind = match &error.kind {
        ErrorKind::Io(e) => e.kind(),
        ErrorKind::ReadOnly | ErrorKind::Disguise(_) => io::ErrorKind::ReadOnlyFilesystem,
        ErrorKind::OutOfBounds { .. } => io::ErrorKind::FileTooLarge,
        ErrorKind::Unsupported(_) => io::ErrorKind::Unsupported,
        ErrorKind::InUse => io::ErrorKind::ResourceBusy,
        ErrorKind::Invalid(_) => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}

/// The error that a layer below had, if it is one: it names its own file.
///
/// # Errors
/// An error of the system, of this layer.
pub(crate) fn from_io(error: io::Error) -> Result<Error, io::Error> {
    error.downcast::<Error>()
}

impl qcow2::Storage for Lower {
    async fn length(&self) -> io::Result<u64> {
        self.size()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let there = match &self.0 {
            Kind::File(medium) => medium.file().read_at(data, offset).await?,
            Kind::Store(nested) => {
                let call: Boxed<'_, usize> = Box::pin(nested.read(data, offset));
                call.await.map_err(to_io)?
            }
        };
        if there < data.len() {
            data.fill(there..data.len(), 0);
        }
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        match &self.0 {
            Kind::File(medium) => medium.file().write_at(data, offset, false).await,
            Kind::Store(nested) => {
                let call: Boxed<'_, ()> = Box::pin(nested.write(data, offset));
                call.await.map_err(to_io)
            }
        }
    }

    async fn zero(&self, offset: u64, len: u64, punch: bool) -> io::Result<()> {
        match &self.0 {
            Kind::File(medium) if !punch && len <= WRITTEN_ZEROES => {
                zeroes::write(medium.file(), offset, len).await
            }
            Kind::File(medium) => medium.zero(offset, len, punch).await,
            Kind::Store(nested) => {
                let zero = nested.disk().write_zeroes(offset, len, punch);
                let call: Boxed<'_, ()> = Box::pin(zero);
                call.await.map_err(to_io)
            }
        }
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Kind::File(medium) => medium.set_len(len),
            Kind::Store(nested) => {
                let call: Boxed<'_, ()> = Box::pin(nested.set_len(len));
                call.await.map_err(to_io)
            }
        }
    }

    async fn sync(&self) -> io::Result<()> {
        match &self.0 {
            Kind::File(medium) => medium.file().sync(true).await,
            Kind::Store(nested) => {
                let call: Boxed<'_, ()> = Box::pin(nested.disk().flush());
                call.await.map_err(to_io)
            }
        }
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        let (kind, n) = match &self.0 {
            Kind::File(medium) => medium.extent(offset, len)?,
            Kind::Store(nested) => {
                let call: Boxed<'_, _> = Box::pin(nested.provisioning(offset, len));
                call.await.map_err(to_io)?
            }
        };
        let extent = match kind {
            Provisioning::Mapped => Extent::Data,
            Provisioning::Deallocated => Extent::Zero,
        };
        Ok((extent, n))
    }
}

#[cfg(test)]
mod tests;
