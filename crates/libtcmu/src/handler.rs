// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to read what C has of a handler, and to call its check.
//!
//! A program's handler: a copy of its structure, with what is needed of it in Rust's types.
#![allow(unsafe_code)]

use std::ffi::c_void;

use tcmu_abi::check::{check_config, text};
use tcmu_abi::layout::tcmulib_handler;

use crate::checks::Verdict;

/// Longer texts of a handler are cut off, in bytes.
const MAX_TEXT: usize = 16 << 10;

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

impl Handler {
    /// Takes one of the program's.
    ///
    /// # Safety
    /// Its strings end with a NUL; its functions are as they are declared.
    pub(crate) unsafe fn new(c: &tcmulib_handler) -> Result<Handler, String> {
        // SAFETY: as the caller promises.
        let (subtype, description) =
            unsafe { (text(c.subtype, MAX_TEXT), text(c.cfg_desc, MAX_TEXT)) };
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
        let check = self.functions().check_config;
        // SAFETY: as the program has declared it.
        check.map_or(Ok(()), |check| unsafe { check_config(check, config) })
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // SAFETY: it was leaked by `new`, and the devices that refer to it are gone.
        drop(unsafe { Box::from_raw(self.c.0) });
    }
}
