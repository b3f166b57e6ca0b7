// SPDX-License-Identifier: Apache-2.0
//! A queue into an engine's thread from others. It holds as much as is sent.
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

struct Queue<T> {
    items: VecDeque<T>,
    senders: usize,
    closed: bool,
    waker: Option<Waker>,
}

struct Shared<T>(Mutex<Queue<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that any thread sends from.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end that receives, in an engine.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A queue; what is sent wakes the thread that waits in [`Receiver::recv`].
pub fn channel<T: Send>() -> (Sender<T>, Receiver<T>) {
    let queue = Queue { items: VecDeque::new(), senders: 1, closed: false, waker: None };
    let shared = Arc::new(Shared(Mutex::new(queue)));
    (Sender(shared.clone()), Receiver(shared))
}

impl<T: Send> Sender<T> {
    /// Sends; gives the item back when nobody receives any more.
    pub fn send(&self, item: T) -> Result<(), T> {
        let mut queue = self.0.lock();
        if queue.closed {
            return Err(item);
        }
        queue.items.push_back(item);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.senders -= 1;
        let waker = if queue.senders == 0 { queue.waker.take() } else { None };
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` when all senders are gone.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Receiver::recv`], for use in a hand-written poll.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut queue = self.0.lock();
        if let Some(item) = queue.items.pop_front() {
            return Poll::Ready(Some(item));
        }
        if queue.senders == 0 {
            return Poll::Ready(None);
        }
        if !queue.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            queue.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The next item that is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.lock().items.pop_front()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        let items = std::mem::take(&mut queue.items);
        drop(queue);
        drop(items);
    }
}
