// SPDX-License-Identifier: Apache-2.0
//! Errors as callers get them: the name of an errno, and a text that names what it concerns.

use crate::errno::Errno;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    message: String,
}

/// Results of procedures and of what they are made of.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this text, which is to name the argument, path, device or program.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    /// An argument has a value that it may not have: `NAME: VALUE: WHY`.
    pub fn argument(name: &str, value: impl AsRef<OsStr>, why: &str) -> Self {
        Self::new(Errno::EINVAL, format!("{name}: {}: {why}", shown(value.as_ref())))
    }

    /// Something is not of the form that it has to have.
    pub fn invalid(why: impl fmt::Display) -> Self {
        Self::new(Errno::EINVAL, why.to_string())
    }

    /// Something that this machine, kernel or build cannot do.
    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(Errno::ENOTSUP, message)
    }

    /// What `std` says, without what it was about.
    fn of_io(e: &std::io::Error) -> Self {
        let errno = Errno::from(e);
        let text = match e.raw_os_error() {
            Some(_) => errno.describe(),
            None => e.to_string(),
        };
        Self::new(errno, text)
    }

    /// The errno.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with `what: ` before its text.
    pub fn within(self, what: impl AsRef<OsStr>) -> Self {
        Self { message: format!("{}: {}", shown(what.as_ref()), self.message), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Names what a system call was about.
pub trait Context<T> {
    /// The error becomes `what: No such file or directory`.
    fn on(self, what: impl AsRef<OsStr>) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn on(self, what: impl AsRef<OsStr>) -> Result<T> {
        self.map_err(|e| Error::of_io(&e).within(what))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn on(self, what: impl AsRef<OsStr>) -> Result<T> {
        self.map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error());
            Error::new(errno, errno.describe()).within(what)
        })
    }
}

/// Names the system call that went wrong, before all else: where clients know the error by it.
pub trait Calling<T> {
    /// The error becomes `open: /x: No such file or directory`.
    fn calling(self, call: &str) -> Result<T>;
}

impl<T> Calling<T> for Result<T> {
    fn calling(self, call: &str) -> Result<T> {
        self.map_err(|e| e.within(call))
    }
}

/// An [`Error`] that has gone through `std::io` is itself again; any other is about `what`.
pub fn from_io(e: std::io::Error, what: impl AsRef<OsStr>) -> Error {
    match e.downcast::<Error>() {
        Ok(e) => e,
        Err(e) => Error::of_io(&e).within(what),
    }
}

/// A name from the guest as text for people.
pub fn shown(name: &OsStr) -> Cow<'_, str> {
    name.to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernel_names_what_it_was_about() {
        let e = std::fs::File::open("/nonexistent/x").on("/x").unwrap_err();
        assert_eq!((e.errno(), e.message()), (Errno::ENOENT, "/x: No such file or directory"));
    }

    #[test]
    fn an_argument_error_names_the_argument_and_its_value() {
        let e = Error::argument("path", "x", "must be absolute");
        assert_eq!((e.errno(), e.message()), (Errno::EINVAL, "path: x: must be absolute"));
    }
}
