// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to hand buffers to system calls.
//!
//! One operation on a descriptor: what is asked of the kernel, done at once ([`now`]) or awaited
//! ([`Op`]).
//!
//! What the kernel has for longer than a system call is [`Held`]: the descriptor, and memory that no
//! borrow can end. A future that is leaked leaks that, too.
#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[cfg(not(target_env = "gnu"))]
use libc::{preadv2, pwritev2};
// With offsets of 64 bits on 32-bit machines too.
#[cfg(target_env = "gnu")]
use libc::{preadv64v2 as preadv2, pwritev64v2 as pwritev2};
use rustix::io::Errno;
use sgl::Sgl;

use crate::core::{self, Core, Driver};

/// Most pieces that one system call takes (IOV_MAX); what is longer becomes a short transfer.
const MAX_PIECES: usize = 1024;
/// Most bytes of an operation whose memory is only borrowed, and so copied; what is longer becomes
/// a short transfer.
const MAX_COPIED: usize = 256 << 10;

/// What an operation is on.
#[derive(Debug)]
pub(crate) enum Descriptor {
    Os(OwnedFd),
    /// A file of the simulated world of this number.
    #[cfg(feature = "sim")]
    Simulated {
        world: u64,
        node: u32,
    },
}

impl Descriptor {
    #[cfg(feature = "sim")]
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self, Descriptor::Simulated { .. })
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Descriptor::Os(fd) => fd.as_fd(),
            // The kernel knows nothing of it: EBADF.
            #[cfg(feature = "sim")]
            Descriptor::Simulated { .. } => rustix::fs::CWD,
        }
    }
}

/// What is asked of the kernel.
#[derive(Clone, Copy)]
pub(crate) enum Code {
    /// preadv2 with these RWF_ flags.
    Read(i32),
    /// pwritev2 with these RWF_ flags.
    Write(i32),
    /// fsync, or fdatasync.
    Sync { data_only: bool },
    /// fallocate with this mode, of a range of this length.
    Fallocate { mode: i32, len: u64 },
}

/// An operation as the kernel takes it. The pointers are valid as long as the [`Held`] that it was
/// made for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) fd: RawFd,
    pub(crate) code: Code,
    pub(crate) pieces: *const libc::iovec,
    pub(crate) count: u32,
    pub(crate) offset: u64,
}

// SAFETY: the pointers are used by the kernel alone, and `Held` outlives that use.
unsafe impl Send for Request {}

impl Request {
    /// Does it, on this thread. A count of bytes, or a negative errno.
    ///
    /// # Safety
    /// The descriptor and the buffers are valid.
    pub(crate) unsafe fn perform(&self) -> i32 {
        // The casts reinterpret: the kernel refuses offsets and lengths over i64::MAX.
        let offset = self.offset.cast_signed();
        let count = self.count.cast_signed();
        loop {
            // SAFETY: the caller's promise; the count fits the array.
            let result = unsafe {
                match self.code {
                    Code::Read(flags) => preadv2(self.fd, self.pieces, count, offset, flags),
                    Code::Write(flags) => pwritev2(self.fd, self.pieces, count, offset, flags),
                    Code::Sync { data_only: false } => libc::fsync(self.fd) as isize,
                    Code::Sync { data_only: true } => libc::fdatasync(self.fd) as isize,
                    Code::Fallocate { mode, len } => {
                        libc::fallocate64(self.fd, mode, offset, len.cast_signed()) as isize
                    }
                }
            };
            if result >= 0 {
                return i32::try_from(result).unwrap_or(i32::MAX);
            }
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            if errno != libc::EINTR {
                return -errno;
            }
        }
    }
}

/// Reads or writes `data` at `offset` on this thread, as far as one system call goes. It blocks
/// unless RWF_NOWAIT is among the flags.
#[inline]
pub(crate) fn now(fd: &Descriptor, code: Code, data: &Sgl<'_>, offset: u64) -> io::Result<usize> {
    #[cfg(feature = "sim")]
    if fd.is_simulated() {
        return crate::sim::now(fd, code, data, offset);
    }
    // SAFETY: the descriptor and the memory are borrowed for longer than the call.
    outcome(unsafe { request(fd.as_fd().as_raw_fd(), code, data, offset).perform() })
}

fn request(fd: RawFd, code: Code, data: &Sgl<'_>, offset: u64) -> Request {
    let pieces = data.iovecs();
    let count = u32::try_from(pieces.len().min(MAX_PIECES)).unwrap_or(0);
    Request { fd, code, pieces: pieces.as_ptr(), count, offset }
}

/// What the kernel uses until an operation has ended. It is in a box, so that it stays where it is.
struct Held {
    fd: Arc<Descriptor>,
    data: Sgl<'static>,
}

/// An operation to be awaited. Dropped while the kernel has it, it cancels and waits: see the
/// crate's notes on memory.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Op<'a> {
    fd: &'a Arc<Descriptor>,
    code: Code,
    data: Option<&'a Sgl<'a>>,
    offset: u64,
    started: Option<Started>,
}

struct Started {
    core: Rc<Core>,
    /// Where it is registered.
    slot: u32,
    held: Box<Held>,
    /// What was read goes to `Op::data` at the end.
    copied: bool,
}

impl<'a> Op<'a> {
    /// Reads or writes `data` at `offset`, as far as one system call goes.
    pub(crate) fn transfer(
        fd: &'a Arc<Descriptor>,
        code: Code,
        data: &'a Sgl<'a>,
        offset: u64,
    ) -> Self {
        Op { fd, code, data: Some(data), offset, started: None }
    }

    /// An operation without data.
    pub(crate) fn control(fd: &'a Arc<Descriptor>, code: Code, offset: u64) -> Self {
        Op { fd, code, data: None, offset, started: None }
    }

    /// Memory that stays, and whether it is a copy.
    fn memory(&self) -> (Sgl<'static>, bool) {
        let Some(data) = self.data else { return (Sgl::empty(), false) };
        if let Some(shared) = data.share() {
            return (shared, false);
        }
        let copy = Sgl::zeroed(data.len().min(MAX_COPIED));
        if matches!(self.code, Code::Write(_)) {
            data.copy_to(&copy);
        }
        (copy, true)
    }

    fn start(&self, waker: &Waker) -> io::Result<Started> {
        let core = core::current_or_error()?;
        let (data, copied) = self.memory();
        let held = Box::new(Held { fd: self.fd.clone(), data });
        let request = request(held.fd.as_fd().as_raw_fd(), self.code, &held.data, self.offset);
        let slot = core.reserve(waker);
        match &core.driver {
            // SAFETY: `Started` has the box with descriptor and memory. It is dropped after the
            // completion was taken, or never.
            Driver::Uring(uring) => match unsafe { uring.start(&request, slot) } {
                Ok(()) => {}
                Err(e) => {
                    core.release(slot);
                    return Err(e);
                }
            },
            // SAFETY: as above.
            Driver::Pool(poller) => unsafe { poller.start(core.lane(), request, slot) },
            #[cfg(feature = "sim")]
            Driver::Sim(world) => {
                let data = held.data.share().unwrap_or(Sgl::empty());
                world.start(&held.fd, self.code, data, self.offset, slot);
            }
        }
        Ok(Started { core, slot, held, copied })
    }
}

pub(crate) fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

impl Future for Op<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(started) = &self.started else {
            let started = self.start(cx.waker())?;
            self.started = Some(started);
            return Poll::Pending;
        };
        let Started { core, slot, held, copied } = started;
        let Some(result) = core.result(*slot, Some(cx.waker())) else { return Poll::Pending };
        core.release(*slot);
        let result = outcome(result);
        if *copied && let (Code::Read(_), Some(data), Ok(n)) = (self.code, self.data, &result) {
            held.data.slice(0..*n).copy_to(data);
        }
        self.started = None;
        Poll::Ready(result)
    }
}

impl Drop for Op<'_> {
    fn drop(&mut self) {
        let Some(Started { core, slot, held, .. }) = self.started.take() else { return };
        if core.result(slot, None).is_none() {
            match &core.driver {
                Driver::Uring(uring) => uring.cancel(&core, slot),
                Driver::Pool(poller) => poller.cancel(&core, slot),
                #[cfg(feature = "sim")]
                Driver::Sim(world) => world.cancel(slot),
            }
        }
        core.release(slot);
        drop(held);
    }
}

/// Whether an error says that the operation (or one of its flags) is not there for this file.
pub(crate) fn is_unsupported(e: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(e),
        Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY)
    )
}
