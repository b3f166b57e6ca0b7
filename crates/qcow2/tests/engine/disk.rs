// SPDX-License-Identifier: Apache-2.0
//! Storage in memory that forgets what was not synced, and an executor that picks who runs next by
//! chance. Operations are done in the middle of waiting, or not, or in part, when they are dropped.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use qcow2::{Extent, Storage};
use sgl::Sgl;

pub(crate) const SECTOR: usize = 512;

/// Numbers by chance.
#[derive(Clone)]
pub(crate) struct Random(Rc<Cell<u64>>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(Rc::new(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Less than `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
enum Change {
    Sector(u64, Box<[u8; SECTOR]>),
    Len(u64),
}

#[derive(Default)]
struct State {
    cache: Vec<u8>,
    stable: Vec<u8>,
    /// Sectors that were written to, and not zeroed since.
    written: BTreeSet<u64>,
    /// Since the last sync.
    log: Vec<Change>,
    /// Operations fail with this chance, one in n; 0: never.
    faults: u64,
    /// The highest length.
    limit: u64,
}

impl State {
    fn apply(to: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Sector(at, bytes) => {
                let start = *at as usize * SECTOR;
                if to.len() < start + SECTOR {
                    to.resize(start + SECTOR, 0);
                }
                to[start..start + SECTOR].copy_from_slice(&bytes[..]);
            }
            Change::Len(len) => to.resize(*len as usize, 0),
        }
    }

    fn change(&mut self, change: Change) {
        Self::apply(&mut self.cache, &change);
        if let Change::Sector(at, bytes) = &change
            && bytes.iter().any(|byte| *byte != 0)
        {
            self.written.insert(*at);
        }
        self.log.push(change);
    }
}

/// A file in memory.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Rc<RefCell<State>>,
    random: Random,
}

impl Disk {
    pub(crate) fn new(content: Vec<u8>, random: &Random) -> Self {
        let len = content.len().next_multiple_of(SECTOR);
        let mut cache = content;
        cache.resize(len, 0);
        let sectors = (0..).zip(cache.chunks(SECTOR));
        let written = sectors.filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0));
        let written = written.map(|(at, _)| at).collect();
        let state =
            State { stable: cache.clone(), cache, written, limit: 1 << 40, ..State::default() };
        Disk { state: Rc::new(RefCell::new(state)), random: random.clone() }
    }

    /// Returns what was set before.
    pub(crate) fn set_faults(&self, one_in: u64) -> u64 {
        std::mem::replace(&mut self.state.borrow_mut().faults, one_in)
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.state.borrow().cache.clone()
    }

    /// The file after the death of its writer: what was written is in the page cache, and not on
    /// stable storage.
    pub(crate) fn killed(&self) -> Disk {
        let state = self.state.borrow();
        let state = State {
            cache: state.cache.clone(),
            stable: state.stable.clone(),
            written: state.written.clone(),
            log: state.log.clone(),
            limit: 1 << 40,
            ..State::default()
        };
        Disk { state: Rc::new(RefCell::new(state)), random: self.random.clone() }
    }

    /// The file after loss of power.
    pub(crate) fn cut(&self) -> Disk {
        let state = self.state.borrow();
        let mut content = state.stable.clone();
        let random = &self.random;
        // How much is there; one in n is not, or is.
        let (policy, n) = (random.below(6), 1 + random.below(8));
        let special = random.below(state.log.len().max(1) as u64);
        let keep = |number: u64| match policy {
            0 => false,
            1 => true,
            2 => random.one_in(n),
            3 => !random.one_in(n),
            4 => number == special,
            _ => number != special,
        };
        let mut versions: BTreeMap<u64, Vec<&[u8; SECTOR]>> = BTreeMap::new();
        let mut lens = vec![content.len() as u64];
        for change in &state.log {
            match change {
                Change::Sector(at, bytes) => versions.entry(*at).or_default().push(bytes),
                Change::Len(len) => lens.push(*len),
            }
        }
        let mut len = lens[random.below(lens.len() as u64) as usize];
        for (number, (at, versions)) in versions.iter().enumerate() {
            if keep(number as u64) {
                let pick = versions[random.below(versions.len() as u64) as usize];
                State::apply(&mut content, &Change::Sector(*at, Box::new(*pick)));
                if pick.iter().any(|byte| *byte != 0) {
                    len = len.max((at + 1) * SECTOR as u64);
                }
            }
        }
        content.resize(len as usize, 0);
        Disk::new(content, random)
    }

    /// Waits a little, or not.
    async fn pause(&self) {
        let mut left = match self.random.below(32) {
            0..16 => 0,
            16..31 => self.random.below(4),
            _ => self.random.below(400),
        };
        std::future::poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn fault(&self) -> bool {
        let faults = self.state.borrow().faults;
        faults > 0 && self.random.one_in(faults)
    }

    /// Does some changes, between pauses.
    async fn perform(&self, changes: Vec<Change>) -> io::Result<()> {
        self.pause().await;
        let fault = self.fault();
        let split = if fault || self.random.one_in(4) {
            self.random.below(changes.len() as u64 + 1) as usize
        } else {
            changes.len()
        };
        for change in &changes[..split] {
            self.state.borrow_mut().change(change.clone());
        }
        if split < changes.len() || self.random.one_in(4) {
            self.pause().await;
        }
        if fault {
            return Err(io::Error::from_raw_os_error(5));
        }
        for change in &changes[split..] {
            self.state.borrow_mut().change(change.clone());
        }
        Ok(())
    }
}

impl Storage for Disk {
    async fn length(&self) -> io::Result<u64> {
        Ok(self.state.borrow().cache.len() as u64)
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        self.pause().await;
        if self.fault() {
            return Err(io::Error::from_raw_os_error(5));
        }
        data.fill(0..data.len(), 0);
        let state = self.state.borrow();
        let start = (offset as usize).min(state.cache.len());
        let end = (start + data.len()).min(state.cache.len());
        data.write_at(0, &state.cache[start..end]);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(512) && data.len() % 512 == 0, "{offset} {}", data.len());
        if offset + data.len() as u64 > self.state.borrow().limit {
            return Err(io::Error::from_raw_os_error(28));
        }
        let mut changes = Vec::new();
        for at in 0..data.len() / SECTOR {
            let mut sector = Box::new([0; SECTOR]);
            data.read_at(at * SECTOR, &mut sector[..]);
            changes.push(Change::Sector(offset / 512 + at as u64, sector));
        }
        self.perform(changes).await
    }

    async fn zero(&self, offset: u64, len: u64, _punch: bool) -> io::Result<()> {
        assert!(
            offset + len <= self.length().await?.next_multiple_of(1 << 21),
            "zero past the end"
        );
        let end = (offset + len).min(self.length().await?);
        let sectors = offset / 512..end.max(offset).div_ceil(512);
        let punched = sectors.clone();
        let _punched = Punched(self, punched);
        self.perform(sectors.map(|at| Change::Sector(at, Box::new([0; SECTOR]))).collect()).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.state.borrow().limit {
            return Err(io::Error::from_raw_os_error(28));
        }
        let now = self.length().await?;
        let mut changes: Vec<_> = (len / 512..now.div_ceil(512))
            .map(|at| Change::Sector(at, Box::new([0; SECTOR])))
            .collect();
        changes.push(Change::Len(len));
        for change in changes {
            self.state.borrow_mut().change(change);
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        let count = self.state.borrow().log.len();
        self.pause().await;
        self.pause().await;
        let mut state = self.state.borrow_mut();
        // Another one may have taken a part.
        let count = count.min(state.log.len());
        let done: Vec<_> = state.log.drain(..count).collect();
        for change in &done {
            State::apply(&mut state.stable, change);
        }
        Ok(())
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        let state = self.state.borrow();
        let sector = |at: u64| !state.written.contains(&at);
        let zero = sector(offset / 512);
        let mut at = offset / 512 + 1;
        while at * 512 < offset + len && sector(at) == zero {
            at += 1;
        }
        let len = (at * 512 - offset).min(len);
        Ok((if zero { Extent::Zero } else { Extent::Data }, len))
    }
}

/// When a range has been zeroed wholly, it is a hole.
struct Punched<'a>(&'a Disk, std::ops::Range<u64>);

impl Drop for Punched<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        let State { written, cache, .. } = &mut *state;
        written.retain(|at| {
            let start = (*at as usize * SECTOR).min(cache.len());
            let end = (start + SECTOR).min(cache.len());
            !self.1.contains(at) || cache[start..end].iter().any(|byte| *byte != 0)
        });
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    flag: Arc<Flag>,
    id: u64,
}

/// Futures that run side by side. One that nobody wakes is not polled.
pub(crate) struct Tasks<'a, T> {
    tasks: Vec<Task<'a, T>>,
    random: Random,
}

impl<'a, T> Tasks<'a, T> {
    pub(crate) fn new(random: &Random) -> Self {
        Tasks { tasks: Vec::new(), random: random.clone() }
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn push(&mut self, id: u64, future: impl Future<Output = T> + 'a) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.tasks.push(Task { future: Box::pin(future), flag, id });
    }

    /// Drops one; returns its number.
    pub(crate) fn drop_one(&mut self) -> Option<u64> {
        if self.tasks.is_empty() {
            return None;
        }
        let at = self.random.below(self.tasks.len() as u64) as usize;
        Some(self.tasks.swap_remove(at).id)
    }

    /// Polls one that was woken; returns it if it is done.
    pub(crate) fn step(&mut self) -> Option<(u64, T)> {
        let woken: Vec<usize> = (0..self.tasks.len())
            .filter(|at| self.tasks[*at].flag.0.load(Ordering::SeqCst))
            .collect();
        assert!(!woken.is_empty() || self.tasks.is_empty(), "all wait, and nobody is woken");
        let at = *woken.get(self.random.below(woken.len() as u64) as usize)?;
        let task = &mut self.tasks[at];
        task.flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(task.flag.clone());
        match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => None,
            Poll::Ready(value) => Some((self.tasks.swap_remove(at).id, value)),
        }
    }
}

/// Runs one future to its end.
pub(crate) fn run<T>(random: &Random, future: impl Future<Output = T>) -> T {
    let mut tasks = Tasks::new(random);
    tasks.push(0, future);
    loop {
        if let Some((_, value)) = tasks.step() {
            return value;
        }
    }
}
