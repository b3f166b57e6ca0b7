// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to read what C has of a handler, and to call its check.
//!
//! A program's handler: a copy of its structure, with what is needed of it in Rust's types.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use tcmu_abi::layout::tcmulib_handler;

use crate::checks::Verdict;

/// The C program's handler; it stays as long as the context.
#[derive(Clone, Copy)]
pub(crate) struct HandlerPointer(pub(crate) *mut tcmulib_handler);

// SAFETY: it is only ever handed to C, which decides who uses it.
unsafe impl Send for HandlerPointer {}
// SAFETY: as above.
unsafe impl Sync for HandlerPointer {}

/// A handler of the program.
pub(crate) struct Handler {
    pub(crate) subtype: String,
    pub(crate) description: String,
    /// A copy of the program's structure, which devices refer to.
    pub(crate) c: HandlerPointer,
}

/// Text of C's; `None` for a null pointer.
///
/// # Safety
/// It ends with a NUL.
pub(crate) unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

impl Handler {
    /// Takes one of the program's.
    ///
    /// # Safety
    /// Its strings end with a NUL; its functions are as they are declared.
    pub(crate) unsafe fn new(c: &tcmulib_handler) -> Result<Handler, String> {
        // SAFETY: as the caller promises.
        let (subtype, description) = unsafe { (text(c.subtype), text(c.cfg_desc)) };
        let subtype = subtype.filter(|subtype| !subtype.is_empty() && !subtype.contains('/'));
        let subtype = subtype.ok_or("a handler has no subtype, or one with a slash")?;
        if c.added.is_none() || c.removed.is_none() {
            return Err(format!("the handler {subtype} lacks the function added or removed"));
        }
        let description = description.unwrap_or_default();
        let c = HandlerPointer(Box::into_raw(Box::new(*c)));
        Ok(Handler { subtype, description, c })
    }

    /// Tells the program which context it belongs to.
    pub(crate) fn set_context(&self, context: *mut c_void) {
        // SAFETY: the copy is ours, and no device refers to it yet.
        unsafe { (*self.c.0).ctx = context };
    }

    /// The structure as it is now. The program may change what is its own.
    pub(crate) fn functions(&self) -> tcmulib_handler {
        // SAFETY: it was leaked by `new` and is freed when this is dropped.
        unsafe { self.c.0.read() }
    }

    pub(crate) fn check(&self, config: &str) -> Verdict {
        let Some(check) = self.functions().check_config else { return Ok(()) };
        let config = CString::new(config).map_err(|_| "it contains a NUL".to_owned())?;
        let mut reason: *mut c_char = ptr::null_mut();
        // SAFETY: as the program has declared it.
        let good = unsafe { check(config.as_ptr(), &raw mut reason) };
        // SAFETY: the reason is null or malloc'ed text.
        let why = unsafe { text(reason) };
        // SAFETY: as above; nothing else refers to it.
        unsafe { libc::free(reason.cast()) };
        if good { Ok(()) } else { Err(why.unwrap_or_else(|| "the handler gives no reason".into())) }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // SAFETY: it was leaked by `new`, and the devices that refer to it are gone.
        drop(unsafe { Box::from_raw(self.c.0) });
    }
}
