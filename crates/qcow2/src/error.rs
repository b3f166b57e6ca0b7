// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with an image. Who opened it knows its name and adds it.
use std::fmt::Display;
use std::io;

/// Why an operation failed, and which.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {kind}")]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What was being done ("open", "read 4096 bytes at 0").
    pub operation: String,
}

pub(crate) type Result<T> = std::result::Result<T, ErrorKind>;

/// Classes of errors. In texts, `PATH` stands for the name of the image.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The storage failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The image was opened read only, or is of a kind that can only be read.
    #[error("it is read-only")]
    ReadOnly,
    /// The image, as it is, cannot do that; the text says what to do.
    #[error("{0}")]
    Unsupported(String),
    /// The image is damaged, or none that may be used; the text names the field and its value, and
    /// what to run.
    #[error("{0}")]
    Invalid(String),
}

/// Makes the error of a fault, which says what helps.
pub(crate) type Refusal = fn(String) -> ErrorKind;

/// What helps where no check does.
const SALVAGE: &str = "if there is no other copy, run `qemu-img convert --salvage -O qcow2 PATH \
                       NEW` and use NEW, in which what is missing is zero";
/// What helps where nothing else does.
const COPY: &str = "nothing repairs that: use another copy of the image";
/// What helps where all of the guest's data can be read.
const CONVERT: &str = "run `qemu-img convert -O qcow2 PATH NEW` and use NEW";

/// The image refers to something that its file does not have.
pub(crate) fn cut_off(what: impl Display) -> ErrorKind {
    ErrorKind::Invalid(format!("{what}; it was cut off, or not wholly copied; {SALVAGE}"))
}

impl Error {
    /// An error of `operation`.
    pub fn new(kind: impl Into<ErrorKind>, operation: impl Into<String>) -> Self {
        Error { kind: kind.into(), operation: operation.into() }
    }
}

impl ErrorKind {
    /// The same for another operation that met it.
    pub(crate) fn again(&self) -> Self {
        match self {
            ErrorKind::Io(e) => ErrorKind::Io(match e.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(e.kind(), e.to_string()),
            }),
            ErrorKind::ReadOnly => ErrorKind::ReadOnly,
            ErrorKind::Unsupported(text) => ErrorKind::Unsupported(text.clone()),
            ErrorKind::Invalid(text) => ErrorKind::Invalid(text.clone()),
        }
    }

    /// Something is wrong with the structure of the image, which a check may repair. That of QEMU 7.2
    /// deletes the snapshots of an image that has bitmaps.
    pub(crate) fn damaged(what: impl Display) -> Self {
        ErrorKind::Invalid(format!("{what}; keep a copy and run `qemu-img check -r all PATH`"))
    }

    /// Something is wrong with the structure of the image, and no check repairs that.
    pub(crate) fn hopeless(what: impl Display) -> Self {
        ErrorKind::Invalid(format!("{what}; no check repairs that; {SALVAGE}"))
    }

    /// Something that only costs space or snapshots is wrong, and no check repairs that.
    pub(crate) fn to_convert(what: impl Display) -> Self {
        ErrorKind::Invalid(format!("{what}; {CONVERT}"))
    }

    /// Something is wrong without which nothing can be read; QEMU's tools refuse the image, too.
    pub(crate) fn unreadable(what: impl Display) -> Self {
        ErrorKind::Invalid(format!("{what}; {COPY}"))
    }

    /// A value that is not known here, as later versions of the format may have it.
    pub(crate) fn unknown(what: impl Display) -> Self {
        ErrorKind::Invalid(format!(
            "{what}; if a newer QEMU made the image, run its `qemu-img convert -O qcow2 PATH NEW` \
             and use NEW, else use another copy of the image"
        ))
    }

    /// The name of the backing file is wrong, which can be written anew.
    pub(crate) fn misnamed(what: impl Display) -> Self {
        ErrorKind::Invalid(format!(
            "{what}; if you know the file, run `qemu-img rebase -u -b FILE -F FORMAT PATH`"
        ))
    }

    /// The name of the external data file is missing or wrong, which can be written anew.
    pub fn no_data_file(what: impl Display) -> Self {
        ErrorKind::Invalid(format!(
            "{what}; if you know the file, run `qemu-img amend -o data_file=FILE --image-opts \
             driver=qcow2,file.filename=PATH,data-file.driver=file,data-file.filename=FILE`"
        ))
    }

    /// Something cannot be as it is, and no check helps.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        ErrorKind::Invalid(what.into())
    }
}

/// Whether there is no space, or the storage cannot be longer.
pub(crate) fn is_no_space(e: &ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidInput, QuotaExceeded, StorageFull};
    let ErrorKind::Io(e) = e else { return false };
    // A block device refuses another length with EINVAL.
    matches!(e.kind(), StorageFull | FileTooLarge | QuotaExceeded | InvalidInput)
}
