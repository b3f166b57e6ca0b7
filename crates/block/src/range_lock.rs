// SPDX-License-Identifier: Apache-2.0
//! Locks on ranges of bytes, so that compound operations (compare and write, an emulated zeroing, a
//! read-modify-write) are atomic towards every other operation of a disk, and so that two writes of
//! the same bytes do not interleave.
//!
//! Reads share their range with reads and writes, writes with reads alone, compound operations with
//! nobody. Requests are served in the order of their arrival: one that conflicts with an earlier
//! request waits for it, even where that one is waiting itself, so nobody starves. A future that is
//! dropped while it waits, or a guard that is dropped, lets go; nothing polls in a loop.
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

/// What the holder of a range does to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// It reads: others may read and write.
    #[default]
    Read,
    /// It writes: others may read.
    Write,
    /// Nobody else may do anything.
    Alone,
}

/// The locks of one disk. The unit of ranges is the caller's.
#[derive(Debug, Default)]
pub struct RangeLock {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is held, by the key of its guard; a free slot is an empty range.
    held: Vec<Claim>,
    free: Vec<usize>,
    /// How many of `held` are [`Access::Write`].
    writes: usize,
    /// How many of `held` are [`Access::Alone`].
    alone: usize,
    /// In order of arrival. Empty unless somebody holds or awaits a range that another wants.
    waiting: VecDeque<Waiter>,
    next_ticket: u64,
}

/// A range, and what its holder does to it.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    start: u64,
    end: u64,
    access: Access,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    claim: Claim,
    waker: Waker,
    /// The key under which it already holds its range, without having seen it yet.
    granted: Option<usize>,
}

impl Claim {
    /// An empty range is made one that conflicts with nothing.
    fn new(range: Range<u64>, access: Access) -> Self {
        if range.is_empty() {
            return Claim { start: 0, end: 0, access };
        }
        Claim { start: range.start, end: range.end, access }
    }

    fn conflicts(&self, other: &Claim) -> bool {
        let exclude = match (self.access, other.access) {
            (Access::Alone, _) | (_, Access::Alone) | (Access::Write, Access::Write) => true,
            (Access::Read, _) | (_, Access::Read) => false,
        };
        exclude && self.start < other.end && other.start < self.end
    }
}

impl State {
    #[inline]
    fn hold(&mut self, claim: Claim) -> usize {
        self.count(claim.access, 1);
        if let Some(key) = self.free.pop()
            && let Some(slot) = self.held.get_mut(key)
        {
            *slot = claim;
            return key;
        }
        self.held.push(claim);
        self.held.len() - 1
    }

    #[inline]
    fn release(&mut self, key: usize) {
        if let Some(slot) = self.held.get_mut(key) {
            let access = std::mem::take(slot).access;
            self.free.push(key);
            self.count(access, usize::MAX);
        }
    }

    /// Adds to the number of holders; `usize::MAX` takes one away.
    #[inline]
    fn count(&mut self, access: Access, n: usize) {
        match access {
            Access::Read => {}
            Access::Write => self.writes = self.writes.wrapping_add(n),
            Access::Alone => self.alone = self.alone.wrapping_add(n),
        }
    }

    /// Whether `claim` must wait for what is held or for one of the first `earlier` waiters.
    fn blocked(&self, claim: &Claim, earlier: usize) -> bool {
        self.held.iter().any(|held| held.conflicts(claim))
            || (self.waiting.iter().take(earlier))
                .any(|w| w.granted.is_none() && w.claim.conflicts(claim))
    }

    /// Grants what can be granted now. The wakers are to be woken when the state is not borrowed.
    fn grant(&mut self) -> SmallVec<[Waker; 4]> {
        let mut wakers = SmallVec::new();
        for i in 0..self.waiting.len() {
            let claim = self.waiting[i].claim;
            if self.waiting[i].granted.is_none() && !self.blocked(&claim, i) {
                let key = self.hold(claim);
                self.waiting[i].granted = Some(key);
                wakers.push(self.waiting[i].waker.clone());
            }
        }
        wakers
    }
}

impl RangeLock {
    /// Holds `range`, if nobody is alone with a range or waits for one, and nobody writes where it
    /// is to be written: the fast path of reads and writes. `None`: use [`lock`](Self::lock).
    #[inline]
    pub fn try_lock(&self, range: Range<u64>, access: Access) -> Option<Guard<'_>> {
        let mut state = self.state.borrow_mut();
        if state.alone > 0 || !state.waiting.is_empty() {
            return None;
        }
        let claim = Claim::new(range, access);
        let others = match access {
            Access::Read => false,
            Access::Write => state.writes > 0,
            Access::Alone => true,
        };
        if others && state.blocked(&claim, 0) {
            return None;
        }
        let key = state.hold(claim);
        Some(Guard { lock: self, key })
    }

    /// Waits until nobody does to an overlapping range what excludes this.
    pub fn lock(&self, range: Range<u64>, access: Access) -> Acquire<'_> {
        Acquire { lock: self, claim: Claim::new(range, access), ticket: None }
    }

    fn wake(wakers: SmallVec<[Waker; 4]>) {
        for waker in wakers {
            waker.wake();
        }
    }
}

/// Holds a range until it is dropped.
#[derive(Debug)]
#[must_use = "the range is released when the guard is dropped"]
pub struct Guard<'a> {
    lock: &'a RangeLock,
    key: usize,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut state = self.lock.state.borrow_mut();
        state.release(self.key);
        if !state.waiting.is_empty() {
            let wakers = state.grant();
            drop(state);
            RangeLock::wake(wakers);
        }
    }
}

/// The future of a [`Guard`].
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'a> {
    lock: &'a RangeLock,
    claim: Claim,
    /// Set while it is among the waiters.
    ticket: Option<u64>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Guard<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Guard<'a>> {
        let lock = self.lock;
        let mut state = lock.state.borrow_mut();
        let Some(ticket) = self.ticket else {
            if !state.blocked(&self.claim, state.waiting.len()) {
                let key = state.hold(self.claim);
                return Poll::Ready(Guard { lock, key });
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let waker = cx.waker().clone();
            state.waiting.push_back(Waiter { ticket, claim: self.claim, waker, granted: None });
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        let Some(at) = state.waiting.iter().position(|w| w.ticket == ticket) else {
            return Poll::Pending; // It was polled again after it was ready.
        };
        if let Some(key) = state.waiting[at].granted {
            state.waiting.remove(at);
            self.ticket = None;
            return Poll::Ready(Guard { lock, key });
        }
        state.waiting[at].waker.clone_from(cx.waker());
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.lock.state.borrow_mut();
        let Some(at) = state.waiting.iter().position(|w| w.ticket == ticket) else { return };
        if let Some(waiter) = state.waiting.remove(at)
            && let Some(key) = waiter.granted
        {
            state.release(key);
        }
        let wakers = state.grant();
        drop(state);
        RangeLock::wake(wakers);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A future under test, with the number of times it was woken.
    struct Task<'a> {
        future: Pin<Box<Acquire<'a>>>,
        wakes: Arc<Count>,
    }

    impl<'a> Task<'a> {
        fn new(future: Acquire<'a>) -> Self {
            Task { future: Box::pin(future), wakes: Arc::default() }
        }

        fn poll(&mut self) -> Option<Guard<'a>> {
            let waker = Waker::from(self.wakes.clone());
            match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(guard) => Some(guard),
                Poll::Pending => None,
            }
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    fn granted<'a>(future: Acquire<'a>) -> Guard<'a> {
        Task::new(future).poll().expect("granted at once")
    }

    #[test]
    fn readers_share_and_an_exclusive_holder_waits_for_all_of_them() {
        let lock = RangeLock::default();
        let one = lock.try_lock(0..8, Access::Read).expect("free");
        let two = lock.try_lock(4..12, Access::Read).expect("shared");
        let mut writer = Task::new(lock.lock(5..6, Access::Alone));
        assert!(writer.poll().is_none());
        drop(one);
        assert_eq!(writer.wakes(), 0);
        drop(two);
        assert_eq!(writer.wakes(), 1);
        assert!(writer.poll().is_some());
    }

    #[test]
    fn writes_of_the_same_bytes_wait_for_each_other_and_reads_do_not() {
        let lock = RangeLock::default();
        let first = lock.try_lock(0..8, Access::Write).expect("free");
        let elsewhere = lock.try_lock(8..16, Access::Write).expect("beside it");
        assert!(lock.try_lock(7..8, Access::Read).is_some());
        assert!(lock.try_lock(4..12, Access::Write).is_none());
        let mut second = Task::new(lock.lock(4..12, Access::Write));
        assert!(second.poll().is_none());
        drop(first);
        assert!(second.poll().is_none(), "it waits for the other one as well");
        drop(elsewhere);
        assert!(second.poll().is_some());
    }

    #[test]
    fn ranges_that_only_touch_do_not_conflict() {
        let lock = RangeLock::default();
        let _low = granted(lock.lock(0..8, Access::Alone));
        let _high = granted(lock.lock(8..16, Access::Alone));
        let _empty = granted(lock.lock(4..4, Access::Alone));
        assert!(Task::new(lock.lock(7..9, Access::Read)).poll().is_none());
    }

    #[test]
    fn the_fast_path_is_closed_while_somebody_is_exclusive_or_waits() {
        let lock = RangeLock::default();
        let guard = granted(lock.lock(0..1, Access::Alone));
        assert!(lock.try_lock(100..200, Access::Read).is_none());
        let far = granted(lock.lock(100..200, Access::Read));
        drop(guard);
        assert!(lock.try_lock(0..1, Access::Read).is_some());
        let mut writer = Task::new(lock.lock(100..101, Access::Alone));
        assert!(writer.poll().is_none());
        assert!(lock.try_lock(0..1, Access::Read).is_none());
        drop(far);
    }

    #[test]
    fn a_later_reader_does_not_overtake_a_waiting_writer() {
        let lock = RangeLock::default();
        let reader = lock.try_lock(0..10, Access::Read).expect("free");
        let mut writer = Task::new(lock.lock(0..10, Access::Alone));
        assert!(writer.poll().is_none());
        let mut late = Task::new(lock.lock(9..20, Access::Read));
        assert!(late.poll().is_none());
        let elsewhere = granted(lock.lock(10..20, Access::Read));
        drop(reader);
        assert!(late.poll().is_none());
        let held = writer.poll().expect("first in line");
        assert_eq!(late.wakes(), 0);
        drop(held);
        assert_eq!(late.wakes(), 1);
        assert!(late.poll().is_some());
        drop(elsewhere);
    }

    #[test]
    fn exclusive_requests_are_served_in_the_order_of_arrival() {
        let lock = RangeLock::default();
        let mut held = granted(lock.lock(0..4, Access::Alone));
        let mut tasks: Vec<_> = (0..5).map(|_| Task::new(lock.lock(2..6, Access::Alone))).collect();
        for task in &mut tasks {
            assert!(task.poll().is_none());
        }
        for i in 0..tasks.len() {
            drop(held);
            let woken: Vec<_> = tasks.iter().map(Task::wakes).collect();
            assert_eq!(woken, (0..5).map(|j| usize::from(j <= i)).collect::<Vec<_>>());
            held = tasks[i].poll().expect("its turn");
        }
        drop(held);
    }

    #[test]
    fn a_waiter_that_is_dropped_lets_those_behind_it_pass() {
        let lock = RangeLock::default();
        let reader = lock.try_lock(0..10, Access::Read).expect("free");
        let mut writer = Task::new(lock.lock(0..10, Access::Alone));
        assert!(writer.poll().is_none());
        let mut late = Task::new(lock.lock(0..10, Access::Read));
        assert!(late.poll().is_none());
        drop(writer);
        assert_eq!(late.wakes(), 1);
        assert!(late.poll().is_some());
        drop(reader);
        assert!(lock.try_lock(0..10, Access::Read).is_some());
    }

    #[test]
    fn a_waiter_dropped_between_grant_and_poll_releases_its_range() {
        let lock = RangeLock::default();
        let first = granted(lock.lock(0..10, Access::Alone));
        let mut second = Task::new(lock.lock(0..10, Access::Alone));
        let mut third = Task::new(lock.lock(0..10, Access::Alone));
        assert!(second.poll().is_none());
        assert!(third.poll().is_none());
        drop(first);
        assert_eq!((second.wakes(), third.wakes()), (1, 0));
        drop(second);
        assert_eq!(third.wakes(), 1);
        drop(third.poll().expect("granted"));
        assert!(lock.try_lock(0..10, Access::Read).is_some());
    }

    #[test]
    fn slots_of_released_ranges_are_used_again() {
        let lock = RangeLock::default();
        for i in 0..1000 {
            drop(lock.try_lock(i..i + 1, Access::Read));
        }
        assert_eq!(lock.state.borrow().held.len(), 1);
    }
}
