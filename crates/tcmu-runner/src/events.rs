// SPDX-License-Identifier: Apache-2.0
//! The main loop's queue. Device threads, the D-Bus thread and checks put [`Event`]s in; the main
//! loop is woken through an eventfd that it polls together with its other descriptors.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};

use rustix::event::{EventfdFlags, eventfd};

use crate::device::DeviceEvent;
use crate::status::report;

/// What reaches the main loop from other threads.
#[derive(Debug)]
pub enum Event {
    /// From a device's thread.
    Device(DeviceEvent),
    /// Somebody wants to know how the devices do.
    Report(SyncSender<Vec<report::Device>>),
}

impl From<DeviceEvent> for Event {
    fn from(event: DeviceEvent) -> Self {
        Event::Device(event)
    }
}

/// The sending end; clones share the queue.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Event>,
    wake: Arc<OwnedFd>,
}

impl Sender {
    /// Queues an event and wakes the main loop. After the loop has ended the event is dropped:
    /// nobody is left whom it concerns.
    pub fn send(&self, event: impl Into<Event>) {
        if self.queue.send(event.into()).is_ok() {
            // Fails only when the counter is full, and then the loop is being woken anyway.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// The receiving end, held by the main loop.
#[derive(Debug)]
pub struct Receiver {
    queue: mpsc::Receiver<Event>,
    wake: Arc<OwnedFd>,
}

impl Receiver {
    /// The events queued by now. Called when the descriptor is readable.
    pub fn drain(&self) -> impl Iterator<Item = Event> {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        self.queue.try_iter()
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// A queue and its two ends.
pub fn queue() -> io::Result<(Sender, Receiver)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (tx, rx) = mpsc::channel();
    Ok((Sender { queue: tx, wake: wake.clone() }, Receiver { queue: rx, wake }))
}
