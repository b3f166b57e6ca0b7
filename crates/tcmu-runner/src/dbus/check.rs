//! Runs the check of a configuration string away from the bus's thread, within a time limit and not
//! too many at once: a file on a dead server blocks whoever opens it, for ever.
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

/// Checks a configuration string ("qcow//srv/a.qcow2"): fine, or why not.
pub type CheckConfig = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// How long a check may take; clients wait 25 s for an answer.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Checks that may be stuck or under way at once.
const MAX_RUNNING: usize = 16;
const STACK: usize = 512 << 10;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// One of the checks under way; dropped where the check really ends.
struct Slot;

impl Slot {
    fn take() -> Option<Slot> {
        let taken = |n: usize| (n < MAX_RUNNING).then_some(n + 1);
        RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok().map(|_| Slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Shared {
    answer: Option<Result<(), String>>,
    waker: Option<Waker>,
}

/// The answer to come.
pub(super) struct Answer(Arc<Mutex<Shared>>);

impl Future for Answer {
    type Output = Result<(), String>;

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

fn settle(shared: &Mutex<Shared>, answer: Result<(), String>) {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.answer = Some(answer);
    if let Some(waker) = shared.waker.take() {
        waker.wake();
    }
}

/// Starts a check; the answer comes within `limit`. A check that panics is a failed one.
pub(super) fn start(check: CheckConfig, config: String, limit: Duration) -> Answer {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let answer = Answer(shared.clone());
    let Some(slot) = Slot::take() else {
        settle(&shared, Err("too many checks are under way or stuck; try again later".into()));
        return answer;
    };
    let clock = shared.clone();
    let spawned = thread::Builder::new().name("check".into()).stack_size(STACK).spawn(move || {
        let (done, wait) = sync_channel(1);
        let worker = thread::Builder::new().name("check".into()).spawn(move || {
            let _slot = slot;
            let _ = done.send(check(&config));
        });
        let answer = match worker {
            Err(error) => Err(format!("cannot check: {error}")),
            Ok(_) => wait.recv_timeout(limit).unwrap_or_else(|why| {
                Err(match why {
                    std::sync::mpsc::RecvTimeoutError::Timeout => format!(
                        "no answer within {} s: is the storage behind it reachable?",
                        limit.as_secs()
                    ),
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
        zbus::block_on(start(Arc::new(check), "x".into(), limit))
    }

    #[test]
    fn the_answer_of_a_check_comes_back() {
        assert_eq!(ask(|_| Ok(()), LONG), Ok(()));
        assert_eq!(ask(|config| Err(format!("no {config}")), LONG), Err("no x".into()));
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
