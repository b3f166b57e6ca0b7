// SPDX-License-Identifier: Apache-2.0
//! How a command fails: sense, or a status that asks to try again; and the one table that turns
//! classes of errors into that.
use std::cell::Cell;
use std::time::{Duration, Instant};

use block::ErrorClass;
use scsi::sense::Sense;

/// Why a command did not end in GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
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

/// What was being done when the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Read,
    Write,
}

/// The failure of a command whose access to the disk, from block `lba` on, failed.
pub(crate) fn failure(class: ErrorClass, doing: Doing, lba: u64) -> Failure {
    Failure::Check(match (class, doing) {
        (ErrorClass::Shortage | ErrorClass::InUse, _) => return Failure::Busy,
        (ErrorClass::Space, Doing::Write) => Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        (ErrorClass::ReadOnly, Doing::Write) => Sense::WRITE_PROTECTED,
        (ErrorClass::TimedOut, _) => Sense::COMMAND_TIMEOUT_DURING_PROCESSING,
        // NOT READY: Linux takes another path then. HARDWARE ERROR is to it the same on all paths.
        (ErrorClass::Connection | ErrorClass::Fenced, _) => Sense::LUN_COMMUNICATION_FAILURE,
        (ErrorClass::Unsupported | ErrorClass::Internal, _) => Sense::INTERNAL_TARGET_FAILURE,
        (
            ErrorClass::Space | ErrorClass::ReadOnly | ErrorClass::Media | ErrorClass::Invalid,
            Doing::Read,
        ) => Sense::UNRECOVERED_READ_ERROR.with_information(lba),
        (ErrorClass::Media | ErrorClass::Invalid, Doing::Write) => {
            Sense::WRITE_ERROR.with_information(lba)
        }
    })
}

/// At most one log line in this time for each class of failure.
const QUIET: Duration = Duration::from_secs(10);

/// Logs failures so that a store that fails a million times fills no disk.
#[derive(Default)]
pub(crate) struct FailureLog {
    /// By class: when a line was last written, and how many were left out since.
    classes: [Cell<(Option<Instant>, u64)>; ErrorClass::COUNT],
}

impl FailureLog {
    /// Writes a line, or counts it. The level says who acts: on a shortage of the moment nobody
    /// has to, the initiator tries again; all else is for the administrator of the storage.
    pub(crate) fn note(&self, device: &str, error: &block::Error, lba: u64) {
        let Some(suffix) = self.due(error.class(), Instant::now()) else { return };
        match error.class().advice() {
            Some(advice) => {
                tracing::error!("{device}: {error} (LBA {lba}): {advice}{suffix}");
            }
            None => tracing::warn!("{device}: {error} (LBA {lba}){suffix}"),
        }
    }

    /// How the line of a failure ends, if one is due: with the number of those left out.
    fn due(&self, class: ErrorClass, now: Instant) -> Option<String> {
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

    use block::ErrorKind;

    use super::*;

    fn of(errno: i32, doing: Doing) -> Failure {
        failure(ErrorKind::Io(io::Error::from_raw_os_error(errno)).class(), doing, 7)
    }

    #[test]
    fn a_full_file_system_is_a_failed_space_allocation_for_writes() {
        for errno in [libc::ENOSPC, libc::EDQUOT] {
            let failure = of(errno, Doing::Write);
            assert_eq!(failure, Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT.into());
        }
    }

    #[test]
    fn unknown_errnos_are_medium_errors_with_the_lba() {
        let read = Sense::UNRECOVERED_READ_ERROR.with_information(7);
        assert_eq!(of(libc::EIO, Doing::Read), read.into());
        assert_eq!(of(9999, Doing::Write), Sense::WRITE_ERROR.with_information(7).into());
        assert_eq!(of(libc::ENOSPC, Doing::Read), read.into());
    }

    #[test]
    fn a_shortage_of_memory_is_busy() {
        assert_eq!(of(libc::ENOMEM, Doing::Read), Failure::Busy);
        assert_eq!(of(libc::EAGAIN, Doing::Write), Failure::Busy);
    }

    #[test]
    fn a_read_only_store_is_write_protected() {
        let failure = failure(ErrorKind::ReadOnly.class(), Doing::Write, 0);
        assert_eq!(failure, Sense::WRITE_PROTECTED.into());
        assert_eq!(of(libc::EROFS, Doing::Write), Sense::WRITE_PROTECTED.into());
    }

    #[test]
    fn the_log_counts_only_lines_that_were_left_out() {
        let log = FailureLog::default();
        let now = Instant::now();
        assert_eq!(log.due(ErrorClass::Media, now), Some(String::new()));
        assert_eq!(log.due(ErrorClass::Media, now), None);
        assert_eq!(log.due(ErrorClass::Media, now + QUIET / 2), None);
        assert_eq!(log.due(ErrorClass::Space, now), Some(String::new()), "each class by itself");
        let suffix = "; 2 more like it since the last message";
        assert_eq!(log.due(ErrorClass::Media, now + QUIET).as_deref(), Some(suffix));
        assert_eq!(log.due(ErrorClass::Media, now + QUIET * 2), Some(String::new()));
    }
}
