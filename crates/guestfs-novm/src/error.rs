// SPDX-License-Identifier: Apache-2.0
//! What goes wrong, with what it concerns.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line cannot be followed.
    #[error("{0}")]
    Usage(String),
    /// An image cannot be served.
    #[error("{}: {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why, and what to do about it.
        reason: String,
    },
    /// An image cannot be opened.
    #[error(transparent)]
    Open(block::Error),
    /// An image was not flushed or not closed: what was acknowledged is not known to be stored.
    #[error("{0}: what was written to this image may be lost in part; check it before you use it")]
    Unsaved(block::Error),
    /// Either of these, as the process that serves an image told of it.
    #[error("{0}")]
    Served(String),
    /// Something that this host does not have, and how to get it.
    #[error("{0}")]
    Missing(String),
    /// A session has ended before its client has.
    #[error("the session has broken off: {0}")]
    Broken(String),
    /// What was made of a session's disks could not be taken down.
    #[error("{0}")]
    Active(String),
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was being done, and to what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error about an image.
    pub fn image(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Image { path: path.into(), reason: reason.into() }
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Context<T> {
    /// With this text.
    fn on(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn on(self, what: impl Display) -> Result<T> {
        self.map_err(|e| Error::System { what: what.to_string(), source: e.into() })
    }
}
