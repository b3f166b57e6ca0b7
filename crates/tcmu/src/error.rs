// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with the kernel's interface, with the file or device that it concerns.

use std::io;
use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file failed.
    #[error("{path}: {action}: {source}", path = path.display())]
    Io {
        /// What was being done ("open", "write '1'").
        action: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call on an open ring or socket failed.
    #[error("{action}: {source}")]
    Channel {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else serves the device.
    #[error("{path}: another process serves this device; stop it first", path = .0.display())]
    Busy(PathBuf),
    /// The shared memory is not a mailbox that we can use.
    #[error("mailbox: {0}")]
    Mailbox(String),
    /// The ring cannot be read further; [`crate::Ring::reset`] starts it again.
    #[error("ring is broken: {0}")]
    Broken(String),
    /// A completion for a command that is not in flight.
    #[error("command {0} is not in flight")]
    UnknownCommand(u16),
    /// The memory of commands is still in use, so that it may not be given back.
    #[error("{0} commands still use the data area")]
    CommandsInFlight(usize),
    /// A configfs attribute or action that this kernel does not have.
    #[error("{path}: this kernel does not have it", path = .0.display())]
    Missing(PathBuf),
    /// A file of the kernel says something that makes no sense.
    #[error("{path}: unexpected content '{content}'", path = path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// What it contains.
        content: String,
    },
    /// A name that no TCM-User device can have.
    #[error("'{0}' is not the name of a TCM-User device")]
    Name(String),
    /// Generic netlink: the family is not there, or the kernel refused.
    #[error("netlink: {0}")]
    Netlink(String),
    /// The module is not loaded and could not be.
    #[error("kernel module {module}: {reason}")]
    Module {
        /// Its name.
        module: String,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// For `map_err` after a system call on `path`.
    pub(crate) fn io(
        action: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let (action, path) = (action.into(), path.into());
        move |source| Error::Io { action, path, source }
    }

    /// For `map_err` after a system call on an open descriptor.
    pub(crate) fn channel<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Channel { action, source: source.into() }
    }
}
