//! This module uses `unsafe` to hand buffers to system calls.
//!
//! One operation on a descriptor: what is asked of the kernel, done at once or awaited.
#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

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

/// An operation as the kernel takes it. The pointers are valid as long as the [`Op`] that it was
/// made for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) fd: RawFd,
    pub(crate) code: Code,
    pub(crate) pieces: *const libc::iovec,
    pub(crate) count: u32,
    pub(crate) offset: u64,
}

// SAFETY: the pointers are used by the kernel alone, and `Op` outlives that use.
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

/// An operation to be done at once ([`Op::now`]) or awaited. Dropped while the kernel has it, it
/// cancels and waits: see the crate's notes on memory.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Op<'a> {
    request: Request,
    /// Where it is registered, once started.
    started: Option<(Rc<Core>, u32)>,
    memory: PhantomData<(BorrowedFd<'a>, &'a Sgl<'a>)>,
}

impl<'a> Op<'a> {
    /// Reads or writes `data` at `offset`, as far as one system call goes.
    pub(crate) fn transfer(fd: BorrowedFd<'a>, code: Code, data: &'a Sgl<'_>, offset: u64) -> Self {
        let pieces = data.iovecs();
        let count = u32::try_from(pieces.len().min(MAX_PIECES)).unwrap_or(0);
        Self::new(Request { fd: fd.as_raw_fd(), code, pieces: pieces.as_ptr(), count, offset })
    }

    /// An operation without data.
    pub(crate) fn control(fd: BorrowedFd<'a>, code: Code, offset: u64) -> Self {
        let pieces = std::ptr::null();
        Self::new(Request { fd: fd.as_raw_fd(), code, pieces, count: 0, offset })
    }

    fn new(request: Request) -> Self {
        Op { request, started: None, memory: PhantomData }
    }

    /// Does it on this thread, which blocks unless RWF_NOWAIT is among the flags.
    pub(crate) fn now(self) -> io::Result<usize> {
        // SAFETY: `'a` keeps the descriptor and the buffers.
        outcome(unsafe { self.request.perform() })
    }
}

pub(crate) fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

impl Future for Op<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some((core, slot)) = &self.started {
            let Some(result) = core.result(*slot, Some(cx.waker())) else { return Poll::Pending };
            core.release(*slot);
            self.started = None;
            return Poll::Ready(outcome(result));
        }
        let core = core::current_or_error()?;
        let slot = core.reserve(cx.waker());
        match &core.driver {
            // SAFETY: descriptor and buffers are borrowed for the life of this `Op`, whose drop
            // waits for the completion.
            Driver::Uring(uring) => match unsafe { uring.start(&self.request, slot) } {
                Ok(()) => {}
                Err(e) => {
                    core.release(slot);
                    return Poll::Ready(Err(e));
                }
            },
            // SAFETY: as above.
            Driver::Pool(poller) => unsafe { poller.start(core.lane(), self.request, slot) },
        }
        self.started = Some((core, slot));
        Poll::Pending
    }
}

impl Drop for Op<'_> {
    fn drop(&mut self) {
        let Some((core, slot)) = self.started.take() else { return };
        if core.result(slot, None).is_none() {
            match &core.driver {
                Driver::Uring(uring) => uring.cancel(&core, slot),
                Driver::Pool(poller) => poller.cancel(&core, slot),
            }
        }
        core.release(slot);
    }
}

/// Whether an error says that the operation (or one of its flags) is not there for this file.
pub(crate) fn is_unsupported(e: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(e),
        Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY)
    )
}
