// SPDX-License-Identifier: Apache-2.0
//! What fails: a library that is not there, or one of its calls.
use std::ffi::NulError;
use std::io;

use run_time_library::Missing;

/// See the module's text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library is not there, or too old.
    #[error(transparent)]
    Library(#[from] Missing),
    /// A call failed.
    #[error("{call}: {error}")]
    Call {
        /// What was to be done, in words.
        call: String,
        /// Why that failed.
        error: io::Error,
    },
    /// A string that is to be given to the library has a NUL byte.
    #[error("it contains a NUL byte")]
    Nul(#[from] NulError),
}

/// The errno that the library has left in this thread. It leaves none in some cases.
pub(crate) fn last() -> io::Error {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(0) | None => io::Error::from_raw_os_error(libc::ENOTCONN),
        Some(_) => error,
    }
}

/// The error of a call that `what` names.
pub(crate) fn failed(what: impl Into<String>) -> Error {
    Error::Call { call: what.into(), error: last() }
}
