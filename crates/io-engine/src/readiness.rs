// SPDX-License-Identifier: Apache-2.0
//! Waiting for a descriptor to become readable.
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::core::{self, Core, Driver};

/// The edges of a descriptor: each time that something arrives there, [`Readiness::ready`]
/// returns once (edges that come together count as one). What is there at the beginning counts.
///
/// A UIO descriptor need not be read: its poll says "readable" while there were events since the
/// last read, and each event is an edge.
#[derive(Debug)]
pub struct Readiness<T: AsFd> {
    io: T,
    core: Handle,
    slot: u32,
}

struct Handle(Rc<Core>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl<T: AsFd> Readiness<T> {
    /// Watches `io` in the engine that runs on this thread.
    ///
    /// # Errors
    /// When none does, or when `io` is of a kind that cannot be watched (a regular file).
    pub fn new(io: T) -> io::Result<Self> {
        let core = core::current_or_error()?;
        let slot = core.reserve_watch();
        let readiness = Readiness { io, core: Handle(core), slot };
        readiness.arm()?;
        Ok(readiness)
    }

    /// What is watched.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    fn arm(&self) -> io::Result<()> {
        let fd = self.io.as_fd();
        match &self.core.0.driver {
            Driver::Uring(uring) => uring.watch(fd, self.slot)?,
            Driver::Pool(poller) => poller.watch(fd, self.slot)?,
            #[cfg(feature = "sim")]
            Driver::Sim(world) => {
                world.watch(&self.core.0, |poller| poller.watch(fd, self.slot))?
            }
        }
        self.core.0.with_watch(self.slot, None, |watch| watch.armed = true);
        Ok(())
    }

    /// Waits for an edge; the poll(2) events that came with it (POLLERR and POLLHUP may be among
    /// them).
    pub async fn ready(&self) -> io::Result<u32> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// As [`Readiness::ready`], for use in a hand-written poll.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<u32>> {
        let core = &self.core.0;
        let state = core.with_watch(self.slot, Some(cx.waker()), |watch| {
            (std::mem::take(&mut watch.events), watch.error.take(), watch.armed)
        });
        let Some((events, error, armed)) = state else { return Poll::Pending };
        if let Some(errno) = error {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        if !armed {
            // The kernel ends a multishot poll when its completions overflow; what happened in
            // between is seen by arming again.
            self.arm()?;
        }
        if events == 0 { Poll::Pending } else { Poll::Ready(Ok(events)) }
    }
}

impl<T: AsFd> Drop for Readiness<T> {
    fn drop(&mut self) {
        let core = &self.core.0;
        if core.with_watch(self.slot, None, |watch| watch.armed).unwrap_or(false) {
            match &core.driver {
                Driver::Uring(uring) => uring.unwatch(core, self.slot),
                Driver::Pool(poller) => poller.unwatch(self.io.as_fd()),
                #[cfg(feature = "sim")]
                Driver::Sim(world) => world.unwatch(|poller| poller.unwatch(self.io.as_fd())),
            }
        }
        core.release(self.slot);
    }
}
