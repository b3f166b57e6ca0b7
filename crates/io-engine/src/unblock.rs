// SPDX-License-Identifier: Apache-2.0
//! Code that can only block, on the pool of threads.
use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::core;

struct Answer<T> {
    value: Option<Result<T, Box<dyn Any + Send>>>,
    waker: Option<Waker>,
}

/// Runs `work` on a thread of the pool. When the future is dropped, `work` runs on by itself.
/// Outside of an engine it runs on the calling thread. A panic in `work` goes on here.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Some(core) = core::current() else { return work() };
    #[cfg(feature = "sim")]
    if core.simulated_time().is_some() {
        return work();
    }
    let answer = Arc::new(Mutex::new(Answer { value: None, waker: None }));
    let theirs = answer.clone();
    core.lane().call(Box::new(move || {
        let value = catch_unwind(AssertUnwindSafe(work));
        let mut answer = theirs.lock().unwrap_or_else(PoisonError::into_inner);
        answer.value = Some(value);
        let waker = answer.waker.take();
        drop(answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }));
    let value = poll_fn(|cx| {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                answer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await;
    value.unwrap_or_else(|panic| resume_unwind(panic))
}
