// SPDX-License-Identifier: Apache-2.0
//! Constructors of [`Error`].
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind};

impl Error {
    /// An error of `operation` on `path`.
    pub(crate) fn new(
        kind: impl Into<ErrorKind>,
        operation: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Self {
        Error { kind: kind.into(), operation: operation.into(), path: path.into() }
    }

    /// What is wrong with an image, or with a configuration string, which then stands for the path.
    pub(crate) fn invalid(
        text: impl Into<String>,
        operation: &str,
        path: impl AsRef<Path>,
    ) -> Self {
        Error::new(ErrorKind::Invalid(text.into()), operation, path.as_ref())
    }

    /// The errno, where the system gave one.
    pub fn errno(&self) -> Option<i32> {
        match &self.kind {
            ErrorKind::Io(e) => e.raw_os_error(),
            ErrorKind::ReadOnly => Some(libc::EROFS),
            ErrorKind::Unsupported(_) => Some(libc::EOPNOTSUPP),
            ErrorKind::InUse => Some(libc::EBUSY),
            ErrorKind::Invalid(_) => Some(libc::EINVAL),
        }
    }
}

impl From<rustix::io::Errno> for ErrorKind {
    fn from(errno: rustix::io::Errno) -> Self {
        ErrorKind::Io(io::Error::from(errno))
    }
}
