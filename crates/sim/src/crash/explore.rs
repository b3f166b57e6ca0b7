// SPDX-License-Identifier: Apache-2.0
//! Runs a [`Record`] and tries crashes on its way: at drawn steps of the world the state after a
//! kill or a loss of power is made aside, its image checked, opened and read, and judged; then the
//! run goes on, now and then from the crash.
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use io_engine::Engine;
use io_engine::sim::{self, Crash, Power, Rng, World};

use crate::crash::begin::begin;
use crate::crash::findings::{Finder, Findings};
use crate::crash::image::{KEPT, TRACKING};
use crate::crash::life::Life;
use crate::crash::model::{After, Model};
use crate::crash::planted::Planted;
use crate::crash::qemu::Qemu;
use crate::crash::target::{self, BACKING, BASE, DATA, IMAGE, Machine, Stack, Target};
use crate::crash::workload::{Driven, Record};

/// What runs did, in sum.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Steps of the worlds in which the runs went on.
    pub steps: u64,
    /// Virtual time of these, in nanoseconds.
    pub nanoseconds: u64,
    /// Crashes that were judged.
    pub crashes: u64,
    /// Of these, how many qemu-img has judged, too.
    pub by_qemu: u64,
    /// Operations that were acknowledged.
    pub operations: u64,
    /// Clusters that were leaked after crashes.
    pub leaks: u64,
    /// Clusters that were leaked still when the image had been opened and closed after that.
    pub kept: u64,
    /// On which step (kind and phase of an operation) how many crashes came.
    pub places: BTreeMap<(sim::Kind, sim::Phase), u64>,
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What is wrong.
    pub why: String,
    /// When: the step of the world.
    pub step: u64,
    /// The last events of the world, if its log was on.
    pub log: Vec<sim::Event>,
}

/// Crashes after which the image is opened for writing, too, in a million.
const REOPENED: u32 = 100_000;

/// A run: what it does, and what it has come to.
struct Run<'a> {
    record: &'a Record,
    model: &'a RefCell<Model>,
    qemu: Option<&'a Qemu>,
    figures: &'a mut Figures,
    /// Draws the crashes.
    rng: Rng,
    finder: Finder,
    /// Whether the image was closed by its process, and nothing was done since.
    closed: Rc<Cell<bool>>,
    /// Whether the run has gone on from a crash, in the middle of something.
    interrupted: bool,
}

/// Where a run goes on after a crash.
struct Crashed {
    world: World,
    after: After,
    found: Rc<Findings>,
}

impl Run<'_> {
    /// Judges the bitmaps that were found.
    fn judge_bitmaps(&self, found: &Findings) -> Result<(), String> {
        let Findings { bitmaps, bytes, .. } = found;
        let (model, record) = (self.model.borrow(), self.record);
        for bitmap in bitmaps {
            model.judge_bitmap(bitmap, bytes)?;
            if bitmap.name == KEPT && bitmap.counts() && !record.changes_size() {
                bitmap.judge_kept(bytes.len() as u64)?;
            }
        }
        let counts = |name| bitmaps.iter().any(|bitmap| bitmap.name == name && bitmap.counts());
        let good = self.closed.get() && !self.interrupted && !record.is_faulty();
        if good && record.format.bitmaps.is_some() && !(counts(TRACKING) && counts(KEPT)) {
            return Err(format!("closed in good order, and bitmaps do not count: {bitmaps:?}"));
        }
        Ok(())
    }

    /// Finds and judges what is in a world after a crash.
    fn find(&mut self, world: &World, after: After) -> Result<Rc<Findings>, String> {
        let found = self.finder.find(world, self.record)?;
        self.figures.leaks += found.check.leaks;
        // Of a dirty image the refcounts say nothing; qemu-img would call that errors.
        if let Some(qemu) = self.qemu
            && qemu.wants(self.figures.crashes)
            && !found.check.dirty
            && found.check.flags == 0
        {
            self.figures.by_qemu += 1;
            let files = [IMAGE, DATA, BACKING, BASE].map(|name| (name, world.content(name)));
            let files: Vec<_> =
                files.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))).collect();
            qemu.check(&files).map_err(|why| format!("the image: {why}"))?;
        }
        let model = self.model.borrow();
        model.judge_all(after, found.size, &found.bytes)?;
        model.judge_snapshots(after, &found.snapshots)?;
        self.judge_bitmaps(&found)?;
        Ok(found)
    }

    /// Tries a crash; where the run goes on, if it does from here.
    fn crash(&mut self, world: &World, fatal: bool) -> Result<Option<Crashed>, String> {
        let lost = world.failed_syncs() > 0;
        let kill = self.rng.chance(400_000) && !(lost && fatal);
        let (crash, after) = match kill {
            true => (Crash::Kill, After::Kill),
            false => (Crash::Power(Power::drawn(&mut self.rng)), After::Power),
        };
        if let Some(place) = world.place() {
            *self.figures.places.entry(place).or_default() += 1;
        }
        self.figures.crashes += 1;
        let crashed = world.crash(crash, self.rng.draw());
        let found = self.find(&crashed, after);
        let found = found.map_err(|why| format!("after {crash:?}: {why}"))?;
        if fatal {
            return Ok(Some(Crashed { world: crashed, after, found }));
        }
        if self.rng.chance(REOPENED) {
            let kept = self.finder.reopen(&crashed, self.record, &found);
            self.figures.kept += kept.map_err(|why| format!("opened after {crash:?}: {why}"))?;
        }
        Ok(None)
    }

    /// Lives in a world until the end or a fatal crash; with what the next life begins.
    fn live<T: Target>(&mut self, world: &World, life: &Life<'_>) -> Result<Crashed, String> {
        let engine = Engine::simulated(world).map_err(|e| e.to_string())?;
        let mut future = Box::pin(life.run::<T>(world.clone()));
        loop {
            let next = world.steps() + 1 + self.rng.below(self.record.every * 2);
            let ended = match engine.run_until(next, future.as_mut()) {
                Ok(Some(result)) => {
                    result?;
                    true
                }
                Ok(None) => false,
                // Who waits for what never comes is killed at last.
                Err(e) if e.kind() == io::ErrorKind::Deadlock && self.record.knobs.hang > 0 => true,
                Err(e) => return Err(e.to_string()),
            };
            let fatal = ended || self.rng.chance(self.record.fatal);
            if let Some(crashed) = self.crash(world, fatal)? {
                self.interrupted |= !self.closed.get();
                return Ok(crashed);
            }
        }
    }

    fn run<T: Target>(&mut self, mut world: World, log: usize) -> Result<(), Failure> {
        let (cursor, operations, saving) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let closed = self.closed.clone();
        let life = Life {
            record: self.record,
            model: self.model,
            machine: Machine::default(),
            cursor: &cursor,
            operations: &operations,
            saving: &saving,
            closed: &closed,
        };
        let mut result = Ok(());
        while result.is_ok() && cursor.get() < self.record.ops.len() {
            world.set_log(log);
            let (first, start) = (world.steps(), world.now());
            let lived = self.live::<T>(&world, &life);
            self.figures.steps += world.steps() - first;
            self.figures.nanoseconds += world.now() - start;
            match lived {
                Ok(Crashed { world: next, after, found }) => {
                    let Findings { size, bytes, snapshots, .. } = &*found;
                    self.model.borrow_mut().adopt(after, *size, bytes, snapshots);
                    world = next;
                }
                Err(why) => {
                    result = Err(Failure { why, step: world.steps(), log: world.log() });
                }
            }
        }
        self.figures.operations += operations.get();
        result
    }
}

/// Runs a record to its end.
///
/// # Errors
/// The first promise that was not kept.
pub fn run(
    record: &Record,
    qemu: Option<&Qemu>,
    log: usize,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let (world, model) = begin(record);
    let model = RefCell::new(model);
    let mut run = Run {
        record,
        model: &model,
        qemu,
        figures,
        rng: Rng::new(record.crash_seed),
        finder: Finder::default(),
        closed: Rc::default(),
        interrupted: false,
    };
    match record.driven {
        Driven::Engine => run.run::<target::Engine>(world, log),
        Driven::Stack => run.run::<Stack>(world, log),
    }
}

/// Runs a seed with a bug, or none.
///
/// # Errors
/// As [`run`].
pub fn run_seed(seed: u64, bug: Option<Planted>, figures: &mut Figures) -> Result<(), Failure> {
    run(&Record { bug, ..Record::drawn(seed) }, None, 0, figures)
}
