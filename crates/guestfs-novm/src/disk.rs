// SPDX-License-Identifier: Apache-2.0
//! An image as a disk: a whole number of sectors, served by `block` or by an NBD server.
//!
//! If the last sector of an image is not whole, the rest of it reads as zeroes; the image grows when that rest
//! is written.

use crate::error::{Context, Error, Result};
use crate::image::{Image, Kind};
use crate::nbd::Nbd;
use block::{AnyStore, ErrorKind, OpenOptions, Store as _};
use sgl::Sgl;
use std::io;

/// Bytes of the smallest sector.
pub const SECTOR: u64 = 512;

/// An image that is open, in the engine of this thread.
#[derive(Debug)]
pub struct Disk {
    store: Store,
    /// Its size in bytes, a whole number of sectors.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// What holds the blocks.
#[derive(Debug)]
enum Store {
    Image(AnyStore),
    Nbd(Nbd),
}

impl Store {
    async fn open(image: &Image) -> Result<Self> {
        if let Some(server) = &image.server {
            return Nbd::connect(server, image.read_only, image.sector).map(Self::Nbd);
        }
        let path = image.path.to_str();
        let path = path.ok_or_else(|| Error::image(&image.path, "its name is not UTF-8"))?;
        let subtype = if image.kind == Kind::Qcow { "qcow" } else { "file" };
        let options = OpenOptions {
            read_only: image.read_only,
            locking: image.locking,
            ..OpenOptions::default()
        };
        let store = block::open(&format!("{subtype}/{path}"), &options).await;
        store.map(Self::Image).map_err(Error::Open)
    }

    fn size(&self) -> u64 {
        match self {
            Self::Image(store) => store.facts().size,
            Self::Nbd(server) => server.size(),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> std::result::Result<(), i32> {
        match self {
            Self::Image(store) => store.read(data, offset).await.map_err(|e| errno(&e)),
            Self::Nbd(server) => {
                let mut buffer = vec![0; data.len()];
                server.read(&mut buffer, offset)?;
                data.write_at(0, &buffer);
                Ok(())
            }
        }
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> std::result::Result<(), i32> {
        match self {
            Self::Image(store) => store.write(data, offset, false).await.map_err(|e| errno(&e)),
            Self::Nbd(server) => {
                let mut buffer = vec![0; data.len()];
                data.read_at(0, &mut buffer);
                server.write(&buffer, offset)
            }
        }
    }

    async fn grow(&self, size: u64) -> std::result::Result<(), i32> {
        match self {
            Self::Image(store) => store.resize(size).await.map_err(|e| errno(&e)),
            Self::Nbd(_) => Err(libc::ENOSPC),
        }
    }

    async fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> std::result::Result<(), i32> {
        match self {
            Self::Image(store) => {
                store.write_zeroes(offset, len, may_unmap).await.map_err(|e| errno(&e))
            }
            Self::Nbd(server) => server.zero(offset, len, may_unmap),
        }
    }

    async fn flush(&self) -> std::result::Result<(), i32> {
        match self {
            Self::Image(store) => store.flush().await.map_err(|e| errno(&e)),
            Self::Nbd(server) => server.flush(),
        }
    }
}

impl Disk {
    /// Opens an image.
    pub async fn open(image: &Image) -> Result<Self> {
        let store = Store::open(image).await?;
        let size = store.size().checked_next_multiple_of(SECTOR);
        let size = size.ok_or_else(|| Error::image(&image.path, "it is too large"))?;
        Ok(Self { store, size, read_only: image.read_only })
    }

    /// Fills the buffer.
    pub async fn read(&self, data: &Sgl<'_>, offset: u64) -> std::result::Result<(), i32> {
        let there = self.store.size().saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(data.len());
        data.fill(there..data.len(), 0);
        if there == 0 {
            return Ok(());
        }
        self.store.read(&data.slice(0..there), offset).await
    }

    /// Writes the buffer.
    pub async fn write(&self, data: &Sgl<'_>, offset: u64) -> std::result::Result<(), i32> {
        if self.read_only {
            return Err(libc::EROFS);
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(libc::EFBIG)?;
        if end > self.store.size() {
            self.store.grow(end).await?;
        }
        self.store.write(data, offset).await
    }

    /// Makes a range read as zeroes.
    pub async fn zero(
        &self,
        offset: u64,
        len: u64,
        may_unmap: bool,
    ) -> std::result::Result<(), i32> {
        if self.read_only {
            return Err(libc::EROFS);
        }
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(libc::EFBIG);
        }
        let len = self.store.size().saturating_sub(offset).min(len);
        if len == 0 {
            return Ok(());
        }
        self.store.zero(offset, len, may_unmap).await
    }

    /// Brings all that was written to stable storage.
    pub async fn flush(&self) -> std::result::Result<(), i32> {
        if self.read_only {
            return Ok(());
        }
        self.store.flush().await
    }

    /// Flushes and closes the image. It is closed even where it cannot be flushed.
    ///
    /// # Errors
    /// [`Error::Unsaved`], of what failed first.
    pub async fn close(self) -> Result<()> {
        match self.store {
            Store::Image(store) => {
                let flushed = if self.read_only { Ok(()) } else { store.flush().await };
                let closed = store.close().await;
                flushed.and(closed).map_err(Error::Unsaved)
            }
            Store::Nbd(server) => {
                let flushed = if self.read_only { Ok(()) } else { server.flush() };
                let name = server.close();
                flushed.map_err(io::Error::from_raw_os_error).on(format_args!("{name}: flush"))
            }
        }
    }
}

fn errno(error: &block::Error) -> i32 {
    tracing::warn!("{error}");
    match &error.kind {
        ErrorKind::Io(e) => e.raw_os_error().unwrap_or(libc::EIO),
        ErrorKind::ReadOnly => libc::EROFS,
        ErrorKind::Unsupported(_) => libc::EOPNOTSUPP,
        ErrorKind::InUse => libc::EBUSY,
        ErrorKind::Invalid(_) => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_engine::{Backend, Engine};

    #[test]
    fn what_fails_is_not_the_fault_of_a_command_line() {
        let path = "/nonexistent/disk".into();
        let locking = block::Locking::default();
        let image =
            Image { path, server: None, sector: 512, kind: Kind::Raw, read_only: false, locking };
        let opened = Engine::new(Backend::Auto).unwrap().block_on(Disk::open(&image)).unwrap();
        let Err(Error::Open(e)) = opened else { panic!("{opened:?}") };
        assert_eq!(e.errno(), Some(libc::ENOENT));
        let lost = Error::Unsaved(e).to_string();
        assert!(lost.contains("/nonexistent/disk") && lost.contains("may be lost"), "{lost}");
    }
}
