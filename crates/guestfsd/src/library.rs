// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Libraries that are loaded at run time know no types.
//! C libraries that only some calls need: loaded when they are, so that one binary serves every machine.

use guest_error::{Error, Result};
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

/// Calls a function of a library by its symbol.
macro_rules! call {
    ($library:expr, $symbol:literal, fn($($arg:ty),*) $(-> $ret:ty)?, $($value:expr),*) => {{
        let address = $library.symbol($symbol)?.as_ptr();
        // SAFETY: whoever calls says that the function has this type in the versions of the library that are loaded;
        // handles are those that the library gave, strings are C strings or null where it allows that, and what
        // callbacks get lives through the call.
        unsafe {
            let function = std::mem::transmute::<
                *mut std::ffi::c_void,
                unsafe extern "C" fn($($arg),*) $(-> $ret)?,
            >(address);
            function($($value),*)
        }
    }};
}
pub(crate) use call;

/// A library, loaded until the process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library {
    name: &'static CStr,
    handle: NonNull<c_void>,
}

impl Library {
    /// Loads the library of this name (`libaugeas.so.0`); what is not there is not supported.
    pub(crate) fn open(name: &'static CStr) -> Result<Self> {
        // SAFETY: the name is a C string. The library's constructors run: it is one of this machine's.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(|handle| Self { name, handle }).ok_or_else(|| {
            let name = name.to_string_lossy();
            Error::not_supported(format!("{name} is not on this machine: install its package"))
        })
    }

    /// The address of a function.
    pub(crate) fn symbol(&self, symbol: &CStr) -> Result<NonNull<c_void>> {
        // SAFETY: the handle is that of a library that stays loaded, the name a C string.
        let address = unsafe { libc::dlsym(self.handle.as_ptr(), symbol.as_ptr()) };
        NonNull::new(address).ok_or_else(|| {
            let (name, symbol) = (self.name.to_string_lossy(), symbol.to_string_lossy());
            Error::not_supported(format!("{name} has no {symbol}: a newer version is needed"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_error::Errno;

    #[test]
    fn a_library_that_is_not_there_is_not_supported() {
        let e = Library::open(c"libnonesuch.so.0").unwrap_err();
        assert_eq!(e.errno(), Errno::ENOTSUP);
        assert!(e.message().starts_with("libnonesuch.so.0 "));
    }

    #[test]
    fn functions_are_found_by_name() {
        let libc = Library::open(c"libc.so.6").unwrap();
        assert!(libc.symbol(c"strlen").is_ok());
        assert_eq!(libc.symbol(c"nonesuch").unwrap_err().errno(), Errno::ENOTSUP);
    }
}
