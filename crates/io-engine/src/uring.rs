// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to give the kernel descriptors and buffers through io_uring.
//!
//! The ring of one engine. Entries collect in the submission queue while futures are polled; one
//! `io_uring_enter` at the end of the turn submits them all and, when nothing is ready, sleeps.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use rustix::io::Errno;

use crate::core::{Core, NOBODY};
use crate::notify::Notify;
use crate::op::{Code, Request};

/// Entries of the submission queue; the completion queue has twice as many. When more operations
/// than that are in flight the kernel keeps their completions until there is room. Small, for
/// there is a ring for each device.
const ENTRIES: u32 = 64;

type Setup = fn(&mut io_uring::Builder);

/// Ways to set up a ring, best first, by the kernel that has them. Measured on 6.18 with
/// `examples/io_cost.rs`: random 4 KiB reads that miss the cache, 32 at a time, cost 12 to 13 us of
/// CPU each in all three (the kernel's, nearly all of it), with 30 to 40 reads an `io_uring_enter`.
const SETUPS: [(&str, Setup); 3] = [
    // Completions are worked off when we ask for them, not by interrupting us.
    ("deferred task work", |b| {
        b.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    }), // 6.1
    ("cooperative task work", |b| {
        b.setup_coop_taskrun().setup_taskrun_flag();
    }), // 5.19
    ("plain", |_| {}),
];

pub(crate) struct Uring {
    ring: RefCell<IoUring>,
    /// Entries that found the queue full and the kernel unwilling (it wants completions to be
    /// taken first).
    backlog: RefCell<VecDeque<squeue::Entry>>,
    setup: &'static str,
    /// Whether a completion of the eventfd said that its poll has ended.
    notify_ended: Cell<bool>,
    notify_fd: i32,
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's io_uring has no {what}"))
}

impl Uring {
    /// A ring that watches `notify`, tried out.
    pub(crate) fn new(notify: &Notify) -> io::Result<Self> {
        let (ring, setup) = Self::build()?;
        let params = ring.params();
        if !params.is_feature_nodrop()
            || !params.is_feature_submit_stable()
            || !params.is_feature_ext_arg()
        {
            return Err(missing("timeouts while waiting (Linux 5.11)"));
        }
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        for (code, name) in [
            (opcode::Readv::CODE, "READV"),
            (opcode::Writev::CODE, "WRITEV"),
            (opcode::Fsync::CODE, "FSYNC"),
            (opcode::Fallocate::CODE, "FALLOCATE"),
            (opcode::PollAdd::CODE, "POLL_ADD"),
            (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        ] {
            if !probe.is_supported(code) {
                return Err(missing(name));
            }
        }
        let uring = Uring {
            ring: RefCell::new(ring),
            backlog: RefCell::default(),
            setup,
            notify_ended: Cell::new(false),
            notify_fd: notify.as_fd().as_raw_fd(),
        };
        // Spares the kernel the look-up of the ring's descriptor in each enter (Linux 5.18).
        let _ = uring.ring.borrow_mut().submitter().register_ring_fd();
        uring.arm_notify()?;
        notify.ring();
        uring.wait(Some(Duration::from_secs(5)))?;
        match uring.ring.borrow_mut().completion().next() {
            Some(c) if c.result() > 0 && cqueue::more(c.flags()) => {}
            _ => return Err(missing("multishot poll (Linux 5.13)")),
        }
        Ok(uring)
    }

    fn build() -> io::Result<(IoUring, &'static str)> {
        let mut refused = missing("way to set it up");
        for (name, setup) in SETUPS {
            let mut builder = IoUring::builder();
            setup(&mut builder);
            builder.dontfork();
            match builder.build(ENTRIES) {
                Ok(ring) => return Ok((ring, name)),
                // A flag that this kernel does not know.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused = e,
                Err(e) => return Err(e),
            }
        }
        Err(refused)
    }

    /// How the ring has been set up, for the log.
    pub(crate) fn setup(&self) -> &'static str {
        self.setup
    }

    fn arm_notify(&self) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(self.notify_fd), libc::POLLIN as u32);
        // SAFETY: no memory is involved, and the descriptor outlives the ring (`Core` has both).
        unsafe { self.push(&poll.multi(true).build().user_data(NOBODY)) }
    }

    /// Queues an operation under the number `slot`.
    ///
    /// # Safety
    /// Its descriptor and buffers stay valid until its completion has been taken.
    pub(crate) unsafe fn start(&self, request: &Request, slot: u32) -> io::Result<()> {
        let fd = types::Fd(request.fd);
        let (pieces, count, offset) = (request.pieces, request.count, request.offset);
        let entry = match request.code {
            Code::Read(flags) => {
                opcode::Readv::new(fd, pieces, count).offset(offset).rw_flags(flags).build()
            }
            Code::Write(flags) => {
                opcode::Writev::new(fd, pieces, count).offset(offset).rw_flags(flags).build()
            }
            Code::Sync { data_only } => {
                let flags = if data_only {
                    types::FsyncFlags::DATASYNC
                } else {
                    types::FsyncFlags::empty()
                };
                opcode::Fsync::new(fd).flags(flags).build()
            }
            Code::Fallocate { mode, len } => {
                opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build()
            }
        };
        // SAFETY: the caller's promise.
        unsafe { self.push(&entry.user_data(u64::from(slot))) }
    }

    /// Watches a descriptor: each time that it becomes readable a completion arrives.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>, slot: u32) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32);
        // SAFETY: no memory is involved, and the kernel holds the file itself once submitted;
        // until then `Readiness` has the descriptor, and its drop cancels.
        unsafe { self.push(&poll.multi(true).build().user_data(u64::from(slot))) }
    }

    /// # Safety
    /// As for [`Uring::start`].
    unsafe fn push(&self, entry: &squeue::Entry) -> io::Result<()> {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.borrow_mut().submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0, None)?;
            // SAFETY: as above.
            if unsafe { self.ring.borrow_mut().submission().push(entry) }.is_ok() {
                return Ok(());
            }
        }
        backlog.push_back(entry.clone());
        Ok(())
    }

    /// Moves entries from the backlog to the queue, as far as there is room.
    fn catch_up(&self) {
        let mut backlog = self.backlog.borrow_mut();
        let mut ring = self.ring.borrow_mut();
        let mut queue = ring.submission();
        while let Some(entry) = backlog.front() {
            // SAFETY: who pushed it promised for as long as its completion has not been taken.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            backlog.pop_front();
        }
    }

    /// Hands over what is queued, and lets the kernel do what it put off for us.
    pub(crate) fn submit(&self) -> io::Result<()> {
        self.catch_up();
        let due = {
            let mut ring = self.ring.borrow_mut();
            let queue = ring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        };
        if due { self.enter(0, None) } else { Ok(()) }
    }

    /// Hands over what is queued and waits for a completion, at most for `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        if self.notify_ended.replace(false) {
            self.arm_notify()?;
        }
        self.catch_up();
        self.enter(1, timeout)
    }

    fn enter(&self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let ring = self.ring.borrow();
        let submitter = ring.submitter();
        let entered = match timeout {
            None => submitter.submit_and_wait(want),
            Some(timeout) => {
                let time = types::Timespec::from(timeout);
                submitter.submit_with_args(want, &types::SubmitArgs::new().timespec(&time))
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(e) => match Errno::from_io_error(&e) {
                // Time is over, a signal came, or the kernel wants completions to be taken first:
                // the next turn goes on.
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// A completion that has arrived: number, result, and whether more follow.
    pub(crate) fn completion(&self) -> Option<(u64, i32, bool)> {
        let completion = self.ring.borrow_mut().completion().next()?;
        let more = cqueue::more(completion.flags());
        // Of the eventfd (a positive result), not of a cancellation (0 or an error).
        if completion.user_data() == NOBODY && completion.result() > 0 && !more {
            self.notify_ended.set(true);
        }
        Some((completion.user_data(), completion.result(), more))
    }

    /// Asks the kernel to give up an operation and waits until it has let go of it, whatever
    /// that takes. The result is left in the slot.
    pub(crate) fn cancel(&self, core: &Core, slot: u32) {
        self.cancel_until(slot, || {
            core.reap();
            core.result(slot, None).is_some()
        });
    }

    /// The same for a watched descriptor.
    pub(crate) fn unwatch(&self, core: &Core, slot: u32) {
        self.cancel_until(slot, || {
            core.reap();
            core.with_watch(slot, None, |watch| !watch.armed).unwrap_or(true)
        });
    }

    fn cancel_until(&self, slot: u32, mut ended: impl FnMut() -> bool) {
        let cancel = opcode::AsyncCancel::new(u64::from(slot)).build().user_data(NOBODY);
        let mut asked = false;
        while !ended() {
            // SAFETY: no memory is involved.
            let tried = if asked { Ok(()) } else { unsafe { self.push(&cancel) } };
            asked = tried.is_ok();
            if let Err(e) = tried.and_then(|()| self.wait(None)) {
                // The memory is the kernel's until it says otherwise: there is no way on.
                tracing::error!("io_uring refuses to wait for a cancelled operation: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // A registered descriptor would keep the ring until the thread ends.
        let _ = self.ring.borrow_mut().submitter().unregister_ring_fd();
    }
}
