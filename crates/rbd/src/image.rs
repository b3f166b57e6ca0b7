// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call librbd.
//!
//! An open image. Data goes from and to the memory of an `Sgl`, as futures of one thread; what
//! blocks says so.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sgl::Sgl;

use crate::Error;
use crate::cluster::Pool;
use crate::error::{checked, io as result, named};
use crate::library::{Handle, Info, Libraries, Rbd};
use crate::operation::{Direction, Held, memory, start};

/// `RBD_WRITE_ZEROES_FLAG_THICK_PROVISION`
const THICK: c_int = 1;

/// An image that is open, until it is closed or the last share of it is dropped. Both block.
pub(crate) struct Opened {
    pool: Arc<Pool>,
    /// `None`: it is closed.
    handle: RwLock<Option<Handle>>,
    /// The number of the watch on changes, and what it calls.
    watch: Mutex<Option<(u64, Box<Changed>)>>,
}

/// What is called, by a thread of the library, when an image has changed.
type Changed = Box<dyn Fn() + Send + Sync>;

// SAFETY: librbd lets all threads use an image.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

/// An image. Shares of it are cheap.
#[derive(Clone, Debug)]
pub struct Image(pub(crate) Arc<Opened>);

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// How an image is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Capacity in bytes.
    pub size: u64,
    /// Bytes of an object.
    pub object_size: u64,
    /// Bytes that follow each other in one object; that of an object unless the image is striped.
    pub stripe_unit: u64,
}

/// What a range reads as after zeroing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// Its space is given up where that is possible.
    Unmap,
    /// It keeps its space, or gets some.
    Allocate,
}

/// The result of [`Image::compare_and_write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It was equal, and is written.
    Written,
    /// The first byte that differs, from the beginning of the buffer.
    Differs(u64),
}

/// Ranges of an image that have data: offset and length in bytes.
pub type Extents = Vec<(u64, u64)>;

impl Opened {
    pub(crate) fn libraries(&self) -> &'static Libraries {
        self.pool.cluster().libraries()
    }

    /// Calls the library with the image, which is not closed meanwhile.
    ///
    /// # Errors
    /// ESHUTDOWN where it is closed; what `call` says, a negative errno.
    pub(crate) fn call(&self, call: impl FnOnce(&Rbd, Handle) -> c_int) -> io::Result<u64> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        match *handle {
            Some(handle) => result(call(&self.libraries().rbd, handle).into()),
            None => Err(io::Error::from_raw_os_error(libc::ESHUTDOWN)),
        }
    }

    fn close(&self) {
        let rbd = &self.libraries().rbd;
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = handle.take() else { return };
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((number, changed)) = watch {
            // SAFETY: the handle is that of the image. After it the callback is not called.
            let unwatched = unsafe { (rbd.rbd_update_unwatch)(handle, number) };
            if unwatched < 0 {
                // It may still be called.
                mem::forget(changed);
            }
        }
        // SAFETY: the handle is that of the image, nobody uses it any more.
        if let Err(e) = result(unsafe { (rbd.rbd_close)(handle) }.into()) {
            tracing::warn!("close an image: {e}");
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.close();
    }
}

impl Image {
    /// Opens an image, or a snapshot of one, which can only be read. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`]: ENOENT where there is no such image or snapshot.
    pub fn open(
        pool: &Arc<Pool>,
        name: &str,
        snapshot: Option<&str>,
        read_only: bool,
    ) -> Result<Self, Error> {
        let rbd = &pool.cluster().libraries().rbd;
        let own = CString::new(name)?;
        let snapshot = snapshot.map(CString::new).transpose()?;
        let snapshot_at = snapshot.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        let open = if read_only { rbd.rbd_open_read_only } else { rbd.rbd_open };
        let mut handle = ptr::null_mut();
        // SAFETY: the pool's handle, C strings or null; the image's handle is written.
        let opened = unsafe { open(pool.handle(), own.as_ptr(), &raw mut handle, snapshot_at) };
        checked(opened, || match &snapshot {
            Some(snapshot) => format!("open the snapshot {snapshot:?} of the image {name:?}"),
            None => format!("open the image {name:?}"),
        })?;
        Ok(Image(Arc::new(Opened {
            pool: pool.clone(),
            handle: RwLock::new(Some(handle)),
            watch: Mutex::default(),
        })))
    }

    /// Whether both are shares of the same one.
    pub fn is(&self, other: &Image) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Closes it, for all who have a share of it: operations under way end, by errors where they
    /// cannot do otherwise, and later ones fail with ESHUTDOWN. Blocks.
    pub fn close(&self) {
        self.0.close();
    }

    /// The pool that it is in.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    /// Whether the cluster shuts this client out: operations may then wait for ever for a lock that
    /// it cannot have. Blocks.
    pub fn is_shut_out(&self) -> bool {
        self.0.pool.is_shut_out()
    }

    /// Has `changed` called, by any thread, when the image has changed: its size, its snapshots,
    /// its features. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn watch(&self, changed: impl Fn() + Send + Sync + 'static) -> Result<(), Error> {
        unsafe extern "C" fn call(argument: *mut c_void) {
            // SAFETY: it is the box that is kept until the watch has ended.
            let changed = unsafe { &*argument.cast_const().cast::<Changed>() };
            changed();
        }
        let changed: Box<Changed> = Box::new(Box::new(changed));
        let argument = ptr::from_ref::<Changed>(&changed).cast_mut().cast();
        let mut number = 0;
        let watched = self.0.call(|rbd, image| {
            // SAFETY: the image's handle; the callback gets the box; the number is written.
            unsafe { (rbd.rbd_update_watch)(image, &raw mut number, call, argument) }
        });
        named(watched, || "watch the image".into())?;
        let mut watch = self.0.watch.lock().unwrap_or_else(PoisonError::into_inner);
        *watch = Some((number, changed));
        Ok(())
    }

    /// How it is laid out now; that refreshes what this client knows of its size. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn layout(&self) -> Result<Layout, Error> {
        let mut info = mem::MaybeUninit::<Info>::zeroed();
        let mut stripe_unit = 0;
        let stated = self.0.call(|rbd, image| {
            // SAFETY: the image's handle; the struct has the size that is said; the number is written.
            unsafe {
                match (rbd.rbd_stat)(image, info.as_mut_ptr(), size_of::<Info>()) {
                    0 => (rbd.rbd_get_stripe_unit)(image, &raw mut stripe_unit),
                    error => error,
                }
            }
        });
        named(stated, || "read the image's properties".into())?;
        // SAFETY: all bits make one, and the library has filled it in.
        let info = unsafe { info.assume_init() };
        Ok(Layout { size: info.size, object_size: info.object_size, stripe_unit })
    }

    /// The name by which its objects know it, which another name of the image leaves as it is. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn id(&self) -> Result<String, Error> {
        // RBD_MAX_BLOCK_NAME_SIZE
        let mut id = [0u8; 24];
        let got = self.0.call(|rbd, image| {
            // SAFETY: the image's handle; at most as many bytes are written, with a NUL at the end.
            unsafe { (rbd.rbd_get_id)(image, id.as_mut_ptr().cast(), id.len()) }
        });
        named(got, || "read its id".into())?;
        let id = id.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(id).into_owned())
    }

    /// Changes the size in bytes. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn resize(&self, size: u64) -> Result<(), Error> {
        unsafe extern "C" fn progress(_done: u64, _all: u64, _argument: *mut c_void) -> c_int {
            0
        }
        let resized = self.0.call(|rbd, image| {
            // SAFETY: the image's handle; the callback uses nothing.
            unsafe { (rbd.rbd_resize2)(image, size, true, Some(progress), ptr::null_mut()) }
        });
        named(resized, || format!("resize the image to {size} bytes"))?;
        Ok(())
    }

    /// Which parts of a range have data, in order, of its parent as well. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn extents(&self, offset: u64, len: u64) -> Result<Extents, Error> {
        unsafe extern "C" fn add(at: u64, len: usize, data: c_int, argument: *mut c_void) -> c_int {
            // SAFETY: it is the list below, and only this call has it.
            let extents = unsafe { &mut *argument.cast::<Extents>() };
            if data != 0 {
                extents.push((at, len as u64));
            }
            0
        }
        let mut extents = Extents::new();
        let argument = ptr::from_mut(&mut extents).cast();
        let done = self.0.call(|rbd, image| {
            // SAFETY: the image's handle; no snapshot to compare with; the callback gets the list.
            unsafe { (rbd.rbd_diff_iterate2)(image, ptr::null(), offset, len, 1, 1, add, argument) }
        });
        named(done, || format!("look for data in {len} bytes at {offset}"))?;
        Ok(extents)
    }

    /// Fills `data` from `offset`; returns how many bytes that were, fewer past the end.
    ///
    /// # Errors
    /// Of the library.
    pub async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let (kept, copied) = memory(data, Direction::Read);
        let mut operation = start(&self.0, Held::new(kept), |rbd, image, completion, held| {
            let (pieces, count) = pieces(&held.data);
            // SAFETY: image and completion are the library's own; the pieces and their memory stay
            // until the operation has ended.
            unsafe { (rbd.rbd_aio_readv)(image, pieces, count, offset, completion) }
        })?;
        let done = (&mut operation).await?;
        let done = usize::try_from(done).unwrap_or(usize::MAX).min(data.len());
        if copied {
            operation.held().data.slice(0..done).copy_to(data);
        }
        Ok(done)
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// Of the library; EINVAL past the end.
    pub async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let (kept, _) = memory(data, Direction::Write);
        let operation = start(&self.0, Held::new(kept), |rbd, image, completion, held| {
            let (pieces, count) = pieces(&held.data);
            // SAFETY: as in `read`.
            unsafe { (rbd.rbd_aio_writev)(image, pieces, count, offset, completion) }
        })?;
        operation.await.map(drop)
    }

    /// Brings what was written to stable storage.
    ///
    /// # Errors
    /// Of the library.
    pub async fn flush(&self) -> io::Result<()> {
        let operation = start(&self.0, Held::new(Sgl::empty()), |rbd, image, completion, _| {
            // SAFETY: image and completion are the library's own.
            unsafe { (rbd.rbd_aio_flush)(image, completion) }
        })?;
        operation.await.map(drop)
    }

    /// Makes a range zero, at any alignment.
    ///
    /// # Errors
    /// Of the library.
    pub async fn zero(&self, offset: u64, len: u64, zero: Zero) -> io::Result<()> {
        let Ok(len) = usize::try_from(len) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = if zero == Zero::Allocate { THICK } else { 0 };
        let operation = start(&self.0, Held::new(Sgl::empty()), |rbd, image, completion, _| {
            // SAFETY: image and completion are the library's own.
            unsafe { (rbd.rbd_aio_write_zeroes)(image, offset, len, completion, flags, 0) }
        })?;
        operation.await.map(drop)
    }

    /// Compares the first half of `data` with what is at `offset`, and if it is that, writes the
    /// second half there, in one step for all clients. Both have to lie in one sector of 512 bytes.
    ///
    /// # Errors
    /// Of the library.
    pub async fn compare_and_write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<Compared> {
        let half = data.len() / 2;
        // The library takes each half in one piece.
        let copy = Sgl::zeroed(2 * half);
        data.copy_to(&copy);
        let mut operation = start(&self.0, Held::new(copy), |rbd, image, completion, held| {
            let mismatch = held.mismatch.as_ptr();
            let (pieces, _) = pieces(&held.data);
            // SAFETY: image and completion are the library's own; the list is one piece of twice
            // that length, which stays until the operation has ended, as does the number.
            unsafe {
                let old = (*pieces).iov_base.cast::<c_char>().cast_const();
                let new = old.add(half);
                (rbd.rbd_aio_compare_and_write)(
                    image, offset, half, old, new, completion, mismatch, 0,
                )
            }
        })?;
        match (&mut operation).await {
            Ok(_) => Ok(Compared::Written),
            Err(e) if e.raw_os_error() == Some(libc::EILSEQ) => {
                Ok(Compared::Differs(operation.held().mismatch.load(Ordering::Acquire)))
            }
            Err(e) => Err(e),
        }
    }
}

/// The pieces of a list, as the library takes them.
fn pieces(data: &Sgl<'_>) -> (*const libc::iovec, c_int) {
    let pieces = data.iovecs();
    (pieces.as_ptr(), c_int::try_from(pieces.len()).unwrap_or(c_int::MAX))
}
