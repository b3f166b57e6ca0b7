// SPDX-License-Identifier: Apache-2.0
//! Many futures of one type run as one: the commands of a device.
//!
//! Each future sits in a slot whose box and waker are made once and reused, so that running a
//! future allocates nothing after the first few. Only woken futures are polled.
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Names a future in its [`TaskSet`]; not reused before 2^32 others had its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

/// What became of a future at its first poll.
#[derive(Debug)]
pub enum Started<T> {
    /// It is finished.
    Done(T),
    /// It goes on in the set.
    Running(Key),
}

/// A set of futures; see the module's text.
pub struct TaskSet<F: Future> {
    slots: Vec<Slot<F>>,
    /// One for each 64 slots.
    words: Vec<Arc<Word>>,
    free: Vec<u32>,
    parent: Arc<Parent>,
}

struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    generation: u32,
    waker: Waker,
}

/// Which of 64 slots have been woken.
struct Word {
    woken: AtomicU64,
    parent: Arc<Parent>,
}

/// Who polls the set.
struct Parent {
    /// Whether it has been woken since it last polled: of a batch of wakes one goes through.
    woken: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

struct SlotWaker {
    word: Arc<Word>,
    bit: u64,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.word.woken.fetch_or(self.bit, Ordering::SeqCst);
        let parent = &self.word.parent;
        if !parent.woken.swap(true, Ordering::SeqCst) {
            let waker = parent.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waker) = &*waker {
                waker.wake_by_ref();
            }
        }
    }
}

impl<F: Future> Default for TaskSet<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Future> TaskSet<F> {
    /// A set of nothing.
    pub fn new() -> Self {
        let parent = Parent { woken: AtomicBool::new(false), waker: Mutex::new(None) };
        let parent = Arc::new(parent);
        TaskSet { slots: Vec::new(), words: Vec::new(), free: Vec::new(), parent }
    }

    /// How many futures run.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a future in and polls it at once.
    pub fn push(&mut self, future: F) -> Started<F::Output> {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        self.slots[index as usize].future.set(Some(future));
        match Self::poll_slot(&mut self.slots, &mut self.free, index) {
            Some((_, output)) => Started::Done(output),
            None => Started::Running(self.key(index)),
        }
    }

    /// A future that finished, with its output. `Ready` asks to be called again; `Pending` means
    /// that none is finished (the set may be empty) and `cx` is woken when one can go on.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Key, F::Output)> {
        {
            let mut waker = self.parent.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        self.parent.woken.store(false, Ordering::SeqCst);
        for (word, number) in self.words.iter().zip(0u32..) {
            if word.woken.load(Ordering::SeqCst) == 0 {
                continue;
            }
            // A future that wakes itself has its turn in the next round.
            let mut woken = word.woken.swap(0, Ordering::SeqCst);
            while woken != 0 {
                let bit = woken.trailing_zeros();
                woken &= woken - 1;
                let index = number * 64 + bit;
                if let Some(done) = Self::poll_slot(&mut self.slots, &mut self.free, index) {
                    word.woken.fetch_or(woken, Ordering::SeqCst);
                    return Poll::Ready(done);
                }
            }
        }
        Poll::Pending
    }

    /// As [`TaskSet::poll_next`], to be awaited.
    pub async fn next(&mut self) -> (Key, F::Output) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Drops a future; whether it was still there. I/O of its is waited for (see the crate's notes
    /// on memory).
    pub fn cancel(&mut self, key: Key) -> bool {
        match self.slots.get_mut(key.index as usize) {
            Some(slot) if slot.generation == key.generation && slot.future.is_some() => {
                slot.future.set(None);
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(key.index);
                true
            }
            _ => false,
        }
    }

    /// Polls a slot; frees it when its future finished. A slot without a future has been woken by
    /// a waker that outlived its future: nothing happens.
    fn poll_slot(
        slots: &mut [Slot<F>],
        free: &mut Vec<u32>,
        index: u32,
    ) -> Option<(Key, F::Output)> {
        let slot = slots.get_mut(index as usize)?;
        let future = slot.future.as_mut().as_pin_mut()?;
        let Poll::Ready(output) = future.poll(&mut Context::from_waker(&slot.waker)) else {
            return None;
        };
        let key = Key { index, generation: slot.generation };
        slot.future.set(None);
        slot.generation = slot.generation.wrapping_add(1);
        free.push(index);
        Some((key, output))
    }

    fn key(&self, index: u32) -> Key {
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        Key { index, generation }
    }

    fn grow(&mut self) -> u32 {
        let index = self.slots.len();
        if index.is_multiple_of(64) {
            let word = Word { woken: AtomicU64::new(0), parent: self.parent.clone() };
            self.words.push(Arc::new(word));
        }
        let word = self.words[index / 64].clone();
        let waker = Waker::from(Arc::new(SlotWaker { word, bit: 1 << (index % 64) }));
        self.slots.push(Slot { future: Box::pin(None), generation: 0, waker });
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}

impl<F: Future> std::fmt::Debug for TaskSet<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskSet({} running)", self.len())
    }
}
