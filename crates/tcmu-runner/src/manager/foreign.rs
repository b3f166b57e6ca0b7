// SPDX-License-Identifier: Apache-2.0
//! The kernel's messages about devices whose subtype is not ours. As long as somebody else may
//! serve the subtype (another program that listens to the kernel, a handler registered over D-Bus),
//! we leave the answer to them. When nobody is left who could answer, we do.
//!
//! The kernel does not tell when others stop listening, nor whether they have answered. So it is
//! asked from time to time, while there are messages without an answer.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tcmu::Netlink;
use tcmu::netlink::{Event, EventKind};

use super::{Options, name};

/// Whether somebody else may serve a subtype.
pub type Elsewhere = Box<dyn Fn(&Netlink, &str) -> Result<bool, tcmu::Error>>;

/// Between two looks at those who may answer: at first, and at most.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The messages that others may answer.
#[derive(Debug)]
pub(super) struct Foreign {
    /// By the kernel's id of the device: it sends the next message about a device when the one
    /// before is answered.
    waiting: BTreeMap<u32, Event>,
    pause: Duration,
    look_at: Instant,
}

impl Foreign {
    pub(super) fn new() -> Foreign {
        Foreign { waiting: BTreeMap::new(), pause: PAUSE, look_at: Instant::now() }
    }

    /// Leaves a message to others.
    pub(super) fn leave(&mut self, event: Event, now: Instant) {
        if let Some(id) = event.device_id {
            self.waiting.insert(id, event);
            (self.pause, self.look_at) = (PAUSE, now + PAUSE);
        }
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// When to call [`Foreign::overdue`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.look_at)
    }

    /// The messages that nobody is left to answer.
    pub(super) fn overdue(
        &mut self,
        now: Instant,
        options: &Options,
        netlink: &Netlink,
    ) -> Vec<Event> {
        if self.waiting.is_empty() || now < self.look_at {
            return Vec::new();
        }
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        self.look_at = now + self.pause;
        self.waiting.retain(|_, event| !settled(event, options));
        let mut orphans = Vec::new();
        self.waiting.retain(|_, event| {
            let kept = !matches!((options.elsewhere)(netlink, event.device.subtype()), Ok(false));
            if !kept {
                orphans.push(event.clone());
            }
            kept
        });
        orphans
    }
}

/// Whether the kernel shows that it got its answer. (It does not show that a change was refused.)
fn settled(event: &Event, options: &Options) -> bool {
    let device = &event.device;
    let gone = match options.sysfs.device(event.minor) {
        Ok(uio) => uio.is_none_or(|uio| uio.name.hba != device.hba || uio.name.name != device.name),
        Err(error) => {
            tracing::warn!("{}: {error}", name(event));
            false
        }
    };
    let enabled = || {
        let device = options.configfs.device(device.hba, &device.name);
        matches!(device.and_then(|device| device.enabled()), Ok(Some(true)))
    };
    gone || (event.kind == EventKind::Added && enabled())
}
