// SPDX-License-Identifier: Apache-2.0
//! What the futures of an engine share: the table of operations, the timers, the driver.
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::notify::Notify;
use crate::poller::Poller;
use crate::pool::Lane;
use crate::timer::Timers;
use crate::uring::Uring;

/// The user data of completions that nobody waits for (of a cancellation, of the eventfd).
pub(crate) const NOBODY: u64 = u64::MAX;

/// Where operations go. One for each engine: its size does not matter.
#[allow(clippy::large_enum_variant, reason = "there is one, and it is not moved")]
pub(crate) enum Driver {
    Uring(Uring),
    Pool(Poller),
    #[cfg(feature = "sim")]
    Sim(crate::sim::World),
}

pub(crate) struct Core {
    pub(crate) driver: Driver,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) notify: Arc<Notify>,
    ops: RefCell<Ops>,
    lane: OnceCell<Lane>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// The engine that runs on this thread.
pub(crate) fn current() -> Option<Rc<Core>> {
    CURRENT.with_borrow(Clone::clone)
}

pub(crate) fn current_or_error() -> io::Result<Rc<Core>> {
    current().ok_or_else(|| io::Error::other("no io-engine runs on this thread"))
}

/// The time by which what runs on this thread sleeps, in nanoseconds.
pub(crate) fn now() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(time) = CURRENT.with_borrow(|core| core.as_ref()?.simulated_time()) {
        return time;
    }
    crate::meter::now()
}

/// As [`now`], cheaper and up to a tick behind.
pub(crate) fn coarse() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(time) = CURRENT.with_borrow(|core| core.as_ref()?.simulated_time()) {
        return time;
    }
    crate::meter::coarse()
}

/// Makes an engine the thread's current one, for as long as it lives.
pub(crate) struct Enter;

impl Enter {
    pub(crate) fn new(core: &Rc<Core>) -> io::Result<Self> {
        if RUNNING.replace(true) {
            return Err(io::Error::other("an io-engine runs on this thread already"));
        }
        CURRENT.set(Some(core.clone()));
        Ok(Enter)
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        RUNNING.set(false);
        let core = CURRENT.take();
        drop(core);
    }
}

/// The operations of an engine. A slot is freed only after the last completion of its operation
/// has arrived, so a slot's number identifies an operation without doubt.
#[derive(Default)]
struct Ops {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

enum Slot {
    Free,
    /// With the kernel, or with a thread of the pool.
    Waiting(Option<Waker>),
    /// Finished: a count of bytes or so, or a negative errno.
    Done(i32),
    /// A descriptor that is watched.
    Watch(Watch),
}

/// The state of a [`crate::Readiness`].
#[derive(Default)]
pub(crate) struct Watch {
    /// Whether further completions will arrive.
    pub(crate) armed: bool,
    /// The poll(2) events since they were last taken.
    pub(crate) events: u32,
    /// Why watching ended.
    pub(crate) error: Option<i32>,
    waker: Option<Waker>,
}

impl Core {
    pub(crate) fn new(driver: Driver, notify: Arc<Notify>) -> Self {
        Core {
            driver,
            timers: RefCell::default(),
            notify,
            ops: RefCell::default(),
            lane: OnceCell::new(),
        }
    }

    /// This engine's place in the pool of threads.
    pub(crate) fn lane(&self) -> &Lane {
        self.lane.get_or_init(Lane::new)
    }

    /// A slot for an operation that is about to start.
    pub(crate) fn reserve(&self, waker: &Waker) -> u32 {
        self.insert(Slot::Waiting(Some(waker.clone())))
    }

    /// A slot for a descriptor to watch.
    pub(crate) fn reserve_watch(&self) -> u32 {
        self.insert(Slot::Watch(Watch::default()))
    }

    fn insert(&self, slot: Slot) -> u32 {
        let ops = &mut *self.ops.borrow_mut();
        if let Some(index) = ops.free.pop() {
            ops.slots[index as usize] = slot;
            return index;
        }
        ops.slots.push(slot);
        u32::try_from(ops.slots.len() - 1).unwrap_or(u32::MAX)
    }

    /// Frees a slot of an operation that has ended, or never started.
    pub(crate) fn release(&self, index: u32) {
        let ops = &mut *self.ops.borrow_mut();
        ops.free.push(index);
        let slot = std::mem::replace(&mut ops.slots[index as usize], Slot::Free);
        drop(slot);
    }

    /// The result of an operation; with `waker`, who to wake when there is none yet.
    pub(crate) fn result(&self, index: u32, waker: Option<&Waker>) -> Option<i32> {
        match &mut self.ops.borrow_mut().slots[index as usize] {
            Slot::Done(result) => Some(*result),
            Slot::Waiting(waiting) => {
                if let Some(waker) = waker
                    && !waiting.as_ref().is_some_and(|w| w.will_wake(waker))
                {
                    *waiting = Some(waker.clone());
                }
                None
            }
            Slot::Free | Slot::Watch(_) => None,
        }
    }

    /// Looks at the state of a watched descriptor, and leaves a waker there.
    pub(crate) fn with_watch<T>(
        &self,
        index: u32,
        waker: Option<&Waker>,
        f: impl FnOnce(&mut Watch) -> T,
    ) -> Option<T> {
        match &mut self.ops.borrow_mut().slots[index as usize] {
            Slot::Watch(watch) => {
                if let Some(waker) = waker
                    && !watch.waker.as_ref().is_some_and(|w| w.will_wake(waker))
                {
                    watch.waker = Some(waker.clone());
                }
                Some(f(watch))
            }
            _ => None,
        }
    }

    /// A completion arrived: `more` will follow under the same number.
    pub(crate) fn complete(&self, user_data: u64, result: i32, more: bool) {
        let Ok(index) = usize::try_from(user_data) else { return };
        let waker = match self.ops.borrow_mut().slots.get_mut(index) {
            Some(slot @ Slot::Waiting(_)) => {
                let Slot::Waiting(waker) = std::mem::replace(slot, Slot::Done(result)) else {
                    return;
                };
                waker
            }
            Some(Slot::Watch(watch)) => {
                watch.armed = more;
                match u32::try_from(result) {
                    Ok(events) => watch.events |= events,
                    Err(_) => watch.error = Some(-result),
                }
                watch.waker.clone()
            }
            _ => None,
        };
        // Outside of the borrow: a waker may do anything.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Time of the simulated world that drives this engine, in nanoseconds.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated_time(&self) -> Option<u64> {
        match &self.driver {
            Driver::Sim(world) => Some(world.now()),
            _ => None,
        }
    }

    /// Ends a turn: hands over what has been collected, sleeps when there is nothing to poll, and
    /// takes in what has arrived.
    pub(crate) fn turn(&self) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if let Driver::Sim(world) = &self.driver {
            world.turn(self)?;
            self.wake_sleepers();
            return Ok(());
        }
        if self.notify.begin_sleep() {
            let timeout = self.timers.borrow().timeout();
            let slept = match &self.driver {
                Driver::Uring(uring) => uring.wait(timeout),
                Driver::Pool(poller) => poller.wait(self, timeout),
                #[cfg(feature = "sim")]
                Driver::Sim(_) => Ok(()),
            };
            self.notify.end_sleep();
            slept?;
        } else {
            match &self.driver {
                Driver::Uring(uring) => uring.submit()?,
                Driver::Pool(poller) => poller.glance(self)?,
                #[cfg(feature = "sim")]
                Driver::Sim(_) => {}
            }
        }
        self.reap();
        self.wake_sleepers();
        Ok(())
    }

    fn wake_sleepers(&self) {
        loop {
            let waker = self.timers.borrow_mut().expired();
            match waker {
                Some(waker) => waker.wake(),
                None => break,
            }
        }
    }

    /// Takes in what has arrived.
    pub(crate) fn reap(&self) {
        match &self.driver {
            Driver::Uring(uring) => {
                while let Some((user_data, result, more)) = uring.completion() {
                    self.complete(user_data, result, more);
                }
            }
            Driver::Pool(poller) => poller.reap(self),
            #[cfg(feature = "sim")]
            Driver::Sim(_) => {}
        }
    }
}
