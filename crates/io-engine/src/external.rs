// SPDX-License-Identifier: Apache-2.0
//! An operation that a library's own threads run: they end it by a [`Completer`], and an [`External`]
//! awaits that.
//!
//! Such a library uses memory until the operation has ended, and has no way to cancel it. So an
//! `External` that is dropped waits for the end, whatever becomes of the future around it; one that
//! is leaked has to leak that memory, too.
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
struct State {
    result: Option<i64>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of an operation, told by any thread. Dropping it without leaves who waits waiting.
#[derive(Debug)]
pub struct Completer(Arc<Shared>);

/// An operation that runs; its result is a number that the library says.
#[derive(Debug)]
#[must_use = "dropping it waits for its end"]
pub struct External {
    shared: Arc<Shared>,
    /// Whether somebody will end it.
    begun: bool,
}

/// Both ends of an operation that is about to begin.
pub fn external() -> (Completer, External) {
    let shared = Arc::<Shared>::default();
    (Completer(shared.clone()), External { shared, begun: true })
}

impl Completer {
    /// The operation has ended: its memory is not used any more.
    pub fn complete(self, result: i64) {
        let mut state = self.0.lock();
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        self.0.ended.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl External {
    /// It could not be begun: nobody ends it.
    pub fn abandon(mut self) {
        self.begun = false;
    }
}

impl Future for External {
    type Output = i64;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<i64> {
        let mut state = self.shared.lock();
        match state.result {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for External {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        while self.begun && state.result.is_none() {
            state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{Backend, Engine};

    #[test]
    fn what_another_thread_ends_is_awaited() {
        let (completer, external) = external();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            completer.complete(-5);
        });
        let engine = Engine::new(Backend::Pool).unwrap();
        assert_eq!(engine.block_on(external).unwrap(), -5);
        thread.join().unwrap();
    }

    #[test]
    fn dropping_waits_for_the_end_unless_it_was_never_begun() {
        let (completer, running) = external();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            completer.complete(0);
        });
        let before = Instant::now();
        drop(running);
        assert!(before.elapsed() >= Duration::from_millis(50));
        thread.join().unwrap();
        let (_completer, never) = external();
        never.abandon();
    }
}
