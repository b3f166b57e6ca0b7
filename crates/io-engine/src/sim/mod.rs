// SPDX-License-Identifier: Apache-2.0
//! A simulated world: files, a page cache over a disk, and time, in memory, driven by a seed. The
//! third driver of an engine ([`Engine::simulated`](crate::Engine::simulated)), for tests alone.
//!
//! Files ([`World::create`], [`World::open`]) are [`crate::File`]s: all of that module's code runs
//! above the world as it does above the kernel. What is awaited becomes events in a queue; when
//! nothing can go on, time jumps to the next. The same seed gives the same run: nothing depends on
//! real time, on addresses or on the order of a hash map. (Of `std::time::Instant` the world knows
//! nothing; [`crate::sleep`] and [`crate::timeout`] follow its time.)
//!
//! - A write is in the page cache at some moment between its start and its end, a long one in
//!   parts; so reads and writes that run side by side see each other in any order.
//! - Results are short, late, errors, or never come, as [`Knobs`] say. A sync that fails has lost
//!   some of the pages, and the next one succeeds, as on Linux.
//! - An operation whose future is dropped has happened wholly, in part, or not.
//! - [`World::crash`] makes the world that is found after a kill or a loss of power at this moment;
//!   this one goes on. So many crashes are tried on the way of one run
//!   ([`Engine::run_until`](crate::Engine::run_until) stops at any step).
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use sgl::Sgl;

mod contents;
mod knobs;
mod node;
mod ops;
mod pages;
mod rng;
#[cfg(test)]
mod tests;

pub use contents::{Contents, Copied};
pub use knobs::{Knobs, Power};
pub use rng::Rng;

use crate::core::{self, Core, Driver};
use crate::file::File;
use crate::op::{Code, Descriptor};
use crate::poller::Poller;
use node::Node;
use ops::Pending;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Writes, and is stable at its end.
    WriteThrough,
    /// Brings what was written to stable storage.
    Sync,
    /// Makes a hole or zeroes, or takes space.
    Allocate,
    /// Changes the length.
    SetLen,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It has begun, and nothing has happened.
    Begun,
    /// A part has.
    Partly,
    /// All has, and nobody was told.
    Done,
    /// Its result has been given.
    Told,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Virtual time in nanoseconds.
    pub time: u64,
    /// Which step of the world it was.
    pub step: u64,
    /// The file's name.
    pub file: String,
    /// What the operation does.
    pub kind: Kind,
    /// How far it is now.
    pub phase: Phase,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// A count of bytes, or a negative errno, once it is there.
    pub result: Option<i32>,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Event { time, step, file, kind, phase, offset, len, result } = self;
        write!(f, "{step:>8} {time:>12} ns {file} {kind:?} {offset:#x}+{len:#x} {phase:?}")?;
        match result {
            Some(result) => write!(f, " = {result}"),
            None => Ok(()),
        }
    }
}

/// What a crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process alone: the page cache stays, and is not on stable storage yet.
    Kill,
    /// The page cache too.
    Power(Power),
}

/// See the module's text. Clones are the same world.
#[derive(Clone)]
pub struct World(Rc<Inner>);

struct Inner {
    id: u64,
    state: RefCell<State>,
    /// For descriptors of the real kernel.
    poller: RefCell<Option<Poller>>,
}

struct State {
    rng: Rng,
    knobs: Knobs,
    /// Nanoseconds.
    now: u64,
    /// Changes of files so far.
    seq: u64,
    steps: u64,
    names: BTreeMap<String, u32>,
    nodes: Vec<Node>,
    /// By the number of their slots in the engine.
    ops: Vec<Option<Pending>>,
    /// When, in which order, of which slot, of which operation.
    events: BinaryHeap<Reverse<(u64, u64, u32, u64)>>,
    next_id: u64,
    fingerprint: u64,
    failed_syncs: u64,
    last: Option<(Kind, Phase)>,
    log: VecDeque<Event>,
    log_limit: usize,
    watched: usize,
}

/// Which worlds are which, so that a file of another is noticed.
static WORLDS: AtomicU64 = AtomicU64::new(0);

impl World {
    /// A world without files.
    pub fn new(seed: u64, knobs: Knobs) -> Self {
        let id = WORLDS.fetch_add(1, Ordering::Relaxed);
        let state = State {
            rng: Rng::new(seed),
            knobs,
            now: 1,
            seq: 0,
            steps: 0,
            names: BTreeMap::new(),
            nodes: Vec::new(),
            ops: Vec::new(),
            events: BinaryHeap::new(),
            next_id: 0,
            fingerprint: seed,
            failed_syncs: 0,
            last: None,
            log: VecDeque::new(),
            log_limit: 0,
            watched: 0,
        };
        World(Rc::new(Inner { id, state: RefCell::new(state), poller: RefCell::default() }))
    }

    fn file(&self, node: u32) -> File {
        File::simulated(Descriptor::Simulated { world: self.0.id, node })
    }

    /// A new empty file of this name, open. One that had the name is gone.
    pub fn create(&self, name: &str) -> File {
        self.put(name, &[])
    }

    /// As [`World::create`], with a content that is on stable storage.
    pub fn put(&self, name: &str, content: &[u8]) -> File {
        let mut state = self.0.state.borrow_mut();
        let node = u32::try_from(state.nodes.len()).unwrap_or(u32::MAX);
        state.nodes.push(Node::stable(content));
        state.names.insert(name.to_owned(), node);
        drop(state);
        self.file(node)
    }

    /// Opens a file once more.
    ///
    /// # Errors
    /// ENOENT.
    pub fn open(&self, name: &str) -> io::Result<File> {
        match self.0.state.borrow().names.get(name) {
            Some(&node) => Ok(self.file(node)),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// The names of its files.
    pub fn names(&self) -> Vec<String> {
        self.0.state.borrow().names.keys().cloned().collect()
    }

    /// Changes what happens to operations that begin from now on.
    pub fn set_knobs(&self, knobs: Knobs) {
        self.0.state.borrow_mut().knobs = knobs;
    }

    /// What happens to operations.
    pub fn knobs(&self) -> Knobs {
        self.0.state.borrow().knobs
    }

    /// Virtual time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.0.state.borrow().now
    }

    /// Steps so far: operations that were done at once, and events.
    pub fn steps(&self) -> u64 {
        self.0.state.borrow().steps
    }

    /// A number that tells two runs apart with near certainty.
    pub fn fingerprint(&self) -> u64 {
        self.0.state.borrow().fingerprint
    }

    /// How many syncs have failed and lost pages.
    pub fn failed_syncs(&self) -> u64 {
        self.0.state.borrow().failed_syncs
    }

    /// What the last step was.
    pub fn place(&self) -> Option<(Kind, Phase)> {
        self.0.state.borrow().last
    }

    /// Keeps the last `limit` events for [`World::log`].
    pub fn set_log(&self, limit: usize) {
        let mut state = self.0.state.borrow_mut();
        state.log_limit = limit;
        while state.log.len() > limit {
            state.log.pop_front();
        }
    }

    /// The last events.
    pub fn log(&self) -> Vec<Event> {
        self.0.state.borrow().log.iter().cloned().collect()
    }

    /// The world as it is found after a crash now: a new one, whose seed is `seed`. What is in
    /// flight has happened wholly, in part, or not.
    pub fn crash(&self, crash: Crash, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let state = self.0.state.borrow();
        let mut nodes = state.nodes.clone();
        let mut seq = state.seq;
        for op in state.ops.iter().flatten() {
            seq += 1;
            op.abandon(&mut nodes, seq, &mut rng);
        }
        if let Crash::Power(power) = crash {
            let oldest = nodes.iter().filter_map(Node::oldest).min().unwrap_or(seq);
            let cut = oldest + rng.below(seq + 2 - oldest.min(seq));
            for node in &mut nodes {
                *node = node.without_power(power, cut, &mut rng);
            }
        }
        let world = World::new(rng.draw(), state.knobs);
        {
            let mut after = world.0.state.borrow_mut();
            after.names.clone_from(&state.names);
            after.nodes = nodes;
            after.seq = seq + 1;
            after.now = state.now;
        }
        world
    }

    // What the driver does.

    pub(crate) fn start(
        &self,
        fd: &Descriptor,
        code: Code,
        data: Sgl<'static>,
        at: u64,
        slot: u32,
    ) {
        let node = self.node(fd);
        self.0.state.borrow_mut().start(node, code, data, at, slot);
    }

    /// The number of an open file; `None` when it is of another world.
    fn node(&self, fd: &Descriptor) -> Option<u32> {
        match fd {
            Descriptor::Simulated { world, node } if *world == self.0.id => Some(*node),
            _ => None,
        }
    }

    pub(crate) fn cancel(&self, slot: u32) {
        self.0.state.borrow_mut().cancel(slot);
    }

    /// Ends a turn: one event, unless something else is to be done first.
    pub(crate) fn turn(&self, core: &Core) -> io::Result<()> {
        if self.0.state.borrow().watched > 0
            && let Some(poller) = &*self.0.poller.borrow()
        {
            poller.glance(core)?;
        }
        let busy = core.notify.is_notified();
        let timer = core.timers.borrow().first();
        let (told, stuck) = {
            let mut state = self.0.state.borrow_mut();
            // What runs takes time, too.
            let knobs = state.knobs;
            state.now += 50 + knobs.leap(&mut state.rng);
            let event = state.next_event();
            let next = [event, timer].into_iter().flatten().min();
            match next {
                None => (None, !busy),
                Some(at) if at > state.now && busy => (None, false),
                Some(at) => {
                    state.now = state.now.max(at);
                    let due = event.is_some_and(|event| timer.is_none_or(|timer| event < timer));
                    (if due { state.step() } else { None }, false)
                }
            }
        };
        if let Some((slot, result)) = told {
            core.complete(u64::from(slot), result, false);
        }
        if stuck {
            let why = "the simulated world stands still: what is awaited never comes";
            return Err(io::Error::new(io::ErrorKind::Deadlock, why));
        }
        Ok(())
    }

    pub(crate) fn watch(
        &self,
        core: &Core,
        f: impl FnOnce(&Poller) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut poller = self.0.poller.borrow_mut();
        if poller.is_none() {
            *poller = Some(Poller::new(&core.notify)?);
        }
        if let Some(poller) = &*poller {
            f(poller)?;
            self.0.state.borrow_mut().watched += 1;
        }
        Ok(())
    }

    pub(crate) fn unwatch(&self, f: impl FnOnce(&Poller)) {
        if let Some(poller) = &*self.0.poller.borrow() {
            f(poller);
            self.0.state.borrow_mut().watched -= 1;
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World({} steps)", self.steps())
    }
}

/// The world of the engine that runs on this thread.
fn with_world<T>(fd: &Descriptor, f: impl FnOnce(&mut State, u32) -> T) -> io::Result<T> {
    let core = core::current_or_error()?;
    let Driver::Sim(world) = &core.driver else { return Err(stranger()) };
    let node = world.node(fd).ok_or_else(stranger)?;
    Ok(f(&mut world.0.state.borrow_mut(), node))
}

fn stranger() -> io::Error {
    io::Error::other("a file of a simulated world is used in an engine of another")
}

/// What [`crate::op::now`] does for a file of the world.
pub(crate) fn now(fd: &Descriptor, code: Code, data: &Sgl<'_>, offset: u64) -> io::Result<usize> {
    let result = with_world(fd, |state, node| state.inline(node, code, data, offset))?;
    crate::op::outcome(result)
}

pub(crate) fn len(fd: &Descriptor) -> io::Result<u64> {
    with_world(fd, |state, node| state.nodes[node as usize].len())
}

pub(crate) fn set_len(fd: &Descriptor, len: u64) -> io::Result<()> {
    let result = with_world(fd, |state, node| state.set_len(node, len))?;
    crate::op::outcome(result).map(drop)
}

pub(crate) fn data_extent(
    fd: &Descriptor,
    offset: u64,
) -> io::Result<Option<std::ops::Range<u64>>> {
    let extent = with_world(fd, |state, node| state.nodes[node as usize].data_extent(offset))?;
    Ok(extent.map(|(start, end)| start..end))
}
