// SPDX-License-Identifier: Apache-2.0
//! The threads of one device that call its handler, and threads for calls that may take long.
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::answer::Answer;

/// Of a thread that runs a plugin's code, in bytes: what C programs have. Address space; what is
/// not used costs nothing.
pub const STACK: usize = 8 << 20;

/// Runs work that may block on a thread of its own. When nobody awaits the answer, the work goes on
/// by itself.
pub(crate) fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Answer<T>> {
    let answer = Answer::default();
    let theirs = answer.clone();
    spawn(name, move || theirs.give(work()))?;
    Ok(answer)
}

/// Starts a thread that may run a plugin's code.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop)
}

struct Queue<J> {
    jobs: VecDeque<J>,
    ended: bool,
    /// Threads that sleep, and that nobody has called yet. To call nobody is a system call, too.
    asleep: usize,
}

struct Shared<J> {
    queue: Mutex<Queue<J>>,
    come: Condvar,
    /// Jobs that were handed over and are not done.
    left: AtomicUsize,
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` when there will be none any more.
    fn next(&self) -> Option<J> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.ended {
                return None;
            }
            queue.asleep += 1;
            queue = self.come.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Threads that do jobs of one kind, in the order in which these come. Dropping it lets them end
/// with the last job.
pub(crate) struct Pool<J>(Arc<Shared<J>>);

impl<J: Send + 'static> Pool<J> {
    /// Starts threads, each of which does jobs with a `work` of its own.
    pub(crate) fn new<W: Fn(J) + Send + 'static>(
        name: &str,
        threads: usize,
        work: impl Fn() -> W,
    ) -> io::Result<Self> {
        let queue = Mutex::new(Queue { jobs: VecDeque::new(), ended: false, asleep: 0 });
        let left = AtomicUsize::new(0);
        let pool = Pool(Arc::new(Shared { queue, come: Condvar::new(), left }));
        for _ in 0..threads {
            let (shared, work) = (pool.0.clone(), work());
            spawn(name, move || {
                while let Some(job) = shared.next() {
                    work(job);
                    shared.left.fetch_sub(1, Ordering::Release);
                }
            })?;
        }
        Ok(pool)
    }

    /// Whether its threads have nothing to do, nor are at the end of something.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.left.load(Ordering::Acquire) == 0
    }

    /// Hands over a job.
    pub(crate) fn push(&self, job: J) {
        self.0.left.fetch_add(1, Ordering::Relaxed);
        let mut queue = self.0.lock();
        queue.jobs.push_back(job);
        if let Some(others) = queue.asleep.checked_sub(1) {
            queue.asleep = others;
            drop(queue);
            self.0.come.notify_one();
        }
    }
}

impl<J> Drop for Pool<J> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.come.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn jobs_handed_over_are_all_done_before_the_threads_are_idle() {
        let (done, results) = channel();
        let pool = Pool::new("test", 3, || {
            let done = done.clone();
            move |job: u32| done.send(job).unwrap_or_default()
        })
        .unwrap();
        assert!(pool.is_idle());
        (0..100).for_each(|job| pool.push(job));
        while !pool.is_idle() {
            thread::yield_now();
        }
        drop((pool, done));
        let mut all: Vec<_> = results.iter().collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
