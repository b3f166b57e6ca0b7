// SPDX-License-Identifier: Apache-2.0
//! Runs what may block, such as the check of a configuration string, away from the bus's thread, within
//! a time limit and not too much at once for one user: opening a file on a dead server blocks forever.
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

/// Checks a configuration string ("qcow//srv/a.qcow2"): fine, or why not.
pub type CheckConfig = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Tells how the daemon does.
pub type Report = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// How long a check may take; clients wait 25 s for an answer.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Checks of one user that may be stuck or under way at once, root being one.
const PER_USER: usize = 4;
/// Those of all users but root, who is never kept from checking by others.
const NOT_ROOTS: usize = 12;
const STACK: usize = 512 << 10;

/// Checks under way, by user.
type Running = Mutex<BTreeMap<u32, usize>>;

static RUNNING: Running = Mutex::new(BTreeMap::new());

/// One of the checks under way; dropped where the check really ends.
struct Slot {
    running: &'static Running,
    user: u32,
}

impl Slot {
    fn take(running: &'static Running, user: u32) -> Option<Slot> {
        let mut counts = running.lock().unwrap_or_else(PoisonError::into_inner);
        let others: usize = counts.iter().filter(|(user, _)| **user != 0).map(|(_, n)| n).sum();
        let own = counts.entry(user).or_default();
        if *own >= PER_USER || (user != 0 && others >= NOT_ROOTS) {
            return None;
        }
        *own += 1;
        Some(Slot { running, user })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

struct Shared<T> {
    answer: Option<Result<T, String>>,
    waker: Option<Waker>,
}

/// The answer to come.
pub(super) struct Answer<T>(Arc<Mutex<Shared<T>>>);

impl<T> Future for Answer<T> {
    type Output = Result<T, String>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                shared.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn settle<T>(shared: &Mutex<Shared<T>>, answer: Result<T, String>) {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.answer = Some(answer);
    if let Some(waker) = shared.waker.take() {
        waker.wake();
    }
}

/// Starts a check for a user; the answer comes within `limit`. A check that panics is a failed one.
pub(super) fn start<T: Send + 'static>(
    check: impl FnOnce() -> Result<T, String> + Send + 'static,
    user: u32,
    limit: Duration,
) -> Answer<T> {
    let shared = Arc::new(Mutex::new(Shared { answer: None, waker: None }));
    let answer = Answer(shared.clone());
    let Some(slot) = Slot::take(&RUNNING, user) else {
        let why = "too many checks are under way or stuck; try again later";
        settle(&shared, Err(why.to_owned()));
        return answer;
    };
    let clock = shared.clone();
    let spawned = thread::Builder::new().name("check".into()).stack_size(STACK).spawn(move || {
        let (done, wait) = sync_channel(1);
        let worker = thread::Builder::new().name("check".into()).spawn(move || {
            let _slot = slot;
            let _ = done.send(check());
        });
        let answer = match worker {
            Err(error) => Err(format!("cannot check: {error}")),
            Ok(_) => wait.recv_timeout(limit).unwrap_or_else(|why| {
                Err(match why {
                    std::sync::mpsc::RecvTimeoutError::Timeout => {
                        format!("no answer within {} s: is its storage reachable?", limit.as_secs())
                    }
                    std::sync::mpsc::RecvTimeoutError::Disconnected => {
                        "the check itself failed; the log tells more".to_owned()
                    }
                })
            }),
        };
        settle(&clock, answer);
    });
    if let Err(error) = spawned {
        settle(&shared, Err(format!("cannot check: {error}")));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn ask(
        check: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
        limit: Duration,
    ) -> Result<(), String> {
        zbus::block_on(start(move || check("x"), 0, limit))
    }

    #[test]
    fn the_answer_of_a_check_comes_back() {
        assert_eq!(ask(|_| Ok(()), LONG), Ok(()));
        assert_eq!(ask(|config| Err(format!("no {config}")), LONG), Err("no x".into()));
    }

    #[test]
    fn no_user_takes_the_slots_of_others_nor_all_others_those_of_root() {
        static RUNNING: Running = Mutex::new(BTreeMap::new());
        let take = |user| Slot::take(&RUNNING, user);
        let mut slots: Vec<_> = (0..PER_USER).map(|_| take(1000).unwrap()).collect();
        assert!(take(1000).is_none());
        slots.extend((1001..).take(NOT_ROOTS - PER_USER).map(|user| take(user).unwrap()));
        assert!(take(5000).is_none());
        let roots: Vec<_> = (0..PER_USER).map(|_| take(0).unwrap()).collect();
        assert!(take(0).is_none());
        drop(roots);
        assert!(take(5000).is_none());
        drop(slots);
        assert!(take(5000).is_some());
        assert!(RUNNING.lock().unwrap().is_empty());
    }

    #[test]
    fn a_check_that_hangs_or_panics_is_answered() {
        let hang = |_: &str| {
            thread::sleep(Duration::from_secs(2));
            Ok(())
        };
        assert!(ask(hang, Duration::from_millis(50)).unwrap_err().starts_with("no answer within"));
        let bug = ask(|_| panic!("bug"), LONG);
        assert_eq!(bug, Err("the check itself failed; the log tells more".into()));
    }
}
