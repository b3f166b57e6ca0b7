// SPDX-License-Identifier: Apache-2.0
//! Where a device's handler is, and its functions, called there.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::device::Shared;
use crate::exports;
use crate::handler::LockState;
use crate::isolation::relay::Relay;
use crate::isolation::remote::Remote;
use crate::operation::Change;
use crate::recovery::{self, Cause};
use crate::status::Status;

/// Where a handler is, and who serves the device.
pub(crate) enum Place {
    /// In this process, which serves the device.
    Here,
    /// In a process of its own. This one serves the device.
    Away(Box<Remote>),
    /// In this process, which belongs to it. Another one serves the device.
    Hosted(Relay),
}

/// Lets the handler, or its process, name a device.
pub(crate) fn remember(shared: &Arc<Shared>) {
    match &shared.place {
        Place::Away(remote) => remote.host().add(remote.id(), shared),
        Place::Here | Place::Hosted(_) => exports::remember(shared),
    }
}

/// Lets go of a device that no handler has.
pub(crate) fn forget(shared: &Shared) {
    match &shared.place {
        Place::Away(remote) => remote.host().remove(remote.id()),
        Place::Here | Place::Hosted(_) => exports::forget(shared.pointer()),
    }
}

/// Has a device opened again if its handler's process has ended since it was opened, before anybody
/// could tell the device.
pub(crate) fn check(shared: &Arc<Shared>) {
    if let Place::Away(remote) = &shared.place
        && !remote.is_open()
    {
        recovery::begin(shared, Cause::ProcessEnded);
    }
}

/// Functions of the handler. Each may block.
impl Shared {
    /// Lets the handler see, where it looks for it, who has the lock; `None`: nobody knows.
    fn knows(&self, state: Option<LockState>) {
        let number = state.map_or(0, |state| state as u8);
        self.known.lock_state.store(number, Ordering::Relaxed);
    }

    pub(crate) fn open(&self, again: bool) -> Result<(), i32> {
        match &self.place {
            Place::Away(remote) => remote.open(&self.abi, again),
            Place::Here | Place::Hosted(_) => {
                self.knows(Some(LockState::Unlocked));
                self.handler.open(self.pointer(), again)
            }
        }
    }

    /// `last`: it is not opened again.
    pub(crate) fn close(&self, last: bool) {
        match &self.place {
            Place::Away(remote) => remote.close(last),
            Place::Here | Place::Hosted(_) => self.handler.close(self.pointer()),
        }
    }

    pub(crate) fn reconfigure(&self, change: &Change) -> Result<(), i32> {
        match &self.place {
            Place::Away(remote) => remote.reconfigure(change),
            Place::Here | Place::Hosted(_) => self.handler.reconfigure(self.pointer(), change),
        }
    }

    pub(crate) fn take_lock(&self, tag: u16) -> Status {
        match &self.place {
            Place::Away(remote) => remote.lock(tag),
            Place::Here | Place::Hosted(_) => {
                self.knows(Some(LockState::Locking));
                let status = self.handler.lock(self.pointer(), tag);
                let locked = status == Status::OK;
                self.knows(Some(if locked { LockState::Locked } else { LockState::Unlocked }));
                status
            }
        }
    }

    pub(crate) fn return_lock(&self) -> Status {
        match &self.place {
            Place::Away(remote) => remote.unlock(),
            Place::Here | Place::Hosted(_) => {
                let status = self.handler.unlock(self.pointer());
                self.knows(Some(LockState::Unlocked));
                status
            }
        }
    }

    /// Whether this host has the lock; `None`: the handler does not tell.
    pub(crate) fn lock_state(&self) -> Option<LockState> {
        match &self.place {
            Place::Away(remote) => remote.lock_state(),
            Place::Here | Place::Hosted(_) => {
                let state = self.handler.lock_state(self.pointer());
                self.knows(state);
                state
            }
        }
    }

    /// The group that the holder of the lock has locked it for.
    pub(crate) fn lock_tag(&self) -> Option<u16> {
        match &self.place {
            Place::Away(remote) => remote.lock_tag(),
            Place::Here | Place::Hosted(_) => self.handler.lock_tag(self.pointer()),
        }
    }

    pub(crate) fn report_event(&self) -> i32 {
        match &self.place {
            Place::Away(remote) => remote.report_event(),
            Place::Here | Place::Hosted(_) => self.handler.report_event(self.pointer()),
        }
    }
}
