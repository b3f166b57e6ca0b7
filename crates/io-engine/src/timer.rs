//! Time: what sleeps, and until when the engine may.
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::core::{self, Core};

/// The sleepers of one engine, earliest first.
#[derive(Default)]
pub(crate) struct Timers {
    sleepers: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

impl Timers {
    /// How long the engine may sleep; `None`: for ever. Asks for the time only if someone waits.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let (&(at, _), _) = self.sleepers.first_key_value()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// Takes out one whose time has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Waker> {
        let first = self.sleepers.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sleepers.is_empty()
    }
}

/// See [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    at: Instant,
    /// Where the sleeper is registered, and under which number.
    registered: Option<(Rc<Core>, u64)>,
}

/// Waits for at least `time`.
pub fn sleep(time: Duration) -> Sleep {
    let now = Instant::now();
    // Thirty years are as good as for ever, and `Instant` can hold them.
    sleep_until(now + time.min(Duration::from_secs(1_000_000_000)))
}

/// Waits until `at`.
pub fn sleep_until(at: Instant) -> Sleep {
    Sleep { at, registered: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        if self.registered.is_none() {
            let Some(core) = core::current() else {
                // Outside an engine nothing would ever wake us.
                std::thread::sleep(self.at.saturating_duration_since(Instant::now()));
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
