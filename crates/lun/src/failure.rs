// SPDX-License-Identifier: Apache-2.0
//! How a command fails: sense, or a status that asks to try again; and the one table that turns
//! errors of a backstore into that.
use std::cell::Cell;
use std::time::{Duration, Instant};

use block::ErrorKind;
use scsi::sense::Sense;

/// Why a command did not end in GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// CHECK CONDITION with this sense.
    Check(Sense),
    /// BUSY: it was not executed and may be sent again.
    Busy,
}

impl From<Sense> for Failure {
    fn from(sense: Sense) -> Self {
        Failure::Check(sense)
    }
}

/// What a command answers: the bytes of data-in that are valid.
pub(crate) type Answer = Result<usize, Failure>;

/// What was being done when a backstore failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Classes of failure of a backstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// No space is left for the write.
    Space,
    /// The file or its file system is read-only.
    Protected,
    /// A shortage that passes.
    Shortage,
    /// It took too long; another attempt may do.
    TimedOut,
    /// What holds the blocks is gone, or cannot be reached.
    Gone,
    /// The blocks cannot be read or written.
    Medium,
    /// We asked for what is not possible: a fault of ours.
    Internal,
}

/// How many classes there are.
const CLASSES: usize = 7;

/// Errnos by class; one that is not listed is of [`Class::Medium`].
const ERRNOS: &[(i32, Class)] = &[
    (libc::ENOSPC, Class::Space),
    (libc::EDQUOT, Class::Space),
    (libc::EROFS, Class::Protected),
    (libc::EPERM, Class::Protected),
    (libc::EACCES, Class::Protected),
    (libc::EAGAIN, Class::Shortage),
    (libc::EBUSY, Class::Shortage),
    (libc::EINTR, Class::Shortage),
    (libc::EMFILE, Class::Shortage),
    (libc::ENFILE, Class::Shortage),
    (libc::ENOBUFS, Class::Shortage),
    (libc::ENOMEM, Class::Shortage),
    (libc::ETIME, Class::TimedOut),
    (libc::ETIMEDOUT, Class::TimedOut),
    (libc::ECONNABORTED, Class::Gone),
    (libc::ECONNREFUSED, Class::Gone),
    (libc::ECONNRESET, Class::Gone),
    (libc::EHOSTDOWN, Class::Gone),
    (libc::EHOSTUNREACH, Class::Gone),
    (libc::ENETDOWN, Class::Gone),
    (libc::ENETUNREACH, Class::Gone),
    (libc::ENODEV, Class::Gone),
    (libc::ENOLINK, Class::Gone),
    (libc::ENOTCONN, Class::Gone),
    (libc::ENXIO, Class::Gone),
    (libc::EPIPE, Class::Gone),
    (libc::ESHUTDOWN, Class::Gone),
    (libc::ESTALE, Class::Gone),
    (libc::EBADF, Class::Internal),
    (libc::EFAULT, Class::Internal),
    (libc::EINVAL, Class::Internal),
    (libc::ENOSYS, Class::Internal),
    (libc::EOPNOTSUPP, Class::Internal),
];

fn classify(kind: &ErrorKind) -> Class {
    match kind {
        ErrorKind::Io(error) => {
            let errno = error.raw_os_error();
            match ERRNOS.iter().find(|(known, _)| Some(*known) == errno) {
                Some((_, class)) => *class,
                None => Class::Medium,
            }
        }
        ErrorKind::ReadOnly => Class::Protected,
        ErrorKind::Unsupported(_) => Class::Internal,
        ErrorKind::InUse => Class::Shortage,
        ErrorKind::Invalid(_) => Class::Medium,
    }
}

/// The failure of a command whose access to the backstore, from block `lba` on, failed.
pub(crate) fn failure(kind: &ErrorKind, access: Access, lba: u64) -> Failure {
    Failure::Check(match (classify(kind), access) {
        (Class::Shortage, _) => return Failure::Busy,
        (Class::Space, Access::Write) => Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        (Class::Protected, Access::Write) => Sense::WRITE_PROTECTED,
        (Class::TimedOut, _) => Sense::COMMAND_TIMEOUT_DURING_PROCESSING,
        (Class::Gone, _) => Sense::LUN_COMMUNICATION_FAILURE,
        (Class::Internal, _) => Sense::INTERNAL_TARGET_FAILURE,
        (_, Access::Read) => Sense::UNRECOVERED_READ_ERROR.with_information(lba),
        (_, Access::Write) => Sense::WRITE_ERROR.with_information(lba),
    })
}

/// At most one log line in this time for each class of failure.
const QUIET: Duration = Duration::from_secs(10);

/// Logs failures of a backstore so that one that fails a million times fills no disk.
#[derive(Default)]
pub(crate) struct FailureLog {
    /// By class: when a line was last written, and how many were left out since.
    classes: [Cell<(Option<Instant>, u64)>; CLASSES],
}

impl FailureLog {
    /// Writes a line, or counts it. The level says who acts: on a shortage of the moment nobody
    /// has to, the initiator tries again; all else is for the administrator of the storage.
    pub(crate) fn note(&self, device: &str, error: &block::Error, lba: u64) {
        let class = classify(&error.kind);
        let Some(suffix) = self.due(class, Instant::now()) else { return };
        let advice = match class {
            Class::Space => "free or add space, the initiator's writes fail until then",
            Class::Protected => "make it writable, or the device read-only",
            Class::TimedOut | Class::Gone => "bring the storage back",
            Class::Medium => "check the storage, and the image",
            Class::Internal => "a fault of this program, report it",
            Class::Shortage => {
                tracing::warn!("{device}: {error} (LBA {lba}){suffix}");
                return;
            }
        };
        tracing::error!("{device}: {error} (LBA {lba}): {advice}{suffix}");
    }

    /// How the line of a failure ends, if one is due: with the number of those left out.
    fn due(&self, class: Class, now: Instant) -> Option<String> {
        let cell = self.classes.get(class as usize)?;
        let (last, left_out) = cell.get();
        if last.is_some_and(|last| now.duration_since(last) < QUIET) {
            cell.set((last, left_out + 1));
            return None;
        }
        cell.set((Some(now), 0));
        Some(match left_out {
            0 => String::new(),
            n => format!("; {n} more like it since the last message"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn of(errno: i32, access: Access) -> Failure {
        failure(&ErrorKind::Io(io::Error::from_raw_os_error(errno)), access, 7)
    }

    #[test]
    fn a_full_file_system_is_a_failed_space_allocation_for_writes() {
        for errno in [libc::ENOSPC, libc::EDQUOT] {
            let failure = of(errno, Access::Write);
            assert_eq!(failure, Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT.into());
        }
    }

    #[test]
    fn unknown_errnos_are_medium_errors_with_the_lba() {
        let read = Sense::UNRECOVERED_READ_ERROR.with_information(7);
        assert_eq!(of(libc::EIO, Access::Read), read.into());
        assert_eq!(of(9999, Access::Write), Sense::WRITE_ERROR.with_information(7).into());
        assert_eq!(of(libc::ENOSPC, Access::Read), read.into());
    }

    #[test]
    fn a_shortage_of_memory_is_busy() {
        assert_eq!(of(libc::ENOMEM, Access::Read), Failure::Busy);
        assert_eq!(of(libc::EAGAIN, Access::Write), Failure::Busy);
    }

    #[test]
    fn a_read_only_backstore_is_write_protected() {
        let failure = failure(&ErrorKind::ReadOnly, Access::Write, 0);
        assert_eq!(failure, Sense::WRITE_PROTECTED.into());
        assert_eq!(of(libc::EROFS, Access::Write), Sense::WRITE_PROTECTED.into());
    }

    #[test]
    fn the_log_counts_only_lines_that_were_left_out() {
        let log = FailureLog::default();
        let now = Instant::now();
        assert_eq!(log.due(Class::Medium, now), Some(String::new()));
        assert_eq!(log.due(Class::Medium, now), None);
        assert_eq!(log.due(Class::Medium, now + QUIET / 2), None);
        assert_eq!(log.due(Class::Space, now), Some(String::new()), "each class by itself");
        let suffix = "; 2 more like it since the last message";
        assert_eq!(log.due(Class::Medium, now + QUIET).as_deref(), Some(suffix));
        assert_eq!(log.due(Class::Medium, now + QUIET * 2), Some(String::new()));
    }

    #[test]
    fn every_errno_is_listed_once() {
        for (i, (errno, _)) in ERRNOS.iter().enumerate() {
            assert!(ERRNOS.iter().skip(i + 1).all(|(other, _)| other != errno), "{errno}");
        }
    }
}
