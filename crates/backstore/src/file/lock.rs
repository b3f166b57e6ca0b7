//! Locks that keep an image from being written twice, in QEMU's language: so qemu-img and QEMU
//! refuse an image that is being served, and we one that they have open.
//!
//! There is a byte for each thing that one may do to an image. Who does it holds a shared lock on
//! byte 100 + n; who cannot stand that others do it holds one on byte 200 + n. Everybody locks
//! first and then looks whether somebody else's lock is in contradiction; of two that come
//! together both may fail. The locks belong to the open file description: they end with it, also
//! when the process is killed.
use std::io;
use std::os::fd::BorrowedFd;

use super::sys;

const DOING: i64 = 100;
const REFUSING: i64 = 200;

/// The numbers of the things that one may do.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Locks an image for us; false: somebody else has it.
///
/// # Errors
/// Of the system; some file systems have no locks (EINVAL, ENOLCK, EOPNOTSUPP).
pub fn lock(fd: BorrowedFd<'_>, read_only: bool) -> io::Result<bool> {
    let doing: &[i64] = if read_only { &[READ] } else { &[READ, WRITE, RESIZE] };
    // Two that only read do not disturb each other.
    let refusing = [WRITE, RESIZE];
    for (base, things) in [(DOING, doing), (REFUSING, &refusing[..])] {
        for thing in things {
            match sys::lock_shared(fd, base + thing) {
                Ok(()) => {}
                // Somebody locks exclusively, which QEMU does not.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
    }
    for (base, things) in [(REFUSING, doing), (DOING, &refusing[..])] {
        for thing in things {
            if sys::is_locked(fd, base + thing)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
