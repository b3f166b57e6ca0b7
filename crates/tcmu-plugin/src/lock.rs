// SPDX-License-Identifier: Apache-2.0
//! The exclusive lock of a device that several hosts serve: the handler takes it for a target port
//! group. Commands that come meanwhile wait for the one attempt that is under way.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::answer::Answer;
use crate::device::Shared;
use crate::pool::spawn;
use crate::recovery;
use crate::status::Status;

/// What is known of the lock.
#[derive(Default)]
enum State {
    /// Somebody else may have it.
    #[default]
    Unlocked,
    /// An attempt is under way, for whom these wait.
    Acquiring(Vec<Answer<Status>>),
    /// It is this host's, for this group; `None`: nobody knows for which.
    Held(Option<u16>),
}

/// The lock of one device.
#[derive(Default)]
pub(crate) struct Lock(Mutex<State>);

impl Lock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the handler of a device that was just opened.
    pub(crate) fn look(&self, shared: &Shared) {
        if shared.handler.locks() && shared.has_lock() == Some(true) {
            *self.state() = State::Held(shared.lock_tag());
        }
    }

    /// The lock is another host's now.
    pub(crate) fn lost(&self) {
        let mut state = self.state();
        if let State::Held(_) = *state {
            *state = State::Unlocked;
        }
    }

    /// Gives it back, before the device is closed.
    pub(crate) fn release(&self, shared: &Shared) {
        let before = std::mem::take(&mut *self.state());
        if let State::Held(_) = before {
            shared.return_lock();
        }
    }

    /// Takes it for a group.
    pub(crate) async fn acquire(&self, shared: &Arc<Shared>, tag: u16) -> Result<(), Status> {
        let answer = {
            let mut state = self.state();
            match &mut *state {
                State::Held(held) if held.is_none_or(|held| held == tag) => return Ok(()),
                State::Acquiring(waiting) => {
                    let answer = Answer::default();
                    waiting.push(answer.clone());
                    answer
                }
                State::Held(_) | State::Unlocked => {
                    let answer = Answer::default();
                    *state = State::Acquiring(vec![answer.clone()]);
                    drop(state);
                    self.attempt(shared, tag);
                    answer
                }
            }
        };
        match answer.await {
            Status::OK => Ok(()),
            status => Err(status),
        }
    }

    /// Starts an attempt, on a thread of its own.
    fn attempt(&self, shared: &Arc<Shared>, tag: u16) {
        let Some(hold) = shared.calls.hold() else { return self.settle(Status::BUSY, tag) };
        let theirs = shared.clone();
        let started = spawn("lock", move || {
            let status = theirs.take_lock(tag);
            theirs.lock.settle(status, tag);
            drop(hold);
            match status {
                Status::OK => tracing::info!("{}: has the lock for group {tag}", theirs.name),
                Status::FENCED => recovery::begin(&theirs, recovery::Cause::LockLost),
                _ => tracing::warn!("{}: the lock was not to be had: {status}", theirs.name),
            }
        });
        if let Err(error) = started {
            tracing::error!("{}: the lock: cannot start a thread: {error}", shared.name);
            self.settle(Status::BUSY, tag);
        }
    }

    /// Ends an attempt: all who wait get its status.
    fn settle(&self, status: Status, tag: u16) {
        let after = if status == Status::OK { State::Held(Some(tag)) } else { State::Unlocked };
        if let State::Acquiring(waiting) = std::mem::replace(&mut *self.state(), after) {
            waiting.into_iter().for_each(|answer| answer.give(status));
        }
    }
}
