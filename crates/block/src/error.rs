// SPDX-License-Identifier: Apache-2.0
//! Errors: what was done, to which file, what the system said; and the one table that sorts them
//! into classes, by which front ends decide what to tell their clients.
use std::fmt::{self, Write};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Why an operation failed: what was done, to which file, and what the system said.
///
/// It is one pointer, because results pass through many layers, and most are `Ok(())`.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {operation}: {kind}{role}", path = Shown(&self.path), operation = self.operation, kind = self.kind, role = self.role)]
pub struct Error(Box<Details>);

/// A path on one line: images name files, and what is in such a name is not to move a terminal's
/// cursor, or to begin a line of a log.
pub(crate) struct Shown<'a>(pub(crate) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_os_str().as_encoded_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_debug())? } else { f.write_char(c)? }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// What an [`Error`] consists of.
#[derive(Debug)]
pub struct Details {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What was being done ("read 4096 bytes at 0", "open").
    pub operation: String,
    /// The file concerned.
    pub path: PathBuf,
    /// What the file is to the image that names it, and what to do if it should name another; empty
    /// for a file that no image names.
    pub role: String,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The system refused; the errno decides further.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The store is read-only.
    #[error("it is read-only")]
    ReadOnly,
    /// This store does not support the operation.
    #[error("{0}")]
    Unsupported(String),
    /// Another device or program has the image open.
    #[error("it is in use by another program or device (a VM, qemu-img, a mounted file system)")]
    InUse,
    /// The image is damaged or of a kind that may not be used; the text says what to run.
    #[error("{0}")]
    Invalid(String),
    /// The range is not inside the disk. A front end that has checked it sees this only when the
    /// disk has become smaller since.
    #[error("it is past the end of the disk, which has {size} bytes")]
    OutOfBounds {
        /// Of the disk, in bytes.
        size: u64,
    },
    /// The guest would have turned a raw image into one of another format.
    #[error(
        "these bytes would make the image look like a {0} image, and its format was not given: give \
         it (format=raw) if that is what they are to be"
    )]
    Disguise(&'static str),
}

/// Classes of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// No space is left for the write.
    Space,
    /// The file, its file system or the store is read-only.
    ReadOnly,
    /// A shortage that passes.
    Shortage,
    /// It took too long; another attempt may do.
    TimedOut,
    /// What holds the blocks is gone, or cannot be reached.
    Connection,
    /// Another host has shut this one out, and may be writing.
    Fenced,
    /// The blocks cannot be read or written.
    Media,
    /// The image is damaged, or of a kind that may not be used.
    Invalid,
    /// Another program or device has it.
    InUse,
    /// The store cannot do this.
    Unsupported,
    /// What was asked for is not possible: a fault of this program.
    Internal,
}

impl ErrorClass {
    /// How many there are; `class as usize` is less.
    pub const COUNT: usize = 11;

    /// All of them, each at its index.
    pub const ALL: [ErrorClass; Self::COUNT] = [
        ErrorClass::Space,
        ErrorClass::ReadOnly,
        ErrorClass::Shortage,
        ErrorClass::TimedOut,
        ErrorClass::Connection,
        ErrorClass::Fenced,
        ErrorClass::Media,
        ErrorClass::Invalid,
        ErrorClass::InUse,
        ErrorClass::Unsupported,
        ErrorClass::Internal,
    ];

    /// As it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::Space => "space",
            ErrorClass::ReadOnly => "read_only",
            ErrorClass::Shortage => "shortage",
            ErrorClass::TimedOut => "timed_out",
            ErrorClass::Connection => "connection",
            ErrorClass::Fenced => "fenced",
            ErrorClass::Media => "media",
            ErrorClass::Invalid => "invalid",
            ErrorClass::InUse => "in_use",
            ErrorClass::Unsupported => "unsupported",
            ErrorClass::Internal => "internal",
        }
    }

    /// What the administrator of the storage has to do; `None`: nothing, trying again is enough.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            ErrorClass::Shortage | ErrorClass::InUse => None,
            ErrorClass::Space => Some("free or add space, the initiator's writes fail until then"),
            ErrorClass::ReadOnly => Some("make it writable, or the device read-only"),
            ErrorClass::TimedOut | ErrorClass::Connection => Some("bring the storage back"),
            ErrorClass::Fenced => Some("this host was shut out: see who serves the image now"),
            ErrorClass::Media | ErrorClass::Invalid => Some("check the storage, and the image"),
            ErrorClass::Unsupported | ErrorClass::Internal => {
                Some("a fault of this program, report it")
            }
        }
    }
}

/// Errnos by class; one that is not listed is of [`ErrorClass::Media`].
const ERRNOS: &[(i32, ErrorClass)] = &[
    (libc::ENOSPC, ErrorClass::Space),
    (libc::EDQUOT, ErrorClass::Space),
    (libc::EROFS, ErrorClass::ReadOnly),
    (libc::EPERM, ErrorClass::ReadOnly),
    (libc::EACCES, ErrorClass::ReadOnly),
    (libc::EAGAIN, ErrorClass::Shortage),
    (libc::EBUSY, ErrorClass::Shortage),
    (libc::EINTR, ErrorClass::Shortage),
    (libc::EMFILE, ErrorClass::Shortage),
    (libc::ENFILE, ErrorClass::Shortage),
    (libc::ENOBUFS, ErrorClass::Shortage),
    (libc::ENOMEM, ErrorClass::Shortage),
    (libc::ETIME, ErrorClass::TimedOut),
    (libc::ETIMEDOUT, ErrorClass::TimedOut),
    (libc::ECONNABORTED, ErrorClass::Connection),
    (libc::ECONNREFUSED, ErrorClass::Connection),
    (libc::ECONNRESET, ErrorClass::Connection),
    (libc::EHOSTDOWN, ErrorClass::Connection),
    (libc::EHOSTUNREACH, ErrorClass::Connection),
    (libc::ENETDOWN, ErrorClass::Connection),
    (libc::ENETUNREACH, ErrorClass::Connection),
    (libc::ENODEV, ErrorClass::Connection),
    (libc::ENOLINK, ErrorClass::Connection),
    (libc::ENOTCONN, ErrorClass::Connection),
    (libc::ENXIO, ErrorClass::Connection),
    (libc::EPIPE, ErrorClass::Connection),
    (libc::ESTALE, ErrorClass::Connection),
    // What librbd says to a client that the cluster has on its blocklist.
    (libc::ESHUTDOWN, ErrorClass::Fenced),
    (libc::ENOSYS, ErrorClass::Unsupported),
    (libc::EOPNOTSUPP, ErrorClass::Unsupported),
    (libc::EBADF, ErrorClass::Internal),
    (libc::EFAULT, ErrorClass::Internal),
    (libc::EINVAL, ErrorClass::Internal),
];

impl Deref for Error {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl ErrorKind {
    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match self {
            ErrorKind::Io(error) => {
                let errno = error.raw_os_error();
                let known = ERRNOS.iter().find(|(known, _)| Some(*known) == errno);
                known.map_or(ErrorClass::Media, |(_, class)| *class)
            }
            ErrorKind::ReadOnly | ErrorKind::Disguise(_) => ErrorClass::ReadOnly,
            ErrorKind::Unsupported(_) => ErrorClass::Unsupported,
            ErrorKind::InUse => ErrorClass::InUse,
            ErrorKind::Invalid(_) => ErrorClass::Invalid,
            ErrorKind::OutOfBounds { .. } => ErrorClass::Internal,
        }
    }
}

impl Error {
    /// An error of `operation` on `path`.
    pub fn new(
        kind: impl Into<ErrorKind>,
        operation: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Self {
        let (operation, path) = (operation.into(), path.into());
        Error(Box::new(Details { kind: kind.into(), operation, path, role: String::new() }))
    }

    /// What is wrong with an image, or with a configuration string, which then stands for the path.
    pub fn invalid(text: impl Into<String>, operation: &str, path: impl AsRef<Path>) -> Self {
        Error::new(ErrorKind::Invalid(text.into()), operation, path.as_ref())
    }

    /// The same, of a file of which is known what it is to the image that names it.
    pub(crate) fn with_role(mut self, role: String) -> Self {
        self.0.role = role;
        self
    }

    /// The error of a library that is loaded at run time, in `operation` on `path`; a call of it has a
    /// name of its own.
    pub(crate) fn of_library(
        error: run_time_library::Error,
        operation: &str,
        path: impl Into<PathBuf>,
    ) -> Self {
        match error {
            run_time_library::Error::Call { call, error } => Error::new(error, call, path),
            run_time_library::Error::Library(missing) => {
                Error::new(ErrorKind::Unsupported(missing.to_string()), operation, path)
            }
            nul @ run_time_library::Error::Nul(_) => {
                Error::new(ErrorKind::Invalid(nul.to_string()), operation, path)
            }
        }
    }

    /// Its class.
    pub fn class(&self) -> ErrorClass {
        self.kind.class()
    }

    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match &self.kind {
            ErrorKind::Io(e) => e.raw_os_error(),
            ErrorKind::ReadOnly => Some(libc::EROFS),
            ErrorKind::Unsupported(_) => Some(libc::EOPNOTSUPP),
            ErrorKind::InUse => Some(libc::EBUSY),
            ErrorKind::Invalid(_) => Some(libc::EINVAL),
            ErrorKind::OutOfBounds { .. } => Some(libc::EFBIG),
            ErrorKind::Disguise(_) => Some(libc::EPERM),
        }
    }
}

impl From<rustix::io::Errno> for ErrorKind {
    fn from(errno: rustix::io::Errno) -> Self {
        ErrorKind::Io(io::Error::from(errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_and_every_class_is_listed_once() {
        for (i, (errno, _)) in ERRNOS.iter().enumerate() {
            assert!(ERRNOS.iter().skip(i + 1).all(|(other, _)| other != errno), "{errno}");
        }
        for (i, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, i);
        }
    }

    #[test]
    fn a_path_in_a_message_stays_on_its_line() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a\n\x1b[31m\xff\xc3\xa4"));
        let error = Error::new(io::Error::from_raw_os_error(libc::ENOENT), "open", path);
        let text = error.to_string();
        assert!(text.starts_with("/a\\n\\u{1b}[31m\\xff\u{e4}: open: No such file"), "{text}");
    }

    #[test]
    fn an_unknown_errno_is_the_media() {
        let class = |errno| ErrorKind::from(io::Error::from_raw_os_error(errno)).class();
        assert_eq!(class(9999), ErrorClass::Media);
        assert_eq!(class(libc::EIO), ErrorClass::Media);
        assert_eq!(class(libc::ENOSPC), ErrorClass::Space);
    }
}
