// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to read C's strings, and to call what judges configuration strings.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use crate::layout::CheckConfigFn;

/// The most of a reason why a configuration string is not valid, in bytes.
const MAX_REASON: usize = 4096;

/// At most `max` bytes of a string of C's, those replaced that are no UTF-8; `None` for a null
/// pointer.
///
/// # Safety
/// `text` is null, or a C string.
pub unsafe fn text(text: *const c_char, max: usize) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller says so.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    Some(String::from_utf8_lossy(bytes.get(..max).unwrap_or(bytes)).into_owned())
}

/// Has a handler's `check_config` judge a configuration string. May block.
///
/// # Errors
/// Why it is not valid, as the handler says.
///
/// # Safety
/// The function is as it is declared: it may be called now, and a reason that it gives is allocated
/// with malloc.
pub unsafe fn check_config(check: CheckConfigFn, config: &str) -> Result<(), String> {
    let config = CString::new(config).map_err(|_| "it contains a NUL byte".to_owned())?;
    let mut reason: *mut c_char = ptr::null_mut();
    // SAFETY: the caller says so; the string and the place for the reason outlive the call.
    let valid = unsafe { check(config.as_ptr(), &raw mut reason) };
    // SAFETY: null, or a C string, which is ours from now on.
    let said = unsafe { text(reason, MAX_REASON) }.filter(|said| !said.is_empty());
    // SAFETY: null, or allocated with malloc; nothing else refers to it.
    unsafe { libc::free(reason.cast()) };
    if valid { Ok(()) } else { Err(said.unwrap_or_else(|| "its handler gives no reason".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses what does not begin with "good", and says why if that begins with "b".
    unsafe extern "C" fn judge(config: *const c_char, reason: *mut *mut c_char) -> bool {
        // SAFETY: `check_config` passes a string, and a place.
        unsafe {
            let config = CStr::from_ptr(config).to_bytes();
            if config.starts_with(b"b") {
                *reason = libc::strdup(c"it is b\xffd".as_ptr());
            }
            config.starts_with(b"good")
        }
    }

    #[test]
    fn a_reason_is_what_the_handler_says_or_that_it_says_none() {
        // SAFETY: the function above is as declared.
        let check = |config: &str| unsafe { check_config(judge, config) };
        assert_eq!(check("good"), Ok(()));
        assert_eq!(check("bad"), Err("it is b\u{fffd}d".into()));
        assert_eq!(check("else"), Err("its handler gives no reason".into()));
        assert_eq!(check("a\0b"), Err("it contains a NUL byte".into()));
    }

    #[test]
    fn text_has_bounds() {
        // SAFETY: null, and strings.
        let texts =
            unsafe { [text(ptr::null(), 9), text(c"".as_ptr(), 9), text(c"abc".as_ptr(), 2)] };
        assert_eq!(texts, [None, Some(String::new()), Some("ab".into())]);
    }
}
