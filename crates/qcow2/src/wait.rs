// SPDX-License-Identifier: Apache-2.0
//! How operations of one image wait for one another, and the work of the image itself: the
//! [`Job`]s. They belong to no operation, so that none that is dropped stops half-way. Nobody but
//! the operations can run them: a job is polled by those that wait, and by those that pass.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Something that happens again and again.
#[derive(Default)]
pub(crate) struct Event {
    turn: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Event {
    /// It happened.
    pub(crate) fn notify(&self) {
        self.turn.set(self.turn.get() + 1);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    fn register(&self, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

/// Lets what else can go on do so once.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Work of the image, done one after the other.
#[derive(Default)]
pub(crate) struct Jobs {
    queue: RefCell<VecDeque<Work>>,
    /// Being polled now, further down on the stack.
    polled: Cell<bool>,
    woken: Arc<Woken>,
    /// Who lets jobs go on while nobody waits.
    keeper: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Woken {
    flag: AtomicBool,
    waiters: Mutex<Vec<Waker>>,
}

impl Woken {
    fn waiters(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.store(true, Ordering::SeqCst);
        let waiters = std::mem::take(&mut *self.waiters());
        for waiter in waiters {
            waiter.wake();
        }
    }
}

impl Jobs {
    /// Appends a job; it begins when it is polled.
    pub(crate) fn push(&self, job: Work) {
        self.queue.borrow_mut().push_back(job);
        self.woken.wake_by_ref();
        if let Some(keeper) = &*self.keeper.borrow() {
            keeper.wake_by_ref();
        }
    }

    /// Lets jobs go on while it is polled, though no operation waits. It never ends.
    pub(crate) async fn keep(&self) -> Infallible {
        std::future::poll_fn(|cx| {
            let known = self.keeper.borrow().as_ref().is_some_and(|k| k.will_wake(cx.waker()));
            if !known {
                self.keeper.replace(Some(cx.waker().clone()));
            }
            self.help(Some(cx.waker()));
            Poll::Pending
        })
        .await
    }

    /// Lets the first job go on if it can, and the next. `waker` is woken when it can again.
    pub(crate) fn help(&self, waker: Option<&Waker>) {
        if self.polled.get() {
            return;
        }
        loop {
            if self.queue.borrow().is_empty() {
                return;
            }
            if let Some(waker) = waker {
                let mut waiters = self.woken.waiters();
                if !waiters.iter().any(|other| other.will_wake(waker)) {
                    waiters.push(waker.clone());
                }
            }
            if !self.woken.flag.swap(false, Ordering::SeqCst) {
                return;
            }
            let Some(mut job) = self.queue.borrow_mut().pop_front() else { return };
            self.polled.set(true);
            let own = Waker::from(self.woken.clone());
            let polled = job.as_mut().poll(&mut Context::from_waker(&own));
            self.polled.set(false);
            match polled {
                Poll::Pending => self.queue.borrow_mut().push_front(job),
                Poll::Ready(()) => self.woken.flag.store(true, Ordering::SeqCst),
            }
        }
    }

    /// Whether the caller is a job.
    pub(crate) fn is_running(&self) -> bool {
        self.polled.get()
    }

    /// Drops what is left of them.
    pub(crate) fn clear(&self) {
        let jobs = self.queue.take();
        drop(jobs);
    }

    /// Waits until `event` happens; jobs go on meanwhile.
    pub(crate) async fn wait(&self, event: &Event) {
        let turn = event.turn.get();
        std::future::poll_fn(|cx| {
            if event.turn.get() == turn {
                event.register(cx.waker());
                self.help(Some(cx.waker()));
            }
            if event.turn.get() == turn { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}
