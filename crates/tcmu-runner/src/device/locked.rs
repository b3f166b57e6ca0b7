// SPDX-License-Identifier: Apache-2.0
//! Target port groups of a device whose store has an exclusive lock, which a host has for one of
//! its groups: access follows the lock, wherever it is.
//!
//! - Where access changes by itself (implicitly), all groups can be used: the first command takes the
//!   lock. The group that has it is optimized; those that would have to take it are not.
//! - Where SET TARGET PORT GROUPS alone changes it (explicitly), that command takes the lock, or
//!   gives it back; the group that has it is optimized, and the others are in standby.
//!
//! The lock is given back between commands: those that were let through end first, and those that come
//! meanwhile wait.
//!
//! An initiator that hears nothing for long sends newer data through another host. What it sent here
//! before must not be written after that, so it takes no lock: it ends in BUSY, on which an initiator
//! that still waits sends it again. That are commands
//! - that had come when it was seen that the lock was taken away ([`Alua::drained`] ends that),
//! - that had come while this device's thread stood still ([`STALL`]),
//! - that have waited for the lock for longer than [`STALE`].
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use block::exclusive::{ExclusiveLock, LockError, LockView};
use block::{Access, Guard, RangeLock};
use io_engine::{sleep, timeout};
use lun::Failure;
use lun::alua::{AccessState, Alua, Later, Snapshot};
use scsi::sense::Sense;

use super::alua::{ConfigfsAlua, PATIENCE};

/// The group that every device has, and that a lock is never taken for.
const DEFAULT_GROUP: u16 = 0;
/// AN_SUP.
const NON_OPTIMIZED: u8 = 0x02;
/// T_SUP, S_SUP and AO_SUP: the states that a lock can bring about.
const OF_LOCK: u8 = 0x85;
/// Between two looks at target port groups, while no lock is held.
const LOOK: Duration = Duration::from_secs(1);

/// A thread that has not moved for so long has stood still: no initiator gives a path up sooner.
const STALL: Duration = Duration::from_secs(3);
/// So often it moves, at least.
const BEAT: Duration = Duration::from_secs(1);
/// What has waited for so long for the lock may not be wanted any more.
const STALE: Duration = Duration::from_secs(5);

/// The groups of `groups`, in the states that the lock gives them.
pub(super) struct LockedAlua<G = ConfigfsAlua> {
    groups: G,
    lock: Rc<dyn ExclusiveLock>,
    /// Held by commands that were let through, and alone by who gives the lock back.
    door: RangeLock,
    /// When the groups were looked at for a command that needs the lock.
    looked: Cell<Option<Instant>>,
    /// How often the lock was lost when all commands were answered that had come until then.
    settled: Cell<u32>,
    /// The thread stood still, and what had come meanwhile is not answered.
    stalled: Cell<bool>,
    /// When the thread has last moved.
    moved: Cell<Instant>,
    clock: Box<dyn Fn() -> Instant>,
}

impl<G: Alua> LockedAlua<G> {
    pub(super) fn new(groups: G, lock: Rc<dyn ExclusiveLock>) -> Self {
        LockedAlua::with_clock(groups, lock, Box::new(Instant::now))
    }

    fn with_clock(groups: G, lock: Rc<dyn ExclusiveLock>, clock: Box<dyn Fn() -> Instant>) -> Self {
        LockedAlua {
            groups,
            door: RangeLock::default(),
            looked: Cell::default(),
            settled: Cell::new(lock.view().losses),
            stalled: Cell::default(),
            moved: Cell::new(clock()),
            lock,
            clock,
        }
    }

    /// The thread moves.
    fn moves(&self) {
        let now = (self.clock)();
        let before = self.moved.replace(now);
        if now.saturating_duration_since(before) > STALL && self.is_alone() {
            self.stalled.set(true);
        }
    }

    /// Lets a command through while this host does not have the lock.
    async fn admit_without_lock(&self) -> Result<(), Failure> {
        let now = (self.clock)();
        if self.looked.get().is_none_or(|looked| now.duration_since(looked) > LOOK) {
            self.looked.set(Some(now));
            self.refresh().await;
        }
        let snapshot = self.groups.snapshot();
        let Some(group) = lockable(&snapshot).next() else {
            self.lock.leave().await;
            return Ok(());
        };
        if snapshot.implicit {
            return self.lock.acquire(group).await.map_err(|error| {
                tracing::warn!("the lock for group {group} was not to be had: {error}");
                implicitly(&error)
            });
        }
        match (snapshot.explicit, self.lock.view().changing) {
            (true, true) => Err(Sense::LUN_NOT_READY_ALUA_TRANSITION.into()),
            (true, false) => Err(Sense::LUN_NOT_READY_ALUA_STANDBY.into()),
            (false, _) => Ok(()),
        }
    }

    /// Gives the lock back, if it is held for a group, when no command uses it any more.
    async fn give_back(&self, group: u16) -> Result<(), LockError> {
        let _alone = self.door.lock(0..1, Access::Alone).await;
        self.lock.release(group).await
    }

    /// Gives the lock back whenever another host asks for it.
    async fn give_when_asked(&self) {
        loop {
            self.lock.asked().await;
            let view = self.lock.view();
            if let Some(group) = view.group.filter(|_| view.ours)
                && let Err(error) = self.give_back(group).await
            {
                tracing::warn!("the lock for group {group} was not given back: {error}");
            }
        }
    }
}

impl<G: Alua> Alua for LockedAlua<G> {
    fn snapshot(&self) -> Snapshot {
        follow(self.groups.snapshot(), self.lock.view())
    }

    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(async {
            self.groups.refresh().await;
            // When time is over the answer is for the next command.
            let _ = timeout(PATIENCE, self.lock.look()).await;
        })
    }

    fn set_state(&self, id: u16, state: AccessState) -> Later<'_, io::Result<()>> {
        Box::pin(async move {
            let changed = match state {
                AccessState::Optimized => self.lock.acquire(id).await,
                _ => self.give_back(id).await,
            };
            changed.map_err(io::Error::other)?;
            // Of a group whose access does not change by itself the kernel takes no state.
            match self.groups.snapshot().implicit {
                true => self.groups.set_state(id, state).await,
                false => Ok(()),
            }
        })
    }

    fn guards(&self) -> bool {
        true
    }

    fn admit(&self) -> Later<'_, Result<Option<Guard<'_>>, Failure>> {
        Box::pin(async {
            let came = (self.clock)();
            let inside = self.door.lock(0..1, Access::Read).await;
            if self.awaits_drain() {
                return Err(Failure::Busy);
            }
            if !self.lock.view().ours {
                self.admit_without_lock().await?;
            }
            match (self.clock)().saturating_duration_since(came) > STALE {
                true => Err(Failure::Busy),
                false => Ok(Some(inside)),
            }
        })
    }

    fn is_alone(&self) -> bool {
        let snapshot = self.groups.snapshot();
        (snapshot.implicit || snapshot.explicit) && lockable(&snapshot).next().is_some()
    }

    fn awaits_drain(&self) -> bool {
        self.stalled.get() || self.lock.view().losses != self.settled.get()
    }

    fn drained(&self) {
        self.stalled.set(false);
        self.settled.set(self.lock.view().losses);
    }

    fn give_way(&self) -> Later<'_, ()> {
        Box::pin(async {
            let mut beat = pin!(sleep(BEAT));
            let mut giving = pin!(self.give_when_asked());
            poll_fn(|cx| {
                // Each turn of the thread's loop, before it takes commands.
                self.moves();
                while beat.as_mut().poll(cx).is_ready() {
                    beat.set(sleep(BEAT));
                }
                giving.as_mut().poll(cx)
            })
            .await;
        })
    }
}

/// The groups of this host that a lock is taken for.
fn lockable(snapshot: &Snapshot) -> impl Iterator<Item = u16> {
    snapshot.local.iter().copied().filter(|&id| id != DEFAULT_GROUP)
}

/// The states that a lock gives groups.
fn follow(mut snapshot: Snapshot, lock: LockView) -> Snapshot {
    let local: Vec<_> = lockable(&snapshot).collect();
    let (implicit, explicit) = (snapshot.implicit, snapshot.explicit);
    for group in snapshot.groups.iter_mut().filter(|group| group.id != DEFAULT_GROUP) {
        let here = local.contains(&group.id);
        // A lock that a former life of this host has left is to be taken again.
        let holds = lock.group == Some(group.id) && (lock.ours || !here);
        if implicit {
            group.state = match group.state {
                AccessState::NonOptimized if holds => AccessState::Optimized,
                AccessState::Optimized
                    if !holds && lock.group.is_some() && group.supported & NON_OPTIMIZED != 0 =>
                {
                    AccessState::NonOptimized
                }
                state => state,
            };
        } else if explicit {
            group.supported = OF_LOCK;
            group.state = match (here && lock.changing, holds) {
                (true, _) => AccessState::Transitioning,
                (false, true) => AccessState::Optimized,
                (false, false) => AccessState::Standby,
            };
        }
    }
    snapshot
}

/// What a command ends with when the lock was not to be had. What another attempt may overcome is told
/// apart; all else is a transition that has failed (SPC-4 5.15.2.5).
fn implicitly(error: &LockError) -> Failure {
    match error {
        LockError::Busy(_) => Failure::Busy,
        LockError::Changing => Sense::LUN_NOT_READY_ALUA_TRANSITION.into(),
        LockError::Fenced => Sense::LUN_NOT_READY_ALUA_STANDBY.into(),
        LockError::Refused(_) => Sense::IMPLICIT_ALUA_TRANSITION_FAILED.into(),
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
