// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to do system calls with the buffers of waiting operations.
//!
//! Threads for what can only block, shared by the engines of the process, started when needed and
//! ended after a while without work.
//!
//! An engine's [`Lane`] has at most [`LANE_THREADS`] of them at a time, and the process
//! [`THREADS`], with one exception: an engine that has work has one. It is started for it where
//! need be, and stays with it until the work is done. So storage that hangs holds up its own
//! engine alone.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::notify::Notify;
use crate::op::Request;

/// Most threads of the process; see above for the exception.
const THREADS: usize = 64;
/// Most threads of an engine.
const LANE_THREADS: usize = 8;
/// How long a thread waits for work.
const LINGER: Duration = Duration::from_secs(10);
/// Stack of a thread, in bytes. System calls and closures of ours need less than 256 KiB; libraries
/// that are called from these may need more. What is not used takes no memory.
const STACK: usize = 2 << 20;

enum Job {
    Io { request: Request, slot: u32, port: Arc<Port> },
    Call(Box<dyn FnOnce() + Send>),
}

impl Job {
    fn run(self) {
        match self {
            Job::Io { request, slot, port } => {
                // SAFETY: whoever started it promised that descriptor and buffers are valid until
                // the completion has been taken; that is below.
                let result = unsafe { request.perform() };
                port.put(slot, result);
            }
            Job::Call(call) => call(),
        }
    }
}

#[derive(Default)]
struct LaneState {
    queue: VecDeque<Job>,
    /// Threads that work for it.
    running: usize,
    /// How often it is among the ready.
    ready: usize,
    /// Whether its engine is gone.
    closed: bool,
}

struct State {
    lanes: Vec<LaneState>,
    /// Lanes whose engine is gone, for reuse.
    free: Vec<usize>,
    /// A lane for each job that may be begun, in order.
    ready: VecDeque<usize>,
    threads: usize,
    idle: usize,
}

struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

static POOL: Pool = Pool {
    state: Mutex::new(State {
        lanes: Vec::new(),
        free: Vec::new(),
        ready: VecDeque::new(),
        threads: 0,
        idle: 0,
    }),
    work: Condvar::new(),
};

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&'static self, lane: usize, job: Job) {
        let mut state = self.lock();
        state.lanes[lane].queue.push_back(job);
        if !state.offer(lane) {
            return;
        }
        if state.ready.len() <= state.idle {
            drop(state);
            self.work.notify_one();
            return;
        }
        // A lane without a thread does not wait for the others': its thread begins with its job.
        let own = state.lanes[lane].running == 0 && state.lanes[lane].ready == 1;
        if state.threads >= THREADS && !own {
            return;
        }
        let first = if own { state.claim(lane) } else { None };
        state.threads += 1;
        drop(state);
        self.start_thread(first);
    }

    fn start_thread(&'static self, first: Option<(usize, Job)>) {
        // The job is out of the closure, which a failed spawn swallows.
        let first = Arc::new(Mutex::new(first));
        let theirs = first.clone();
        let spawned =
            std::thread::Builder::new().name("io-pool".into()).stack_size(STACK).spawn(move || {
                let first = theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
                self.serve(first);
            });
        if let Err(e) = spawned {
            tracing::warn!("cannot start a thread for I/O: {e}");
            // Slow, but it gets done; jobs without a thread wait for one that exists.
            let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut state = self.lock();
            let alone = state.threads == 1;
            let first = first.or_else(|| if alone { state.next() } else { None });
            drop(state);
            self.lock().threads -= 1;
            let mut next = first;
            while let Some((lane, job)) = next.take() {
                job.run();
                next = self.lock().finish(lane);
            }
        }
    }

    /// The life of a thread.
    fn serve(&self, first: Option<(usize, Job)>) {
        let mut next = first;
        let mut state = self.lock();
        loop {
            if let Some((lane, job)) = next.take().or_else(|| state.next()) {
                drop(state);
                job.run();
                state = self.lock();
                next = state.finish(lane);
                continue;
            }
            if state.threads > THREADS {
                break;
            }
            state.idle += 1;
            let (back, waited) =
                self.work.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if waited.timed_out() && state.ready.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl State {
    /// Puts a lane among the ready once more, if it has a job for that and may have a thread.
    fn offer(&mut self, lane: usize) -> bool {
        let it = &mut self.lanes[lane];
        if it.queue.len() <= it.ready || it.running + it.ready >= LANE_THREADS {
            return false;
        }
        it.ready += 1;
        self.ready.push_back(lane);
        true
    }

    /// Takes a lane from the ready, once.
    fn retract(&mut self, lane: usize) {
        if let Some(at) = self.ready.iter().position(|&other| other == lane) {
            self.ready.remove(at);
            self.lanes[lane].ready -= 1;
        }
    }

    /// Takes a job of a ready lane.
    fn claim(&mut self, lane: usize) -> Option<(usize, Job)> {
        self.retract(lane);
        let it = &mut self.lanes[lane];
        let job = it.queue.pop_front()?;
        it.running += 1;
        Some((lane, job))
    }

    /// Takes the job that has been ready longest.
    fn next(&mut self) -> Option<(usize, Job)> {
        let lane = *self.ready.front()?;
        self.claim(lane)
    }

    /// A thread is done with a job of a lane; its next, where it was the lane's last.
    fn finish(&mut self, lane: usize) -> Option<(usize, Job)> {
        self.lanes[lane].running -= 1;
        self.offer(lane);
        if self.lanes[lane].running == 0 {
            if self.lanes[lane].ready > 0 {
                return self.claim(lane);
            }
            self.recycle(lane);
        }
        None
    }

    /// Frees a lane whose engine is gone and whose work is done.
    fn recycle(&mut self, lane: usize) {
        let it = &mut self.lanes[lane];
        if it.closed && it.running == 0 && it.queue.is_empty() {
            it.closed = false;
            self.free.push(lane);
        }
    }
}

/// An engine's place in the pool.
pub(crate) struct Lane(usize);

impl Lane {
    pub(crate) fn new() -> Self {
        let mut state = POOL.lock();
        let index = state.free.pop().unwrap_or_else(|| {
            state.lanes.push(LaneState::default());
            state.lanes.len() - 1
        });
        Lane(index)
    }

    /// Has an operation done; its result goes to `port` under the number `slot`.
    ///
    /// # Safety
    /// Descriptor and buffers stay valid until the result has been taken from `port`.
    pub(crate) unsafe fn start(&self, request: Request, slot: u32, port: &Arc<Port>) {
        POOL.submit(self.0, Job::Io { request, slot, port: port.clone() });
    }

    /// Has a closure called.
    pub(crate) fn call(&self, call: Box<dyn FnOnce() + Send>) {
        POOL.submit(self.0, Job::Call(call));
    }

    /// Takes back an operation that has not been begun; its result is then ECANCELED.
    pub(crate) fn cancel(&self, slot: u32) {
        let mut state = POOL.lock();
        let queue = &mut state.lanes[self.0].queue;
        let at = queue.iter().position(|job| matches!(job, Job::Io { slot: s, .. } if *s == slot));
        let job = at.and_then(|at| queue.remove(at));
        if state.lanes[self.0].ready > state.lanes[self.0].queue.len() {
            state.retract(self.0);
        }
        drop(state);
        if let Some(Job::Io { port, .. }) = job {
            port.put(slot, -libc::ECANCELED);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = POOL.lock();
        state.lanes[self.0].closed = true;
        // Closures may still run; the last one's thread does it then.
        state.recycle(self.0);
    }
}

/// Where an engine gets its results from.
pub(crate) struct Port {
    done: Mutex<VecDeque<(u32, i32)>>,
    /// Whether there is anything in it, to be looked at without the lock.
    any: AtomicBool,
    arrived: Condvar,
    notify: Arc<Notify>,
}

impl Port {
    pub(crate) fn new(notify: Arc<Notify>) -> Self {
        Port {
            done: Mutex::default(),
            any: AtomicBool::new(false),
            arrived: Condvar::new(),
            notify,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u32, i32)>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, slot: u32, result: i32) {
        self.lock().push_back((slot, result));
        self.any.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.notify.notify();
    }

    pub(crate) fn has_results(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Option<(u32, i32)> {
        if !self.has_results() {
            return None;
        }
        let mut done = self.lock();
        let result = done.pop_front();
        self.any.store(!done.is_empty(), Ordering::Release);
        result
    }

    /// Blocks until there is a result.
    pub(crate) fn wait(&self) {
        let done = self.lock();
        let _done = self.arrived.wait_while(done, |done| done.is_empty());
    }
}
