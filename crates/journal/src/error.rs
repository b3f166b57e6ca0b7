// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a journal.

use std::io;

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is none that can be read here.
    #[error("not a journal: {0}")]
    NotAJournal(&'static str),
    /// Something in it is not what it should be.
    #[error("damaged journal: at {at:#x}: {what}")]
    Damaged {
        /// Offset in the file.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A field that is longer than what is read of one.
    #[error("a field of more than 128 MiB")]
    TooLong,
    /// There is no entry, because none has been gone to.
    #[error("not at an entry: go to the next one first")]
    NoEntry,
    /// The file could not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Results of what is done with a journal.
pub type Result<T> = std::result::Result<T, Error>;
