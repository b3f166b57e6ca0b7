// SPDX-License-Identifier: Apache-2.0
//! The errors of calls, which are in the thread's errno.
use std::io;

use run_time_library::Error;

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
