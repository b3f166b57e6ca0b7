// SPDX-License-Identifier: Apache-2.0
//! The exclusive lock of a device that several hosts serve: the handler takes it for a target port
//! group, and gives it back. One such call is under way at a time; who comes meanwhile waits for it.
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::exclusive::{ExclusiveLock, Later, LockError, LockView};

use crate::answer::Answer;
use crate::device::{PluginDevice, Shared};
use crate::handler::LockState;
use crate::pool::{blocking, spawn};
use crate::recovery;
use crate::status::Status;

/// What a handler means that has not taken a lock or given it back. What another attempt may overcome
/// is told apart; all else is a refusal.
fn failure(status: Status) -> LockError {
    let text = format!("{status} of its handler");
    match status {
        Status::BUSY | Status::TIMEOUT | Status::NO_RESOURCE => LockError::Busy(text),
        Status::TRANSITION => LockError::Changing,
        Status::FENCED => LockError::Fenced,
        _ => LockError::Refused(text),
    }
}

/// What is known of the lock.
#[derive(Default)]
enum State {
    /// Somebody else may have it.
    #[default]
    Unlocked,
    /// It is being taken for this group, or given back; these wait for the end of that.
    Changing { to: Option<u16>, waiting: Vec<Answer<Status>> },
    /// It is this host's, for this group; `None`: nobody knows for which.
    Held(Option<u16>),
}

/// What the handler has said when it was last asked.
#[derive(Clone, Copy, Default)]
struct Told {
    group: Option<u16>,
    locking: bool,
}

/// The lock of one device.
#[derive(Default)]
pub(crate) struct Lock {
    state: Mutex<State>,
    told: Mutex<Told>,
    /// The handler is being asked.
    asking: AtomicBool,
    /// How often it was lost.
    losses: AtomicU32,
}

impl Lock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the handler of a device that was just opened.
    pub(crate) fn look(&self, shared: &Shared) {
        if shared.handler.locks() && shared.lock_state() == Some(LockState::Locked) {
            *self.state() = State::Held(shared.lock_tag());
        }
    }

    /// Asks the handler who has the lock, unless it is being asked.
    pub(crate) async fn ask(&self, shared: &Arc<Shared>) {
        if !shared.handler.locks() || self.asking.swap(true, Ordering::Acquire) {
            return;
        }
        let asked = shared.calls.hold().map(|hold| {
            let theirs = shared.clone();
            blocking("lock", move || {
                let locking = theirs.lock_state() == Some(LockState::Locking);
                *theirs.lock.told() = Told { group: theirs.lock_tag(), locking };
                theirs.lock.asking.store(false, Ordering::Release);
                drop(hold);
            })
        });
        match asked {
            Some(Ok(answer)) => answer.await,
            // It is not open, or there is no thread: the next command asks again.
            Some(Err(_)) | None => self.asking.store(false, Ordering::Release),
        }
    }

    /// What is known now, without asking.
    pub(crate) fn view(&self) -> LockView {
        let told = *self.told();
        let losses = self.losses.load(Ordering::Acquire);
        let (group, ours, changing) = match *self.state() {
            State::Held(group) => (group.or(told.group), true, false),
            State::Changing { .. } => (told.group, false, true),
            State::Unlocked => (told.group, false, told.locking),
        };
        LockView { group, ours, changing, losses }
    }

    /// The lock is another host's now.
    pub(crate) fn lost(&self) {
        let mut state = self.state();
        if let State::Held(_) = *state {
            *state = State::Unlocked;
            self.losses.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Gives it back, before the device is closed.
    pub(crate) fn end(&self, shared: &Shared) {
        if let State::Held(_) = std::mem::take(&mut *self.state()) {
            shared.return_lock();
        }
    }

    /// Takes it for a group.
    pub(crate) async fn acquire(&self, shared: &Arc<Shared>, tag: u16) -> Result<(), LockError> {
        let is_so =
            |state: &State| matches!(state, State::Held(held) if held.is_none_or(|it| it == tag));
        self.change(shared, Some(tag), is_so).await
    }

    /// Gives it back, if it is held for this group.
    pub(crate) async fn release(&self, shared: &Arc<Shared>, tag: u16) -> Result<(), LockError> {
        let is_so = |state: &State| match state {
            State::Unlocked => true,
            State::Held(held) => held.is_some_and(|it| it != tag),
            State::Changing { .. } => false,
        };
        self.change(shared, None, is_so).await
    }

    /// Has the handler lock for a group, or unlock, unless `is_so` says that this is so already.
    async fn change(
        &self,
        shared: &Arc<Shared>,
        to: Option<u16>,
        is_so: impl Fn(&State) -> bool,
    ) -> Result<(), LockError> {
        loop {
            let answer = Answer::default();
            let under_way = {
                let mut state = self.state();
                if is_so(&state) {
                    return Ok(());
                }
                match &mut *state {
                    State::Changing { to, waiting } => {
                        waiting.push(answer.clone());
                        Some(*to)
                    }
                    State::Held(_) | State::Unlocked => {
                        *state = State::Changing { to, waiting: vec![answer.clone()] };
                        None
                    }
                }
            };
            if under_way.is_none() {
                self.attempt(shared, to);
            }
            match answer.await {
                // That was another change than ours.
                _ if under_way.is_some_and(|under_way| under_way != to) => {}
                Status::OK => return Ok(()),
                status => return Err(failure(status)),
            }
        }
    }

    /// Starts an attempt, on a thread of its own.
    fn attempt(&self, shared: &Arc<Shared>, to: Option<u16>) {
        let Some(hold) = shared.calls.hold() else { return self.settle(Status::BUSY, to) };
        let theirs = shared.clone();
        let started = spawn("lock", move || {
            let status = to.map_or_else(|| theirs.return_lock(), |tag| theirs.take_lock(tag));
            theirs.lock.settle(status, to);
            drop(hold);
            let name = &theirs.name;
            match (to, status) {
                (Some(tag), Status::OK) => tracing::info!("{name}: has the lock for group {tag}"),
                (None, Status::OK) => tracing::info!("{name}: has given the lock back"),
                (Some(_), Status::FENCED) => recovery::begin(&theirs, recovery::Cause::LockLost),
                (Some(_), _) => tracing::warn!("{name}: the lock was not to be had: {status}"),
                (None, _) => tracing::warn!("{name}: the lock was not given back: {status}"),
            }
        });
        if let Err(error) = started {
            tracing::error!("{}: the lock: cannot start a thread: {error}", shared.name);
            self.settle(Status::BUSY, to);
        }
    }

    /// Ends an attempt: all who wait get its status.
    fn settle(&self, status: Status, to: Option<u16>) {
        let after = match to {
            Some(_) if status == Status::OK => State::Held(to),
            _ => State::Unlocked,
        };
        if let State::Changing { waiting, .. } = std::mem::replace(&mut *self.state(), after) {
            waiting.into_iter().for_each(|answer| answer.give(status));
        }
    }
}

impl ExclusiveLock for PluginDevice {
    fn view(&self) -> LockView {
        self.shared().lock.view()
    }

    fn look(&self) -> Later<'_, ()> {
        Box::pin(self.shared().lock.ask(self.shared()))
    }

    fn acquire(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(self.shared().lock.acquire(self.shared(), group))
    }

    fn release(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(self.shared().lock.release(self.shared(), group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_may_be_had_later_is_told_from_one_that_is_not_to_be_had() {
        assert!(matches!(failure(Status::BUSY), LockError::Busy(_)));
        assert_eq!(failure(Status::FENCED), LockError::Fenced);
        for status in [Status(13), Status::NOT_HANDLED] {
            assert!(matches!(failure(status), LockError::Refused(_)), "{status}");
        }
    }
}
