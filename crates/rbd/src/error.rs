// SPDX-License-Identifier: Apache-2.0
//! The results of calls, and the names that their errors get.
use std::io;

use run_time_library::Error;

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
