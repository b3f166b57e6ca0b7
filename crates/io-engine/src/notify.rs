// SPDX-License-Identifier: Apache-2.0
//! The waker of an engine's thread. Wakes from the thread itself cost one atomic operation; wakes
//! from other threads write to an eventfd, and only while the thread sleeps.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

/// Nothing to do is known of.
const IDLE: u8 = 0;
/// The future is to be polled.
const NOTIFIED: u8 = 1;
/// The thread is, or is about to be, in the kernel; a wake has to write to the eventfd.
const SLEEPING: u8 = 2;

#[derive(Debug)]
pub(crate) struct Notify {
    state: AtomicU8,
    event: OwnedFd,
}

impl Notify {
    /// Begins notified, so that the first poll happens.
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Notify { state: AtomicU8::new(NOTIFIED), event })
    }

    /// Whether a wake came since the last call.
    pub(crate) fn take(&self) -> bool {
        self.state.swap(IDLE, Ordering::AcqRel) == NOTIFIED
    }

    /// Whether a wake came, which is left there.
    #[cfg(feature = "sim")]
    pub(crate) fn is_notified(&self) -> bool {
        self.state.load(Ordering::Acquire) == NOTIFIED
    }

    /// Whether the thread may sleep: no wake came.
    pub(crate) fn begin_sleep(&self) -> bool {
        self.state.compare_exchange(IDLE, SLEEPING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The thread is back; a wake that came meanwhile stays.
    pub(crate) fn end_sleep(&self) {
        let _ = self.state.compare_exchange(SLEEPING, IDLE, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn notify(&self) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING {
            self.ring();
        }
    }

    /// Writes to the eventfd. It is never read: both drivers watch its edges, and a counter of 64
    /// bits does not fill up.
    pub(crate) fn ring(&self) {
        if let Err(e) = rustix::io::write(&self.event, &1u64.to_ne_bytes()) {
            tracing::error!("eventfd: {e}");
        }
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
