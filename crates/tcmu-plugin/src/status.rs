// SPDX-License-Identifier: Apache-2.0
//! What handlers answer with: numbers in; out what the initiator is told, or, for the calls that a
//! store makes, the class of the failure.
use std::fmt;
use std::io;

use block::ErrorKind;
use scsi::sense::{self, Sense};
use tcmu_abi::status as numbers;

/// A number that a function of a handler returned, or that it completed a command with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

/// What a status means for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The handler does not know the command.
    NotHandled,
    /// It ends with this SCSI status, which is not CHECK CONDITION.
    Ended(sense::Status),
    /// CHECK CONDITION with this sense.
    Check(Sense),
    /// CHECK CONDITION with the sense data that the handler has filled in.
    OwnSense,
}

impl Status {
    /// The command will be completed later.
    pub const ASYNC_HANDLED: Status = Status(numbers::ASYNC_HANDLED);
    /// The handler leaves the command to others.
    pub const NOT_HANDLED: Status = Status(numbers::NOT_HANDLED);
    /// Done.
    pub const OK: Status = Status(numbers::OK);
    /// There is no memory or the like for it.
    pub const NO_RESOURCE: Status = Status(numbers::NO_RESOURCE);
    /// Not now.
    pub const BUSY: Status = Status(numbers::BUSY);
    /// COMPARE AND WRITE has found other bytes.
    pub const MISCOMPARE: Status = Status(numbers::MISCOMPARE);
    /// A field of the CDB is wrong.
    pub const INVALID_CDB: Status = Status(numbers::INVALID_CDB);
    /// It took too long.
    pub const TIMEOUT: Status = Status(numbers::TIMEOUT);
    /// The state of the target port group is changing.
    pub const TRANSITION: Status = Status(numbers::TRANSITION);
    /// The state of the target port group should have changed by itself, and has not.
    pub const IMPL_TRANSITION_ERR: Status = Status(numbers::IMPL_TRANSITION_ERR);
    /// Another host has shut this one out.
    pub const FENCED: Status = Status(numbers::FENCED);
    /// Past the end of the medium.
    pub const RANGE: Status = Status(numbers::RANGE);

    /// What it means for the command.
    pub fn verdict(self) -> Verdict {
        if self == Status::NOT_HANDLED {
            return Verdict::NotHandled;
        }
        match numbers::answer(self.0) {
            numbers::Answer::Good => Verdict::Ended(sense::Status::Good),
            numbers::Answer::Busy => Verdict::Ended(sense::Status::Busy),
            numbers::Answer::TaskSetFull => Verdict::Ended(sense::Status::TaskSetFull),
            numbers::Answer::SenseBuffer => Verdict::OwnSense,
            numbers::Answer::Sense { key, asc_ascq } => {
                let [asc, ascq] = asc_ascq.to_be_bytes();
                Verdict::Check(Sense::new(key, asc, ascq))
            }
        }
    }

    /// Why an operation of a store failed.
    pub(crate) fn kind(self) -> ErrorKind {
        let errno = ERRNOS.iter().find(|(status, _)| *status == self.0);
        let errno = errno.map_or(libc::EIO, |&(_, errno)| errno);
        ErrorKind::Io(io::Error::from_raw_os_error(errno))
    }
}

/// The errno that stands for a status where a store has failed; for any other it is EIO.
const ERRNOS: &[(i32, i32)] = &[
    (numbers::NO_RESOURCE, libc::ENOMEM),
    (numbers::BUSY, libc::EBUSY),
    (numbers::TIMEOUT, libc::ETIMEDOUT),
    (numbers::FENCED, libc::ESHUTDOWN),
    (numbers::TRANSITION, libc::EAGAIN),
    (numbers::NO_LOCK_HOLDERS, libc::ESHUTDOWN),
    (numbers::INVALID_CMD, libc::EOPNOTSUPP),
    (numbers::NOT_HANDLED, libc::EOPNOTSUPP),
];

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_status_are_a_failure_of_the_target() {
        for status in [-3, 29, i32::MAX, i32::MIN] {
            let verdict = Status(status).verdict();
            assert_eq!(verdict, Verdict::Check(Sense::INTERNAL_TARGET_FAILURE), "{status}");
        }
    }

    #[test]
    fn what_passes_is_an_ending_without_sense() {
        let ended = |status: i32| match Status(status).verdict() {
            Verdict::Ended(status) => Some(status),
            _ => None,
        };
        assert_eq!(ended(numbers::OK), Some(sense::Status::Good));
        assert_eq!(ended(numbers::NO_RESOURCE), Some(sense::Status::TaskSetFull));
        assert_eq!(ended(numbers::BUSY), Some(sense::Status::Busy));
        assert_eq!(Status(numbers::PASSTHROUGH_ERR).verdict(), Verdict::OwnSense);
        assert_eq!(Status::RANGE.verdict(), Verdict::Check(Sense::LBA_OUT_OF_RANGE));
    }

    #[test]
    fn a_store_that_fails_says_of_which_class_the_failure_is() {
        use block::ErrorClass;
        for (status, class) in [
            (Status::BUSY, ErrorClass::Shortage),
            (Status::FENCED, ErrorClass::Fenced),
            (Status(numbers::TIMEOUT), ErrorClass::TimedOut),
            (Status(77), ErrorClass::Media),
        ] {
            assert_eq!(status.kind().class(), class, "{status}");
        }
    }
}
