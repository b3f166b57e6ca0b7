// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call librbd.
//!
//! The exclusive lock of an image, in the hands of its user. As long as nobody asks for it, librbd
//! takes it when it writes, and gives it to any client that wants it. From the first
//! [`Image::take_lock`] on it does neither by itself: without the lock a write fails with EROFS, and
//! a client that wants it hears the same until the lock is given back or broken.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::ptr;

use crate::Error;
use crate::error::named;
use crate::image::Image;

/// `RBD_LOCK_MODE_EXCLUSIVE`
const EXCLUSIVE: c_int = 0;
/// `RBD_FEATURE_EXCLUSIVE_LOCK`
const FEATURE: u64 = 1 << 2;
/// The longest value of an image's metadata that is read, in bytes.
const MAX_VALUE: usize = 4096;

impl Image {
    /// Whether it has an exclusive lock: that is a feature of an image. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn has_lock(&self) -> Result<bool, Error> {
        let mut features = 0;
        let asked = self.0.call(|rbd, image| {
            // SAFETY: the image's handle; the number is written.
            unsafe { (rbd.rbd_get_features)(image, &raw mut features) }
        });
        named(asked, || "read its features".into())?;
        Ok(features & FEATURE != 0)
    }

    /// Takes the lock. A client that has it only because it has written gives it up. Blocks, for as
    /// long as such a client does not answer: half a minute where it has died.
    ///
    /// # Errors
    /// EROFS: another client has taken it, too; ESHUTDOWN where the cluster shuts this client out.
    pub fn take_lock(&self) -> io::Result<()> {
        let taken = self.0.call(|rbd, image| {
            // SAFETY: the image's handle.
            unsafe { (rbd.rbd_lock_acquire)(image, EXCLUSIVE) }
        });
        taken.map(drop)
    }

    /// Gives the lock back, after what is being written is written. Blocks.
    ///
    /// # Errors
    /// EINVAL: this client does not have it.
    pub fn give_lock(&self) -> io::Result<()> {
        let given = self.0.call(|rbd, image| {
            // SAFETY: the image's handle.
            unsafe { (rbd.rbd_lock_release)(image) }
        });
        given.map(drop)
    }

    /// Whether this client has the lock; the cluster is asked. Blocks.
    ///
    /// # Errors
    /// ESHUTDOWN where the cluster shuts this client out.
    pub fn has_taken_lock(&self) -> io::Result<bool> {
        let mut ours = 0;
        self.0.call(|rbd, image| {
            // SAFETY: the image's handle; the number is written.
            unsafe { (rbd.rbd_is_exclusive_lock_owner)(image, &raw mut ours) }
        })?;
        Ok(ours != 0)
    }

    /// The client that has the lock, alive or not, by its address. Blocks.
    ///
    /// # Errors
    /// Of the library.
    pub fn lock_owner(&self) -> io::Result<Option<String>> {
        let (mut mode, mut count) = (EXCLUSIVE, 1);
        let mut owner: *mut c_char = ptr::null_mut();
        let asked = self.0.call(|rbd, image| {
            let get = rbd.rbd_lock_get_owners;
            // SAFETY: the image's handle; mode, count, and as many strings as the count says are
            // written.
            unsafe { get(image, &raw mut mode, &raw mut owner, &raw mut count) }
        });
        match asked {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            other => other?,
        };
        if owner.is_null() || count == 0 {
            return Ok(None);
        }
        // SAFETY: the library has made it a C string, which is ours until the next lines give it
        // back.
        let name = unsafe { CStr::from_ptr(owner) }.to_string_lossy().into_owned();
        let cleanup = self.0.libraries().rbd.rbd_lock_get_owners_cleanup;
        // SAFETY: the one string that was written.
        unsafe { cleanup(&raw mut owner, 1) };
        Ok(Some(name))
    }

    /// Breaks the lock of a client, as [`lock_owner`](Self::lock_owner) names it. The cluster shuts
    /// that client out first: when this returns, nothing that it still sends is written. Blocks.
    ///
    /// # Errors
    /// EBUSY, ENOENT: that client does not have it any more.
    pub fn break_lock(&self, owner: &str) -> io::Result<()> {
        let owner = CString::new(owner)?;
        let broken = self.0.call(|rbd, image| {
            // SAFETY: the image's handle, a C string.
            unsafe { (rbd.rbd_lock_break)(image, EXCLUSIVE, owner.as_ptr()) }
        });
        broken.map(drop)
    }

    /// A value of the image's metadata; `None` where there is none, or one that is too long for what
    /// is kept there here. Blocks.
    ///
    /// # Errors
    /// Of the library.
    pub fn metadata(&self, key: &CStr) -> io::Result<Option<String>> {
        let mut value = [0u8; MAX_VALUE];
        let mut len = value.len();
        let got = self.0.call(|rbd, image| {
            let at = value.as_mut_ptr().cast();
            // SAFETY: the image's handle, a C string; at most `len` bytes are written.
            unsafe { (rbd.rbd_metadata_get)(image, key.as_ptr(), at, &raw mut len) }
        });
        match got {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ERANGE)) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(text).into_owned()))
    }

    /// Sets a value of the image's metadata, which takes the lock. Blocks.
    ///
    /// # Errors
    /// Of the library; EROFS where another client has the lock.
    pub fn set_metadata(&self, key: &CStr, value: &str) -> io::Result<()> {
        let value = CString::new(value)?;
        let set = self.0.call(|rbd, image| {
            // SAFETY: the image's handle, C strings.
            unsafe { (rbd.rbd_metadata_set)(image, key.as_ptr(), value.as_ptr()) }
        });
        set.map(drop)
    }
}
