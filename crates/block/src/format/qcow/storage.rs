// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to implement the unsafe methods of `imago`'s trait, and to view the
//! buffers of `imago` as a scatter-gather list.
//!
//! The file of one layer of a chain as `imago` sees it, on `io-engine`. `imago`'s own accesses
//! (metadata, copy-on-write, compressed clusters) come through its [`imago::Storage`] trait; guest
//! data takes [`Storage::read`] and [`Storage::write`] without passing through `imago`.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use sgl::Sgl;

use super::counting::Counting;
use super::qcow1::Qcow1;
use crate::protocol::file::{Image, durable};

/// Up to this many bytes, writing zeroes costs less than fallocate(2).
const WRITTEN_ZEROES: u64 = 16 << 10;

/// An open file; clones share it.
#[derive(Clone)]
pub(super) struct Storage(Arc<Inner>);

struct Inner {
    file: Arc<io_engine::File>,
    /// A version 1 image in the file, of which this is the guest's data, to be read only.
    image: Option<Box<Qcow1>>,
    path: PathBuf,
    helper: CommonStorageHelper,
    /// Nothing was ever written at or after this offset: it reads as zeroes.
    end: AtomicU64,
    /// For an image that is written.
    counting: Option<Counting>,
    /// Bytes that `imago` has read since the last call of [`Storage::take_loaded`].
    loaded: AtomicU64,
}

impl Storage {
    /// Takes an open image, with `counting` where `imago` writes to it.
    pub(super) fn new(image: &Image, path: &Path, counting: Option<Counting>) -> Self {
        Storage(Arc::new(Inner {
            file: image.file.clone(),
            image: None,
            path: path.to_owned(),
            helper: CommonStorageHelper::default(),
            end: image.size.into(),
            counting,
            loaded: 0.into(),
        }))
    }

    /// The guest's data of an image that is in this file.
    pub(super) fn of_image(&self, image: Box<Qcow1>) -> Self {
        Storage(Arc::new(Inner {
            file: self.0.file.clone(),
            path: self.0.path.clone(),
            helper: CommonStorageHelper::default(),
            end: image.size().into(),
            image: Some(image),
            counting: None,
            loaded: 0.into(),
        }))
    }

    /// Fills all of `data`; what lies past the end of the file is zero.
    pub(super) async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        if let Some(image) = &self.0.image {
            return Box::pin(image.read(data, offset)).await;
        }
        let n = self.0.file.read_at(data, offset).await?;
        if n < data.len() {
            data.fill(n..data.len(), 0);
        }
        Ok(())
    }

    /// Writes all of `data`; with `dsync` it is on stable storage on return.
    pub(super) async fn write(&self, data: &Sgl<'_>, offset: u64, dsync: bool) -> io::Result<()> {
        if self.0.image.is_some() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.grow_to(offset, data.len() as u64);
        self.0.file.write_at(data, offset, dsync).await
    }

    /// fdatasync(2).
    pub(super) async fn sync_data(&self) -> io::Result<()> {
        self.0.file.sync(true).await
    }

    /// An operation that ends on stable storage, for the message of its error.
    pub(super) fn durable(&self, operation: &str) -> String {
        durable(operation, &self.0.file)
    }

    /// Frees the space of a range, which then reads as zeroes. No error where the file system does
    /// not support it.
    pub(super) async fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match self.0.file.fallocate(mode, offset, len).await {
            Err(e) if is_unsupported(&e) => Ok(()),
            result => result,
        }
    }

    /// How much `imago` has read since the last call, in bytes.
    pub(super) fn take_loaded(&self) -> u64 {
        self.0.loaded.swap(0, Ordering::Relaxed)
    }

    /// As [`Storage::take_loaded`], but goes on counting.
    pub(super) fn loaded(&self) -> u64 {
        self.0.loaded.load(Ordering::Relaxed)
    }

    /// Notes, before it happens, that a range is written.
    fn grow_to(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        if end > self.0.end.load(Ordering::Relaxed) {
            self.0.end.fetch_max(end, Ordering::Relaxed);
        }
    }

    /// Makes a range read as zeroes with data that is written.
    async fn write_zeroes(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        let size = usize::try_from(len.min(1 << 16)).map_err(io::Error::other)?;
        let zeroes = Sgl::zeroed(size);
        while len > 0 {
            let n = zeroes.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.write(&zeroes.slice(0..n), offset, false).await?;
            offset += n as u64;
            len -= n as u64;
        }
        Ok(())
    }
}

/// Whether the file system does not know the operation.
fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

impl imago::Storage for Storage {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.end.load(Ordering::Relaxed))
    }

    async unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        self.0.loaded.fetch_add(bufv.len(), Ordering::Relaxed);
        let mut slices = bufv.into_inner();
        let data = Sgl::from_slices(slices.iter_mut().map(|slice| &mut **slice));
        self.read(&data, offset).await
    }

    async unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        if let Some(counting) = self.0.counting {
            counting.before_write(self, &bufv, offset).await?;
        }
        let slices = bufv.into_inner();
        let pieces = slices.iter().map(|slice| {
            // A null pointer cannot be in a slice; the engine skips empty pieces.
            let base = slice.as_ptr().cast_mut();
            (NonNull::new(base).unwrap_or(NonNull::dangling()), slice.len())
        });
        // SAFETY: the slices are mapped until the end of this function. Nothing writes through
        // the list: it is only used to write its bytes to the file.
        let data = unsafe { Sgl::from_raw(pieces, None) };
        self.write(&data, offset, false).await
    }

    async unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.0.end.load(Ordering::Relaxed);
        let len = length.min(end.saturating_sub(offset));
        if len == 0 {
            return Ok(());
        }
        if len > WRITTEN_ZEROES {
            let keep = libc::FALLOC_FL_KEEP_SIZE;
            for mode in [libc::FALLOC_FL_ZERO_RANGE | keep, libc::FALLOC_FL_PUNCH_HOLE | keep] {
                match self.0.file.fallocate(mode, offset, len).await {
                    Err(e) if is_unsupported(&e) => {}
                    result => return result,
                }
            }
        }
        self.write_zeroes(offset, len).await
    }

    async fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        self.sync_data().await
    }

    /// A future of the engine that is dropped waits for the kernel first, so that there is never a
    /// write whose future is gone.
    async fn settle_writes(&self) -> io::Result<()> {
        Ok(())
    }

    async unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.0.helper
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({})", self.0.path.display())
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.path.display().fmt(f)
    }
}
