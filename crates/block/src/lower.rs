// SPDX-License-Identifier: Apache-2.0
//! What a format lies on: a file, block device or memory, or any other store. In front of a file
//! there is no box, so that an image in one is as fast as the file; a call of another store takes a
//! boxed future, which also ends the recursion of formats on formats.
//!
//! Bytes past the end read as zeroes. What is acknowledged survives the death of this process, and
//! loss of power once `sync` has returned; a `sync` that fails is final, see [`io_engine::File`].
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;

use qcow2::Extent;
use sgl::Sgl;

use crate::protocol::file::Medium;
use crate::protocol::zeroes;
use crate::{AnyStore, Error, ErrorKind, Provisioning, Store};

/// Up to this many bytes, writing zeroes costs less than fallocate(2).
const WRITTEN_ZEROES: u64 = 16 << 10;

/// What a format lies on.
#[derive(Debug)]
pub struct Lower(Kind);

#[derive(Debug)]
enum Kind {
    File(Medium),
    Store {
        store: Box<AnyStore>,
        /// Where bytes of before may be past the end: that is where a store was longer.
        stale: Cell<u64>,
    },
}

/// A call of a store.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

impl Lower {
    /// A file, block device or memory.
    pub(crate) fn file(medium: Medium) -> Self {
        Lower(Kind::File(medium))
    }

    /// The content of any store.
    pub fn store(store: AnyStore) -> Self {
        Lower(Kind::Store { store: Box::new(store), stale: Cell::new(0) })
    }

    /// In bytes.
    ///
    /// # Errors
    /// Of the system.
    pub fn size(&self) -> io::Result<u64> {
        match &self.0 {
            Kind::File(medium) => medium.len(),
            Kind::Store { store, .. } => Ok(store.facts().size),
        }
    }

    /// Best alignment and length of an I/O, in bytes.
    pub fn optimal_io(&self) -> u32 {
        match &self.0 {
            Kind::File(medium) => medium.optimal_io(),
            Kind::Store { store, .. } => store.facts().optimal_io,
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

/// Makes a store longer, by zeroes.
async fn grow(store: &AnyStore, stale: &Cell<u64>, len: u64) -> Result<(), Error> {
    let there = store.facts().size;
    store.resize(len).await?;
    let end = stale.get().min(len);
    if there < end {
        store.write_zeroes(there, end - there, true).await?;
    }
    Ok(())
}

/// Reads what of a range is inside a store; returns how many bytes that is.
async fn read_store(store: &AnyStore, data: &Sgl<'_>, offset: u64) -> Result<usize, Error> {
    let left = store.facts().size.saturating_sub(offset);
    let there = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
    if there > 0 {
        store.read(&data.slice(0..there), offset).await?;
    }
    Ok(there)
}

/// Writes to a store, which becomes longer where it has to.
async fn write_store(
    store: &AnyStore,
    stale: &Cell<u64>,
    data: &Sgl<'_>,
    offset: u64,
) -> Result<(), Error> {
    let end = offset.saturating_add(data.len() as u64);
    if end > store.facts().size {
        grow(store, stale, end).await?;
    }
    store.write(data, offset, false).await
}

impl qcow2::Storage for Lower {
    async fn length(&self) -> io::Result<u64> {
        self.size()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let there = match &self.0 {
            Kind::File(medium) => medium.file().read_at(data, offset).await?,
            Kind::Store { store, .. } => {
                let call: Boxed<'_, usize> = Box::pin(read_store(store, data, offset));
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
            Kind::Store { store, stale } => {
                let call: Boxed<'_, ()> = Box::pin(write_store(store, stale, data, offset));
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
            Kind::Store { store, .. } => {
                let call: Boxed<'_, ()> = Box::pin(store.write_zeroes(offset, len, punch));
                call.await.map_err(to_io)
            }
        }
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let (store, stale) = match &self.0 {
            Kind::File(medium) => return medium.set_len(len),
            Kind::Store { store, stale } => (store, stale),
        };
        let call: Boxed<'_, ()> = Box::pin(async move {
            let there = store.facts().size;
            if len > there {
                return grow(store, stale, len).await;
            }
            store.resize(len).await?;
            stale.set(stale.get().max(there));
            Ok(())
        });
        call.await.map_err(to_io)
    }

    async fn sync(&self) -> io::Result<()> {
        match &self.0 {
            Kind::File(medium) => medium.file().sync(true).await,
            Kind::Store { store, .. } => {
                let call: Boxed<'_, ()> = Box::pin(store.flush());
                call.await.map_err(to_io)
            }
        }
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        let (kind, n) = match &self.0 {
            Kind::File(medium) => medium.extent(offset, len)?,
            Kind::Store { store, .. } => {
                let left = store.facts().size.saturating_sub(offset);
                if left == 0 {
                    return Ok((Extent::Zero, len.max(1)));
                }
                let call: Boxed<'_, _> = Box::pin(store.provisioning(offset, len.min(left)));
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
