// SPDX-License-Identifier: Apache-2.0
//! What goes wrong with an archive: it is not as it has to be, or some of its members cannot be made.

use guest_error::{Errno, Error, Result};

/// The error that the archive is not as it has to be.
pub(super) fn invalid(what: &str) -> Error {
    Error::new(Errno::EINVAL, format!("archive: {what}"))
}

/// A number that cannot be negative.
pub(super) fn unsigned(number: Option<i64>, what: &str) -> Result<u64> {
    number.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| invalid(what))
}

/// Errors that the members that follow would meet as well.
const FATAL: &[Errno] = &[
    Errno::ENOSPC,
    Errno::EDQUOT,
    Errno::EIO,
    Errno::EROFS,
    Errno::ENOMEM,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EINTR,
];

/// The first error of a member, and how many members failed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    first: Option<Error>,
    count: u64,
}

impl Failures {
    /// Continues after an error that concerns one member.
    pub(super) fn defer(&mut self, done: Result<()>) -> Result<()> {
        match done {
            Err(e) if !FATAL.contains(&e.errno()) => {
                self.count += 1;
                self.first.get_or_insert(e);
                Ok(())
            }
            done => done,
        }
    }

    /// What came of all of them.
    pub(super) fn result(self) -> Result<()> {
        match self.first {
            None => Ok(()),
            Some(e) if self.count == 1 => Err(e),
            Some(e) => {
                let others = self.count - 1;
                Err(Error::new(e.errno(), format!("{} (and {others} errors more)", e.message())))
            }
        }
    }
}
