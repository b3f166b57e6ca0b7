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

impl Error {
    /// An error of `operation`.
    pub fn new(kind: impl Into<ErrorKind>, operation: impl Into<String>) -> Self {
        Error { kind: kind.into(), operation: operation.into() }
    }
}

impl ErrorKind {
    /// Something is wrong with the structure of the image, which a check may repair.
    pub(crate) fn damaged(what: impl Display) -> Self {
        ErrorKind::Invalid(format!("{what}; run `qemu-img check -r all PATH`"))
    }

    /// Something cannot be as it is, and no check helps.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        ErrorKind::Invalid(what.into())
    }
}
