// SPDX-License-Identifier: Apache-2.0
//! The driver without io_uring: epoll for descriptors and wakes, the pool for the rest.
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::core::{Core, NOBODY};
use crate::notify::Notify;
use crate::op::Request;
use crate::pool::{Lane, Port};

/// Most events taken at once.
const EVENTS: usize = 32;

pub(crate) struct Poller {
    epoll: OwnedFd,
    port: Arc<Port>,
    events: RefCell<Vec<epoll::Event>>,
    /// How many descriptors are watched besides the eventfd.
    watched: Cell<usize>,
}

impl Poller {
    pub(crate) fn new(notify: &Arc<Notify>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        add(&epoll, notify.as_fd(), NOBODY)?;
        Ok(Poller {
            epoll,
            port: Arc::new(Port::new(notify.clone())),
            events: RefCell::new(Vec::with_capacity(EVENTS)),
            watched: Cell::new(0),
        })
    }

    /// Gives an operation to the pool.
    ///
    /// # Safety
    /// Its descriptor and buffers stay valid until its completion has been taken.
    #[allow(unsafe_code, reason = "passes on the contract of the pool")]
    pub(crate) unsafe fn start(&self, lane: &Lane, request: Request, slot: u32) {
        // SAFETY: the caller's promise.
        unsafe { lane.start(request, slot, &self.port) };
    }

    /// Watches the edges of a descriptor.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>, slot: u32) -> io::Result<()> {
        add(&self.epoll, fd, u64::from(slot))?;
        self.watched.set(self.watched.get() + 1);
        Ok(())
    }

    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        if epoll::delete(&self.epoll, fd).is_ok() {
            self.watched.set(self.watched.get() - 1);
        }
    }

    /// Takes the events that are there.
    pub(crate) fn glance(&self, core: &Core) -> io::Result<()> {
        if self.watched.get() == 0 {
            return Ok(());
        }
        self.wait(core, Some(Duration::ZERO))
    }

    /// Waits for events, at most for `timeout`; not at all when the pool has results: the wake
    /// that announced them may be spent already.
    pub(crate) fn wait(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        let mut events = self.events.borrow_mut();
        events.clear();
        let timeout = if self.port.has_results() { Some(Duration::ZERO) } else { timeout };
        let time = timeout.and_then(|t| Timespec::try_from(t).ok());
        match epoll::wait(&self.epoll, spare_capacity(&mut events), time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in events.iter() {
            // The event is packed: its fields are copied out, not referred to.
            let (flags, data) = (event.flags, event.data);
            let bits = flags.bits() & i32::MAX.cast_unsigned();
            core.complete(data.u64(), bits.cast_signed(), true);
        }
        Ok(())
    }

    /// Takes the results of the pool.
    pub(crate) fn reap(&self, core: &Core) {
        while let Some((slot, result)) = self.port.take() {
            core.complete(u64::from(slot), result, false);
        }
    }

    /// Gives up an operation that no thread has begun, or waits for its end.
    pub(crate) fn cancel(&self, core: &Core, slot: u32) {
        core.lane().cancel(slot);
        loop {
            self.reap(core);
            if core.result(slot, None).is_some() {
                return;
            }
            self.port.wait();
        }
    }
}

fn add(epoll: &OwnedFd, fd: BorrowedFd<'_>, data: u64) -> io::Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(epoll, fd, epoll::EventData::new_u64(data), flags)?;
    Ok(())
}
