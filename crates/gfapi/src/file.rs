// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call libgfapi.
//!
//! An open file. Data goes from and to the memory of an `Sgl`, as futures of one thread; what
//! blocks says so.
//!
//! The library uses the memory until an operation has ended, whatever becomes of its future. So an
//! operation has a share of its memory, not a borrow: where the `Sgl` has an owner the memory
//! itself, else a copy.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use io_engine::{Completer, External, external};
use sgl::Sgl;

use crate::Error;
use crate::error::{failed, last};
use crate::library::Handle;
use crate::volume::Volume;

/// A file that is open, until the last share of it is dropped.
#[derive(Debug)]
struct Opened {
    volume: Arc<Volume>,
    handle: Handle,
}

// SAFETY: libgfapi lets all threads use a file.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: the file's handle, which nobody uses any more.
        if unsafe { (self.volume.gfapi().glfs_close)(self.handle) } < 0 {
            tracing::warn!("close a file of a volume: {}", last());
        }
    }
}

/// A file of a volume. Shares of it are cheap.
#[derive(Clone, Debug)]
pub struct File(Arc<Opened>);

/// Whether a range has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It has.
    Data,
    /// It reads as zeroes, and takes no space.
    Hole,
}

/// An operation that runs. Its end comes first when it is dropped: the fields that follow are what
/// it uses.
#[must_use = "dropping it waits for its end"]
struct Operation {
    end: External,
    data: Box<Sgl<'static>>,
    _file: Arc<Opened>,
}

/// Called by a thread of the library.
unsafe extern "C" fn ended(
    _file: Handle,
    result: isize,
    _before: *mut c_void,
    _after: *mut c_void,
    argument: *mut c_void,
) {
    let result = match result {
        ..0 => -i64::from(last().raw_os_error().unwrap_or(libc::EIO)),
        done => done as i64,
    };
    // SAFETY: `start` gave it away for this one call.
    unsafe { Box::from_raw(argument.cast::<Completer>()) }.complete(result);
}

/// The length of a file's range as the library has it.
fn signed(number: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

impl File {
    /// Opens a file of a volume. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`]: ENOENT where there is no such file.
    pub fn open(volume: &Arc<Volume>, path: &Path, read_only: bool) -> Result<Self, Error> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let flags = if read_only { libc::O_RDONLY } else { libc::O_RDWR };
        // SAFETY: the volume's handle, a C string.
        let handle = unsafe { (volume.gfapi().glfs_open)(volume.handle(), name.as_ptr(), flags) };
        if handle.is_null() {
            return Err(failed(format!("open {}", path.display())));
        }
        Ok(File(Arc::new(Opened { volume: volume.clone(), handle })))
    }

    /// Its size in bytes. Blocks.
    ///
    /// # Errors
    /// Of the library; EISDIR where it is no regular file.
    pub fn size(&self) -> io::Result<u64> {
        let mut stat = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the file's handle; the struct is written.
        let done = unsafe { (self.0.volume.gfapi().glfs_fstat)(self.0.handle, stat.as_mut_ptr()) };
        if done < 0 {
            return Err(last());
        }
        // SAFETY: all bits make one, and the library has filled it in.
        let stat = unsafe { stat.assume_init() };
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Changes its size in bytes. Blocks.
    ///
    /// # Errors
    /// Of the library.
    pub fn resize(&self, size: u64) -> io::Result<()> {
        let size = signed(size)?;
        let truncate = self.0.volume.gfapi().glfs_ftruncate;
        // SAFETY: the file's handle; attributes are not wanted.
        let done = unsafe { truncate(self.0.handle, size, ptr::null_mut(), ptr::null_mut()) };
        if done < 0 { Err(last()) } else { Ok(()) }
    }

    /// Whether what is at `offset`, before the end, has data, and where that ends. Blocks.
    ///
    /// # Errors
    /// Of the library.
    pub fn extent(&self, offset: u64) -> io::Result<(Extent, u64)> {
        let at = signed(offset)?;
        let seek = |whence| {
            // SAFETY: the file's handle. Nothing else uses the position.
            let found = unsafe { (self.0.volume.gfapi().glfs_lseek)(self.0.handle, at, whence) };
            match u64::try_from(found) {
                Ok(found) => Ok(Some(found)),
                Err(_) => match last() {
                    e if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
                    e => Err(e),
                },
            }
        };
        match seek(libc::SEEK_DATA)? {
            None => Ok((Extent::Hole, u64::MAX)),
            Some(data) if data > offset => Ok((Extent::Hole, data)),
            Some(_) => Ok((Extent::Data, seek(libc::SEEK_HOLE)?.unwrap_or(u64::MAX))),
        }
    }

    /// Starts an operation: `call` gets the file's handle, the memory, which stays where it is until
    /// the operation has ended, and what the callback gets.
    fn start(
        &self,
        data: Sgl<'static>,
        call: impl FnOnce(Handle, &Sgl<'static>, *mut c_void) -> c_int,
    ) -> io::Result<Operation> {
        let data = Box::new(data);
        let (completer, end) = external();
        let argument = Box::into_raw(Box::new(completer));
        if call(self.0.handle, &data, argument.cast()) < 0 {
            let error = last();
            // SAFETY: what was not begun does not call back: nobody else has it.
            drop(unsafe { Box::from_raw(argument) });
            end.abandon();
            return Err(error);
        }
        Ok(Operation { end, data, _file: self.0.clone() })
    }

    /// Fills `data` from `offset`; returns how many bytes that were, fewer past the end.
    ///
    /// # Errors
    /// Of the library.
    pub async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<usize> {
        let offset = signed(offset)?;
        let shared = data.share();
        let copied = shared.is_none();
        let read = self.0.volume.gfapi().glfs_preadv_async;
        let kept = shared.unwrap_or_else(|| Sgl::zeroed(data.len()));
        let mut operation = self.start(kept, |file, data, argument| {
            let (pieces, count) = pieces(data);
            // SAFETY: the file's handle; the pieces and their memory stay until the operation has
            // ended, and the callback gets the argument once.
            unsafe { read(file, pieces, count, offset, 0, ended, argument) }
        })?;
        let done = operation.end().await?.min(data.len());
        if copied {
            operation.data.slice(0..done).copy_to(data);
        }
        Ok(done)
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// Of the library; a short write is ENOSPC.
    pub async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let offset = signed(offset)?;
        let write = self.0.volume.gfapi().glfs_pwritev_async;
        let kept = data.share().unwrap_or_else(|| {
            let copy = Sgl::zeroed(data.len());
            data.copy_to(&copy);
            copy
        });
        let mut operation = self.start(kept, |file, data, argument| {
            let (pieces, count) = pieces(data);
            // SAFETY: as in `read`.
            unsafe { write(file, pieces, count, offset, 0, ended, argument) }
        })?;
        match operation.end().await? {
            done if done == data.len() => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }

    /// Brings what was written to the bricks' stable storage.
    ///
    /// # Errors
    /// Of the library.
    pub async fn sync(&self) -> io::Result<()> {
        let sync = self.0.volume.gfapi().glfs_fdatasync_async;
        let mut operation = self.start(Sgl::empty(), |file, _, argument| {
            // SAFETY: the file's handle; the callback gets the argument once.
            unsafe { sync(file, ended, argument) }
        })?;
        operation.end().await.map(drop)
    }

    /// Makes a range a hole. It has to be inside the file.
    ///
    /// # Errors
    /// Of the library; EOPNOTSUPP where the bricks' file system has no holes.
    pub async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (signed(offset)?, usize::try_from(len).unwrap_or(usize::MAX));
        let discard = self.0.volume.gfapi().glfs_discard_async;
        let mut operation = self.start(Sgl::empty(), |file, _, argument| {
            // SAFETY: as in `sync`.
            unsafe { discard(file, offset, len, ended, argument) }
        })?;
        operation.end().await.map(drop)
    }

    /// Makes a range zero; it keeps its space. It has to be inside the file, which would grow.
    ///
    /// # Errors
    /// Of the library.
    pub async fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (signed(offset)?, signed(len)?);
        let zero = self.0.volume.gfapi().glfs_zerofill_async;
        let mut operation = self.start(Sgl::empty(), |file, _, argument| {
            // SAFETY: as in `sync`.
            unsafe { zero(file, offset, len, ended, argument) }
        })?;
        operation.end().await.map(drop)
    }
}

impl Operation {
    /// Its end: how many bytes were done.
    async fn end(&mut self) -> io::Result<usize> {
        let result = (&mut self.end).await;
        usize::try_from(result).map_err(|_| {
            let errno = i32::try_from(result.saturating_neg()).unwrap_or(libc::EIO);
            io::Error::from_raw_os_error(errno)
        })
    }
}

/// The pieces of a list, as the library takes them.
fn pieces(data: &Sgl<'_>) -> (*const libc::iovec, c_int) {
    let pieces = data.iovecs();
    (pieces.as_ptr(), c_int::try_from(pieces.len()).unwrap_or(c_int::MAX))
}
