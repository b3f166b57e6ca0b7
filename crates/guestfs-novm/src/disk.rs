// SPDX-License-Identifier: Apache-2.0
//! An image as a disk: a whole number of sectors, on a store of `block` or of an NBD server. Errors
//! are logged here, and become the errnos that front ends hand on. On the guest's way to its programs
//! an errno may become EIO, so the client hears, once, of what its user can do something about.
//!
//! If the last sector of an image is not whole, the rest of it reads as zeroes; the image grows when
//! that rest is written.

use crate::error::{Error, Result};
use crate::image::{Image, Kind};
use crate::nbd::{Nbd, NbdStore};
use crate::report::report;
use block::disk::Options;
use block::{AnyStore, BoxedStore, ErrorClass, ErrorKind, OpenOptions};
use sgl::Sgl;
use std::cell::Cell;

/// The same, for a disk's options.
const ROUND_UP: u32 = 512;

/// An image that is open, in the engine of this thread.
#[derive(Debug)]
pub struct Disk {
    disk: block::Disk<AnyStore>,
    /// Of which errors the client has heard.
    told: Cell<[bool; block::ErrorClass::COUNT]>,
    /// Nobody wants its content after a loss of power: it is not flushed.
    scratch: bool,
}

async fn open(image: &Image) -> Result<AnyStore> {
    if let Some(server) = &image.server {
        let server = Nbd::connect(server, image.read_only, image.sector)?;
        return Ok(AnyStore::Boxed(BoxedStore::new(NbdStore::new(server, image.read_only))));
    }
    let format = if let Kind::Format(name) = image.kind { name } else { "raw" };
    let options = OpenOptions {
        read_only: image.read_only,
        locking: image.locking,
        probed: image.probed,
        scratch: image.scratch,
        ..OpenOptions::default()
    };
    block::open_image(&image.path, format, &options).await.map_err(Error::Open)
}

impl Disk {
    /// Opens an image.
    pub async fn open(image: &Image) -> Result<Self> {
        let store = open(image).await?;
        let options = Options { round_up: ROUND_UP, ..Options::default() };
        let disk = block::Disk::new(store, image.path.to_string_lossy(), options);
        Ok(Self { disk, told: Cell::default(), scratch: image.scratch })
    }

    /// Its size in bytes, a whole number of sectors.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    /// Fills the buffer.
    pub async fn read(&self, data: &Sgl<'_>, offset: u64) -> std::result::Result<(), i32> {
        self.disk.read(data, offset).await.map_err(|e| self.errno(&e))
    }

    /// Writes the buffer.
    pub async fn write(&self, data: &Sgl<'_>, offset: u64) -> std::result::Result<(), i32> {
        self.disk.write(data, offset, false).await.map_err(|e| self.errno(&e))
    }

    /// Makes a range read as zeroes.
    pub async fn zero(
        &self,
        offset: u64,
        len: u64,
        may_unmap: bool,
    ) -> std::result::Result<(), i32> {
        self.disk.write_zeroes(offset, len, may_unmap).await.map_err(|e| self.errno(&e))
    }

    /// Brings all that was written to stable storage, unless it is a scratch disk.
    pub async fn flush(&self) -> std::result::Result<(), i32> {
        if self.read_only() || self.scratch {
            return Ok(());
        }
        self.disk.flush().await.map_err(|e| self.errno(&e))
    }

    /// Flushes and closes the image. It is closed even where it cannot be flushed.
    ///
    /// # Errors
    /// [`Error::Unsaved`], of what failed first.
    pub async fn close(self) -> Result<()> {
        self.disk.close().await.map_err(Error::Unsaved)
    }

    fn errno(&self, error: &block::Error) -> i32 {
        tracing::warn!("{error}");
        self.tell(error);
        match error.kind {
            // The guest has asked for nothing that is not valid.
            ErrorKind::Invalid(_) => libc::EIO,
            _ => error.errno().unwrap_or(libc::EIO),
        }
    }

    /// Tells the client of an error that is no fault of a medium, the first of its class.
    fn tell(&self, error: &block::Error) {
        let advice = match (&error.kind, error.class()) {
            (_, ErrorClass::Space) => {
                "the host's filesystem is full: writes fail until it has space"
            }
            (ErrorKind::Disguise(_), _) => "the write was refused",
            _ => return,
        };
        let mut told = self.told.get();
        let class = told.get_mut(error.class() as usize);
        if class.is_some_and(|told| !std::mem::replace(told, true)) {
            report(&Error::image(&error.path, format!("{advice} ({})", error.kind)));
        }
        self.told.set(told);
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
        let image = Image {
            path,
            server: None,
            sector: 512,
            kind: Kind::Raw,
            read_only: false,
            locking,
            probed: false,
            scratch: false,
        };
        let opened = Engine::new(Backend::Auto).unwrap().block_on(Disk::open(&image)).unwrap();
        let Err(Error::Open(e)) = opened else { panic!("{opened:?}") };
        assert_eq!(e.errno(), Some(libc::ENOENT));
        let lost = Error::Unsaved(e).to_string();
        assert!(lost.contains("/nonexistent/disk") && lost.contains("may be lost"), "{lost}");
    }
}
