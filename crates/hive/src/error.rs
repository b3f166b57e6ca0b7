// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a hive, or with what is asked of it.

use std::io;

/// Why something cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no hive, or is not whole.
    #[error("not a registry hive: {0}")]
    NotAHive(&'static str),
    /// The file is of a kind that cannot be read here.
    #[error("not a registry hive that can be read: {0}")]
    Unsupported(&'static str),
    /// The hive does not hold what it should.
    #[error("damaged hive: at {at:#x}: {what}")]
    Damaged {
        /// Offset in the file.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A handle, a name or data that cannot be.
    #[error("{0}")]
    Argument(&'static str),
    /// There is a key of this name.
    #[error("a subkey of this name exists")]
    Exists,
    /// More than there may be.
    #[error("{0}")]
    TooMuch(&'static str),
    /// The file could not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Results of what is done with a hive.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A file that ends within its header is no hive.
    pub(crate) fn of_header(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => Self::NotAHive("too short"),
            _ => Self::Io(e),
        }
    }
}
