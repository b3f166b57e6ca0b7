// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call librados.
//!
//! What clients of an image tell each other: short messages that all who watch one of its objects
//! hear. The object is `rbd_id.IMAGE`, which every image has, which is never written, and which
//! nobody else watches. Whoever may write to the pool can send any message.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Error;
use crate::cluster::Pool;
use crate::error::checked;

/// Longer messages are not heard, in bytes.
const MAX_MESSAGE: usize = 1024;

/// What is called with each message, by a thread of the library: it must not wait.
type Heard = Box<dyn Fn(&[u8], Reply) + Send + Sync>;

/// A watch for messages. It ends when this is dropped, which blocks.
pub struct Bell {
    line: Line,
    cookie: u64,
    listener: *mut Listener,
}

/// What the callbacks get.
struct Listener {
    line: Line,
    heard: Heard,
    /// The cluster does not know of the watch any more.
    lost: AtomicBool,
}

/// The object that is watched.
#[derive(Clone)]
struct Line {
    pool: Arc<Pool>,
    object: Arc<CStr>,
}

// SAFETY: librados lets all threads use it; the listener is that of the callbacks alone, and may be
// called by any thread.
unsafe impl Send for Bell {}
// SAFETY: as above.
unsafe impl Sync for Bell {}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("object", &self.line.object).finish_non_exhaustive()
    }
}

/// Tells who has sent a message that it is done, when this is dropped.
pub struct Reply {
    line: Line,
    notify: u64,
    cookie: u64,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("notify", &self.notify).finish_non_exhaustive()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let Line { pool, object } = &self.line;
        let ack = pool.cluster().libraries().rados.rados_notify_ack;
        // SAFETY: the pool's handle, a C string, no bytes.
        unsafe { ack(pool.handle(), object.as_ptr(), self.notify, self.cookie, ptr::null(), 0) };
    }
}

/// A message, called by a thread of the library.
unsafe extern "C" fn heard(
    listener: *mut c_void,
    notify: u64,
    cookie: u64,
    _sender: u64,
    data: *mut c_void,
    len: usize,
) {
    // SAFETY: it stays until the library says that nothing calls any more.
    let listener = unsafe { &*listener.cast::<Listener>() };
    let reply = Reply { line: listener.line.clone(), notify, cookie };
    if data.is_null() || len > MAX_MESSAGE {
        return;
    }
    // SAFETY: the library's memory, for the length of this call.
    let message = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
    (listener.heard)(message, reply);
}

/// The watch is gone; called by a thread of the library.
unsafe extern "C" fn lost(listener: *mut c_void, _cookie: u64, _error: c_int) {
    // SAFETY: as in `heard`.
    let listener = unsafe { &*listener.cast::<Listener>() };
    listener.lost.store(true, Ordering::Release);
}

impl Bell {
    /// Watches an image: what is said to its clients is `heard`, by any thread, which must not wait.
    /// Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn watch(
        pool: &Arc<Pool>,
        image: &str,
        heard_by: impl Fn(&[u8], Reply) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let object = CString::new(format!("rbd_id.{image}"))?;
        let line = Line { pool: pool.clone(), object: object.into_boxed_c_str().into() };
        let (heard_by, lost_by) = (Box::new(heard_by), AtomicBool::new(false));
        let listener = Listener { line: line.clone(), heard: heard_by, lost: lost_by };
        let mut bell = Bell { line, cookie: 0, listener: Box::into_raw(Box::new(listener)) };
        let Line { pool, object } = &bell.line;
        let watch = pool.cluster().libraries().rados.rados_watch2;
        let (argument, cookie) = (bell.listener.cast(), &raw mut bell.cookie);
        // SAFETY: the pool's handle, a C string; the number is written; the listener stays until the
        // watch has ended.
        let set = unsafe { watch(pool.handle(), object.as_ptr(), cookie, heard, lost, argument) };
        if let Err(e) = checked(set, || format!("watch {object:?}")) {
            // SAFETY: what was not set does not call.
            drop(unsafe { Box::from_raw(bell.listener) });
            bell.listener = ptr::null_mut();
            return Err(e);
        }
        Ok(bell)
    }

    /// Whether messages are heard: a watch is lost where the cluster cannot be reached for half a
    /// minute.
    pub fn is_whole(&self) -> bool {
        // SAFETY: it is there until `drop`.
        !unsafe { &*self.listener }.lost.load(Ordering::Acquire)
    }

    /// Sends a message to all clients that watch the image, this one included, and waits until they
    /// have replied; false: one has not, within `patience`. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn ring(&self, message: &[u8], patience: Duration) -> Result<bool, Error> {
        let Line { pool, object } = &self.line;
        let notify = pool.cluster().libraries().rados.rados_notify2;
        let (at, len) = (message.as_ptr().cast(), c_int::try_from(message.len()).unwrap_or(0));
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let none = ptr::null_mut();
        // SAFETY: the pool's handle, a C string, bytes and their number; no replies are wanted.
        let rung = unsafe {
            notify(pool.handle(), object.as_ptr(), at, len, patience, none, ptr::null_mut())
        };
        if rung == -libc::ETIMEDOUT {
            return Ok(false);
        }
        checked(rung, || format!("notify the watchers of {object:?}"))?;
        Ok(true)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if self.listener.is_null() {
            return;
        }
        let Line { pool, .. } = &self.line;
        let rados = &pool.cluster().libraries().rados;
        // The library forgets the watch also where the cluster cannot be told.
        // SAFETY: the pool's handle, and the watch's own number.
        unsafe { (rados.rados_unwatch2)(pool.handle(), self.cookie) };
        // SAFETY: the connection's handle. When it has succeeded nothing calls any more.
        let flushed = unsafe { (rados.rados_watch_flush)(pool.cluster().handle()) };
        if flushed >= 0 {
            // SAFETY: it is from `Box::into_raw`.
            drop(unsafe { Box::from_raw(self.listener) });
        }
    }
}
