// SPDX-License-Identifier: Apache-2.0
//! This crate uses `unsafe` to load libraries and to find their functions.
//!
//! C libraries that only some devices need: loaded when the first of them is opened, never unloaded,
//! since threads of them run. So the build needs none of them, and one binary serves every machine.
//! [`functions!`](crate::functions) makes the table of what is called of one.
#![allow(unsafe_code)]

use std::ffi::NulError;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

#[doc(hidden)]
pub use libloading::os::unix::Library;

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// It cannot be loaded.
    #[error("{library} cannot be loaded ({why}); install the package {package}")]
    Library {
        /// Its file.
        library: &'static str,
        /// Debian's package.
        package: &'static str,
        /// What the dynamic linker says.
        why: String,
    },
    /// It lacks a function.
    #[error("{library} has no {function}; a newer {package} is needed")]
    Function {
        /// Its file.
        library: &'static str,
        /// What it lacks.
        function: &'static str,
        /// Debian's package.
        package: &'static str,
    },
}

/// What fails: a library that is not there, or one of its calls.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A library is not there, or too old.
    #[error(transparent)]
    Library(#[from] Missing),
    /// A call failed; errnos are those of the library.
    #[error("{call}: {error}")]
    Call {
        /// What was to be done, in words.
        call: String,
        /// Why that failed.
        error: io::Error,
    },
    /// A string that is to be given to a library has a NUL byte.
    #[error("it contains a NUL byte")]
    Nul(#[from] NulError),
}

/// What was loaded: for good, once that has succeeded. What is missing may be installed later.
#[derive(Debug)]
pub struct Loaded<T: 'static>(Mutex<Option<&'static T>>);

impl<T> Loaded<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Loaded(Mutex::new(None))
    }

    /// What was loaded, by `load` now where it was not there before.
    ///
    /// # Errors
    /// Of `load`, which the next call tries again.
    pub fn get(&self, load: impl FnOnce() -> Result<T, Missing>) -> Result<&'static T, Missing> {
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = *loaded {
            return Ok(there);
        }
        Ok(*loaded.insert(Box::leak(Box::new(load()?))))
    }
}

impl<T> Default for Loaded<T> {
    fn default() -> Self {
        Loaded::new()
    }
}

/// Stack in bytes for the constructors of a library: librados takes more than 256 KiB.
const STACK: usize = 8 << 20;

/// Loads a library, on a thread of its own, as the caller's may have a small stack.
///
/// # Errors
/// [`Missing::Library`].
#[doc(hidden)]
pub fn load(library: &'static str, package: &'static str) -> Result<Library, Missing> {
    let missing = |why: String| Missing::Library { library, package, why };
    // SAFETY: the library's constructors run: it is one of this machine's.
    let open = move || unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) };
    let thread = thread::Builder::new().name("dlopen".into()).stack_size(STACK).spawn(open);
    let loaded = thread.map_err(|e| missing(e.to_string()))?.join();
    let loaded = loaded.map_err(|_| missing("its constructors panicked".into()))?;
    loaded.map_err(|e| {
        let source = std::error::Error::source(&e);
        missing(source.map_or_else(|| e.to_string(), ToString::to_string))
    })
}

/// Makes the struct of a library's functions, with `load`: of the file and the package, the names
/// and types. Who writes it says that the functions have these types in all versions of the file.
#[macro_export]
macro_rules! functions {
    ($(#[$doc:meta])* $table:ident, $file:literal, $package:literal:
     $($name:ident($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        $(#[$doc])*
        pub(crate) struct $table {
            $(pub(crate) $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl $table {
            /// Loads the library, which stays loaded.
            pub(crate) fn load() -> Result<Self, $crate::Missing> {
                let library = $crate::load($file, $package)?;
                let table = $table {
                    // SAFETY: whoever lists the functions says so.
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map_err(|_| $crate::Missing::Function {
                            library: $file,
                            function: stringify!($name),
                            package: $package,
                        })?,)*
                };
                std::mem::forget(library);
                Ok(table)
            }
        }

        impl std::fmt::Debug for $table {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($file)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::ffi::{c_char, c_int};

    functions! {
        /// Of the C library.
        C, "libc.so.6", "libc6":
        abs(c_int) -> c_int;
        strlen(*const c_char) -> usize;
    }

    functions! {
        /// What no C library has.
        #[allow(dead_code, reason = "it cannot be loaded")]
        Newer, "libc.so.6", "libc6":
        nonesuch(c_int) -> c_int;
    }

    functions! {
        /// No library.
        #[allow(dead_code, reason = "it cannot be loaded")]
        None, "libnonesuch.so.0", "nonesuch0":
        abs(c_int) -> c_int;
    }

    #[test]
    fn functions_are_found_by_name() {
        let c = C::load().unwrap();
        // SAFETY: a number, and a C string.
        let (five, four) = unsafe { ((c.abs)(-5), (c.strlen)(c"four".as_ptr())) };
        assert_eq!((five, four), (5, 4));
    }

    #[test]
    fn what_is_missing_names_its_package() {
        let e = None::load().unwrap_err().to_string();
        assert!(e.starts_with("libnonesuch.so.0 cannot be loaded ("), "{e}");
        assert!(e.ends_with("install the package nonesuch0"), "{e}");
        let e = Newer::load().unwrap_err().to_string();
        assert_eq!(e, "libc.so.6 has no nonesuch; a newer libc6 is needed");
    }
}
