// SPDX-License-Identifier: Apache-2.0
//! What groups say of a lock, and which commands are let through while it comes and goes.
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

use io_engine::{Backend, Engine};
use scsi::alua::PortGroup;

use super::*;

/// The default group and groups 7 and 8, of which 7 is this host's.
pub(super) fn snapshot(implicit: bool, explicit: bool) -> Snapshot {
    let group = |id| PortGroup {
        id,
        state: AccessState::Optimized,
        preferred: false,
        supported: 0x03,
        status: 0,
        ports: vec![1],
    };
    let groups = [0, 7, 8].map(group).into();
    Snapshot { groups, implicit, explicit, local: vec![7], ..Snapshot::default() }
}

fn states(snapshot: Snapshot, lock: LockView) -> [AccessState; 3] {
    let groups = follow(snapshot, lock).groups;
    [groups[0].state, groups[1].state, groups[2].state]
}

fn held(group: u16, ours: bool) -> LockView {
    LockView { group: Some(group), ours, ..LockView::default() }
}

#[test]
fn explicit_access_is_where_the_lock_is() {
    use AccessState::{Optimized, Standby, Transitioning};
    let explicit = || snapshot(false, true);
    let nobody = LockView::default();
    assert_eq!(states(explicit(), nobody), [Optimized, Standby, Standby]);
    assert_eq!(states(explicit(), held(7, true)), [Optimized, Optimized, Standby]);
    assert_eq!(states(explicit(), held(8, false)), [Optimized, Standby, Optimized]);
    let stale = held(7, false);
    assert_eq!(states(explicit(), stale), [Optimized, Standby, Standby], "not by this process");
    let changing = LockView { changing: true, ..held(8, false) };
    assert_eq!(states(explicit(), changing), [Optimized, Transitioning, Optimized]);
    assert_eq!(follow(explicit(), nobody).groups[1].supported, 0x85);
}

#[test]
fn implicit_access_is_never_out_of_reach() {
    use AccessState::{NonOptimized, Optimized};
    let implicit = || snapshot(true, true);
    assert_eq!(states(implicit(), LockView::default()), [Optimized; 3]);
    assert_eq!(states(implicit(), held(8, false)), [Optimized, NonOptimized, Optimized]);
    assert_eq!(states(implicit(), held(7, true)), [Optimized, Optimized, NonOptimized]);
    let mut one_state = implicit();
    one_state.groups[2].supported = 0x01;
    assert_eq!(states(one_state, held(7, true)), [Optimized; 3]);
}

#[test]
fn a_lock_belongs_to_a_group_that_somebody_has_made() {
    let groups = |local: &[u16]| Snapshot { local: local.into(), ..snapshot(true, false) };
    assert_eq!(lockable(&groups(&[7])).next(), Some(7));
    assert_eq!(lockable(&groups(&[0])).next(), None, "the default group");
    assert_eq!(lockable(&groups(&[0, 8])).next(), Some(8));
    assert_eq!(states(snapshot(false, false), held(8, false)), [AccessState::Optimized; 3]);
}

/// Groups that stay as they are.
pub(super) struct Still(pub(super) Snapshot);

impl Alua for Still {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }

    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }

    fn set_state(&self, _: u16, _: AccessState) -> Later<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A lock that is always to be had, unless `error` says why not.
#[derive(Debug, Default)]
struct Fake {
    view: Cell<LockView>,
    error: RefCell<Option<LockError>>,
    left: Cell<bool>,
    asked: Cell<bool>,
    asker: RefCell<Option<Waker>>,
    /// What was done to it.
    log: RefCell<Vec<String>>,
}

impl ExclusiveLock for Fake {
    fn view(&self) -> LockView {
        self.view.get()
    }

    fn look(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }

    fn acquire(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(async move {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            self.log.borrow_mut().push(format!("taken for {group}"));
            self.view.set(LockView { group: Some(group), ours: true, ..self.view.get() });
            Ok(())
        })
    }

    fn release(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(async move {
            self.log.borrow_mut().push(format!("given back for {group}"));
            self.view.set(LockView { group: None, ours: false, ..self.view.get() });
            Ok(())
        })
    }

    fn leave(&self) -> Later<'_, ()> {
        self.left.set(true);
        Box::pin(async {})
    }

    fn asked(&self) -> Later<'_, ()> {
        Box::pin(poll_fn(|cx| {
            if self.asked.take() {
                return Poll::Ready(());
            }
            *self.asker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }))
    }
}

impl Fake {
    fn ask(&self) {
        self.asked.set(true);
        if let Some(waker) = self.asker.take() {
            waker.wake();
        }
    }

    /// Another host has taken it.
    fn lose(&self) {
        let losses = self.view.get().losses + 1;
        self.view.set(LockView { losses, ..LockView::default() });
    }
}

/// The groups of a snapshot on a lock.
fn locked(snapshot: Snapshot) -> (LockedAlua<Still>, Rc<Fake>) {
    let lock = Rc::new(Fake::default());
    (LockedAlua::new(Still(snapshot), lock.clone()), lock)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    Engine::new(Backend::Pool).unwrap().block_on(work).unwrap()
}

/// Lets other futures run.
async fn turn() {
    io_engine::sleep(Duration::from_millis(1)).await;
}

#[test]
fn the_first_command_of_an_implicit_group_takes_the_lock() {
    let (groups, lock) = locked(snapshot(true, false));
    run(async {
        for _ in 0..3 {
            assert!(groups.admit().await.unwrap().is_some());
        }
        assert_eq!(*lock.log.borrow(), ["taken for 7"]);
    });
}

#[test]
fn why_a_lock_was_not_to_be_had_is_what_the_command_ends_with() {
    let standby = Sense::LUN_NOT_READY_ALUA_STANDBY;
    let (groups, lock) = locked(snapshot(true, false));
    run(async {
        for (error, failure) in [
            (LockError::Busy(String::new()), Failure::Busy),
            (LockError::Changing, Sense::LUN_NOT_READY_ALUA_TRANSITION.into()),
            (LockError::Fenced, standby.into()),
            (LockError::Refused(String::new()), Sense::IMPLICIT_ALUA_TRANSITION_FAILED.into()),
        ] {
            *lock.error.borrow_mut() = Some(error);
            assert_eq!(groups.admit().await.map(drop), Err(failure));
        }
        let (groups, _) = locked(snapshot(false, true));
        assert_eq!(groups.admit().await.map(drop), Err(standby.into()));
    });
}

#[test]
fn a_lock_is_given_back_when_the_commands_that_use_it_have_ended() {
    let (groups, lock) = locked(snapshot(true, false));
    run(async {
        let mut giving = pin!(groups.give_way());
        let give = async {
            let inside = groups.admit().await.unwrap();
            lock.ask();
            turn().await;
            assert_eq!(*lock.log.borrow(), ["taken for 7"], "a command is under way");
            let mut next = groups.admit();
            let waits = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "it comes while the lock is wanted");
            drop(inside);
            turn().await;
            assert!(next.await.is_ok(), "and has it taken again");
            assert_eq!(*lock.log.borrow(), ["taken for 7", "given back for 7", "taken for 7"]);
        };
        let mut give = pin!(give);
        poll_fn(|cx| {
            let _: Poll<()> = giving.as_mut().poll(cx);
            give.as_mut().poll(cx)
        })
        .await;
    });
}

#[test]
fn what_had_come_before_the_lock_was_lost_does_not_take_it_again() {
    let busy = Err(Failure::Busy);
    let (groups, lock) = locked(snapshot(true, false));
    run(async {
        groups.admit().await.unwrap();
        assert!(!groups.awaits_drain());
        lock.lose();
        assert!(groups.awaits_drain());
        assert_eq!(groups.admit().await.map(drop), busy);
        assert_eq!(groups.admit().await.map(drop), busy);
        groups.drained();
        assert!(groups.admit().await.is_ok(), "what comes now may");
        assert_eq!(*lock.log.borrow(), ["taken for 7", "taken for 7"]);
    });
}

#[test]
fn what_has_waited_for_long_or_came_while_the_thread_stood_still_is_not_let_through() {
    let time = Rc::new(Cell::new(Instant::now()));
    let clock = time.clone();
    let lock = Rc::new(Fake::default());
    let still = Still(snapshot(true, false));
    let groups = LockedAlua::with_clock(still, lock.clone(), Box::new(move || clock.get()));
    let later = |by: Duration| time.set(time.get() + by);
    run(async {
        let mut giving = groups.give_way();
        let mut beat =
            async || poll_fn(|cx| Poll::Ready(giving.as_mut().poll(cx).is_ready())).await;
        assert!(!beat().await);
        later(STALL);
        assert!(!beat().await && !groups.awaits_drain());
        groups.admit().await.unwrap();
        later(STALL + BEAT);
        assert!(!beat().await && groups.awaits_drain());
        assert_eq!(groups.admit().await.map(drop), Err(Failure::Busy));
        groups.drained();
        let inside = groups.admit().await.unwrap();
        lock.ask();
        assert!(!beat().await);
        let mut waits = groups.admit();
        assert!(poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending())).await);
        for _ in 0..2 {
            later(STALL);
            assert!(!beat().await);
        }
        drop(inside);
        assert!(!beat().await);
        assert_eq!(waits.await.map(drop), Err(Failure::Busy));
        assert!(lock.view().ours, "what comes now need not wait");
    });
}

#[test]
fn without_a_group_of_its_own_a_store_sees_to_its_lock_by_itself() {
    let (groups, lock) = locked(Snapshot { local: vec![0], ..snapshot(true, true) });
    run(async { groups.admit().await.unwrap() });
    assert!(lock.left.get() && lock.log.borrow().is_empty());
}
