// SPDX-License-Identifier: Apache-2.0
//! Locks that keep an image from being written twice, in QEMU's language: so qemu-img and QEMU
//! refuse an image that is being served, and we refuse one that they have open.
//!
//! There is a byte for each thing that a program may do to an image. A program that does it holds
//! a shared lock on byte 100 + n; one that needs others not to do it holds a lock on byte 200 + n.
//! Everybody locks first and then looks for a lock that contradicts; of two that come at the same
//! time both may fail. The locks belong to the open file description.
use std::io;
use std::os::fd::BorrowedFd;

use io_engine::ofd;

const DOING: i64 = 100;
const REFUSING: i64 = 200;

/// The numbers of the things that a program may do.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// How an image is shared with other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// For writing: others may neither write nor rely on the content.
    Exclusive,
    /// For reading: others may read, but not write.
    Shared,
    /// No locks are taken or respected: others may write at the same time.
    None,
}

impl Locks {
    /// Those of an image that is opened `read_only` or not, if it is to be locked.
    pub fn of(read_only: bool, locked: bool) -> Self {
        match (locked, read_only) {
            (false, _) => Locks::None,
            (true, true) => Locks::Shared,
            (true, false) => Locks::Exclusive,
        }
    }

    fn doing(self) -> &'static [i64] {
        match self {
            Locks::Exclusive => &[READ, WRITE, RESIZE],
            Locks::Shared => &[READ],
            Locks::None => &[],
        }
    }

    fn refusing(self) -> &'static [i64] {
        match self {
            Locks::Exclusive | Locks::Shared => &[WRITE, RESIZE],
            Locks::None => &[],
        }
    }
}

/// Locks an image; false: another program's locks contradict. Those taken then stay until the
/// descriptor is closed.
///
/// # Errors
/// Of the system; some file systems have no locks (EINVAL, ENOLCK, EOPNOTSUPP).
pub fn lock(fd: BorrowedFd<'_>, locks: Locks) -> io::Result<bool> {
    if !announce(fd, locks)? {
        return Ok(false);
    }
    for (base, things) in [(REFUSING, locks.doing()), (DOING, locks.refusing())] {
        for thing in things {
            if ofd::is_locked(fd, base + thing)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Locks an image that `old`, another open file of ours, has locked already; false: another
/// program's locks contradict. Nobody can take the image in between: it is locked by `old`, and
/// that stays as it is.
pub(crate) fn take_over(
    fd: BorrowedFd<'_>,
    locks: Locks,
    (old, old_locks): (BorrowedFd<'_>, Locks),
) -> io::Result<bool> {
    match (locks, old_locks) {
        (_, Locks::None) => lock(fd, locks),
        // `old` does not see its own locks, so it has to ask.
        (Locks::Exclusive, Locks::Shared) => {
            let free = lock(old, locks).and_then(|free| Ok(free && announce(fd, locks)?));
            for thing in locks.doing().iter().filter(|thing| !old_locks.doing().contains(thing)) {
                ofd::unlock(old, DOING + thing)?;
            }
            free
        }
        // Whatever would contradict contradicts `old`, too.
        _ => announce(fd, locks),
    }
}

/// Takes the locks and does not look for others; false: somebody locks exclusively, which QEMU
/// does not.
fn announce(fd: BorrowedFd<'_>, locks: Locks) -> io::Result<bool> {
    for (base, things) in [(DOING, locks.doing()), (REFUSING, locks.refusing())] {
        for thing in things {
            match ofd::lock_shared(fd, base + thing) {
                Ok(()) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
    }
    Ok(true)
}
