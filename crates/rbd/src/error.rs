// SPDX-License-Identifier: Apache-2.0
//! What fails: a library that is not there, or one of its calls.
use std::ffi::NulError;
use std::io;

use run_time_library::Missing;

/// See the module's text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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

impl Error {
    /// The errno of a call that failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Call { error, .. } => error.raw_os_error(),
            _ => None,
        }
    }
}

/// The result of a call: a number, or a negative errno.
pub(crate) fn io(result: i64) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| {
        let errno = i32::try_from(result.saturating_neg()).unwrap_or(libc::EIO);
        io::Error::from_raw_os_error(errno)
    })
}

/// As [`io`], of a call that `what` names.
pub(crate) fn checked(
    result: std::ffi::c_int,
    what: impl FnOnce() -> String,
) -> Result<u64, Error> {
    named(io(result.into()), what)
}

/// The error of a call has its name.
pub(crate) fn named(result: io::Result<u64>, what: impl FnOnce() -> String) -> Result<u64, Error> {
    result.map_err(|error| Error::Call { call: what(), error })
}
