// SPDX-License-Identifier: Apache-2.0
//! Time: what sleeps, and until when the engine may.
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::core::{self, Core};

/// Up to this, in nanoseconds, sleeping is exact; beyond, it may take a tick of the coarse clock
/// longer, and the exact clock is not read at each turn.
const EXACT: u64 = 100_000_000;

/// The sleepers of one engine, earliest first; times are those of the monotonic clock in
/// nanoseconds.
#[derive(Default)]
pub(crate) struct Timers {
    sleepers: BTreeMap<(u64, u64), Waker>,
    next: u64,
}

impl Timers {
    /// How long the engine may sleep; `None`: for ever.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let (&(at, _), _) = self.sleepers.first_key_value()?;
        let mut left = at.saturating_sub(core::coarse());
        if left < EXACT {
            left = at.saturating_sub(core::now());
        }
        Some(Duration::from_nanos(left))
    }

    /// When the first sleeper's time comes.
    #[cfg(feature = "sim")]
    pub(crate) fn first(&self) -> Option<u64> {
        self.sleepers.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Takes out one whose time has come.
    pub(crate) fn expired(&mut self) -> Option<Waker> {
        let first = self.sleepers.first_entry()?;
        let (at, _) = *first.key();
        let coarse = core::coarse();
        let come = at <= coarse || (at < coarse + EXACT && at <= core::now());
        come.then(|| first.remove())
    }
}

/// See [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    /// By the monotonic clock, in nanoseconds.
    at: u64,
    /// Where the sleeper is registered, and under which number.
    registered: Option<(Rc<Core>, u64)>,
}

/// Waits for at least `time`; of more than 100 ms it may be some milliseconds longer.
pub fn sleep(time: Duration) -> Sleep {
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Sleep { at: core::now().saturating_add(time), registered: None }
}

/// Waits until `at`.
pub fn sleep_until(at: Instant) -> Sleep {
    sleep(at.saturating_duration_since(Instant::now()))
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if core::now() >= self.at {
            return Poll::Ready(());
        }
        if self.registered.is_none() {
            let Some(core) = core::current() else {
                // Outside an engine nothing would ever wake us.
                let left = self.at.saturating_sub(core::now());
                std::thread::sleep(Duration::from_nanos(left));
                return Poll::Ready(());
            };
            let number = {
                let mut timers = core.timers.borrow_mut();
                timers.next += 1;
                timers.next
            };
            self.registered = Some((core, number));
        }
        if let Some((core, number)) = &self.registered {
            let mut timers = core.timers.borrow_mut();
            let waker = timers.sleepers.entry((self.at, *number));
            let waker = waker.or_insert_with(|| cx.waker().clone());
            if !waker.will_wake(cx.waker()) {
                *waker = cx.waker().clone();
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((core, number)) = self.registered.take() {
            let waker = core.timers.borrow_mut().sleepers.remove(&(self.at, number));
            drop(waker);
        }
    }
}

/// The time was over before the work was.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Elapsed;

/// Runs `work` for at most `time`; then it is dropped (see the crate's notes on memory).
pub async fn timeout<F: Future>(time: Duration, work: F) -> Result<F::Output, Elapsed> {
    let (mut work, mut alarm) = (pin!(work), pin!(sleep(time)));
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        alarm.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
