// SPDX-License-Identifier: Apache-2.0
//! Questions about configuration strings: they come from D-Bus's thread and are answered in the
//! program's, which learns of them by a descriptor. A program that does not look leaves them open; as
//! many as may wait, and no more, are kept.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

/// Questions that may wait.
const MAX: usize = 16;

/// Fine, or why not.
pub(crate) type Verdict = Result<(), String>;

/// The questions.
#[derive(Debug)]
pub(crate) struct Checks {
    waiting: Mutex<VecDeque<Check>>,
    signal: OwnedFd,
}

/// One question.
#[derive(Debug)]
pub(crate) struct Check {
    /// What configuration strings of the handler begin with.
    pub(crate) subtype: String,
    /// The string.
    pub(crate) config: String,
    slot: Arc<Mutex<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    verdict: Option<Verdict>,
    waker: Option<Waker>,
}

/// The answer to come.
pub(crate) struct Answer(Arc<Mutex<Slot>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checks {
    pub(crate) fn new() -> io::Result<Checks> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Checks { waiting: Mutex::default(), signal })
    }

    /// Asks; the answer comes when the program looks.
    pub(crate) fn ask(&self, subtype: &str, config: String) -> Answer {
        let slot = Arc::<Mutex<Slot>>::default();
        let check = Check { subtype: subtype.to_owned(), config, slot: slot.clone() };
        let mut waiting = lock(&self.waiting);
        if waiting.len() < MAX {
            waiting.push_back(check);
            // It fails when it is readable already.
            let _ = write(&self.signal, &1u64.to_ne_bytes());
        } else {
            check.answer(Err("too many checks are waiting; try again later".into()));
        }
        Answer(slot)
    }

    /// The next question.
    pub(crate) fn next(&self) -> Option<Check> {
        // Before the look: a question that comes after it signals again.
        let _ = read(&self.signal, &mut [0; 8]);
        lock(&self.waiting).pop_front()
    }
}

impl AsFd for Checks {
    /// Readable when there are questions.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}

impl Check {
    /// Answers it.
    pub(crate) fn answer(&self, verdict: Verdict) {
        let mut slot = lock(&self.slot);
        slot.verdict = Some(verdict);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if lock(&self.slot).verdict.is_none() {
            self.answer(Err("the program that has this handler ends".into()));
        }
    }
}

impl Future for Answer {
    type Output = Verdict;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        let mut slot = lock(&self.0);
        match slot.verdict.clone() {
            Some(verdict) => Poll::Ready(verdict),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_when_the_program_looks() {
        let checks = Checks::new().unwrap();
        let answer = checks.ask("mem", "mem/1".into());
        let check = checks.next().unwrap();
        assert_eq!((&*check.subtype, &*check.config), ("mem", "mem/1"));
        check.answer(Err("no".into()));
        assert_eq!(zbus::block_on(answer), Err("no".into()));
        assert!(checks.next().is_none());
    }

    #[test]
    fn questions_that_nobody_looks_at_are_not_kept_without_end() {
        let checks = Checks::new().unwrap();
        let answers: Vec<Answer> = (0..MAX + 1).map(|_| checks.ask("a", "b".into())).collect();
        let last = answers.into_iter().next_back().unwrap();
        assert!(zbus::block_on(last).unwrap_err().contains("too many"));
    }

    #[test]
    fn questions_of_a_program_that_ends_are_answered() {
        let checks = Checks::new().unwrap();
        let answer = checks.ask("a", "b".into());
        drop(checks);
        assert!(zbus::block_on(answer).is_err());
    }
}
