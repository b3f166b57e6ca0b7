// SPDX-License-Identifier: Apache-2.0
//! Runs a [`Record`] and tries crashes on its way: at drawn steps of the world the state after a
//! kill or a loss of power is made aside, its image checked, opened and read, and judged; then the
//! run goes on, now and then from the crash.
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use io_engine::Engine;
use io_engine::sim::{self, Crash, Knobs, Power, Rng, World};
use qcow2::{Image, Repair};
use sgl::Sgl;

use crate::crash::check::{Found, check};
use crate::crash::image::{self, State};
use crate::crash::life::Life;
use crate::crash::model::{After, INITIAL, Model, fill};
use crate::crash::planted::Planted;
use crate::crash::qemu::Qemu;
use crate::crash::target::{
    self, BACKING, DATA, Disk, IMAGE, Machine, Stack, Target, open_image, text,
};
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

/// The world at the beginning, and its model.
fn begin(record: &Record) -> (World, Model) {
    let world = World::new(record.seed, Knobs::CALM);
    let content = |sectors: u64, holds: &dyn Fn(u64) -> bool| {
        let len = usize::try_from(sectors).unwrap_or(0) * record.unit;
        let mut bytes = vec![0; len];
        for (sector, bytes) in (0..).zip(bytes.chunks_mut(record.unit)) {
            if holds(sector) {
                fill(record.seed, sector, INITIAL, bytes);
            }
        }
        bytes
    };
    // Some of the backing file is zero.
    let below = |sector: u64| sector < record.backing && !(sector / 24).is_multiple_of(3);
    let (image, data) =
        image::create(&record.format, &content(record.sectors, &|_| true), record.seed);
    world.put(IMAGE, &image);
    if record.format.data_file {
        world.put(DATA, &data);
    }
    if record.format.backing {
        world.put(BACKING, &content(record.backing, &below));
    }
    let cluster = (1u64 << record.format.cluster_bits) / record.unit as u64;
    let clusters = usize::try_from(record.sectors.div_ceil(cluster)).unwrap_or(0);
    let states: Vec<State> = record.format.filled.states(record.seed).take(clusters).collect();
    let holds = |sector: u64| {
        let state = usize::try_from(sector / cluster).ok().and_then(|n| states.get(n));
        match state {
            Some(State::Data | State::Compressed) => true,
            Some(State::Preallocated | State::Zero) => false,
            Some(State::Unallocated) | None => below(sector),
        }
    };
    let model = Model::new(record.seed, record.unit, record.sectors, holds);
    (world, model)
}

/// A run: what it does, and what it has come to.
struct Run<'a> {
    record: &'a Record,
    model: &'a RefCell<Model>,
    qemu: Option<&'a Qemu>,
    figures: &'a mut Figures,
    /// Draws the crashes.
    rng: Rng,
    /// Memory for the image's file, used for one crash after the other.
    content: Vec<u8>,
    /// What was found on the disk after the last crash.
    found: Vec<u8>,
}

/// Where a run goes on after a crash.
struct Crashed {
    world: World,
    after: After,
    /// What was found: size in sectors. The bytes are in [`Run::found`].
    size: u64,
}

fn on<T>(world: &World, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let engine = Engine::simulated(world).map_err(|e| e.to_string())?;
    engine.block_on(work).map_err(|e| e.to_string())?
}

/// Reads all of an image, over what certainly is not there.
async fn read_all(image: &Image<Disk>, bytes: &mut Vec<u8>) -> Result<(), String> {
    bytes.resize(usize::try_from(image.size()).unwrap_or(0), 0);
    bytes.fill(0xff);
    let read = image.read(&Sgl::from_slice(bytes), 0).await;
    read.map_err(|e| format!("reading all: {}", text(&e)))
}

impl Run<'_> {
    /// Checks the image of a world.
    fn check(&mut self, world: &World) -> Result<Found, String> {
        world.content_into(IMAGE, &mut self.content);
        check(&self.content).map_err(|why| format!("the image: {why}"))
    }

    /// Finds what is on the disk of a world after a crash: size in sectors, and [`Run::found`].
    fn find(&mut self, world: &World, after: After) -> Result<u64, String> {
        let record = self.record;
        let found = self.check(world)?;
        self.figures.leaks += found.leaks;
        // Of a dirty image the refcounts say nothing; qemu-img would call that errors.
        if let Some(qemu) = self.qemu
            && qemu.wants(self.figures.crashes)
            && !found.dirty
        {
            self.figures.by_qemu += 1;
            let files = [IMAGE, DATA, BACKING].map(|name| (name, world.content(name)));
            let files: Vec<_> =
                files.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))).collect();
            qemu.check(&files).map_err(|why| format!("the image: {why}"))?;
        }
        world.set_knobs(Knobs::INSTANT);
        let found = &mut self.found;
        let size = on(world, async {
            let image = open_image(world, record, true).await?;
            read_all(&image, found).await?;
            Ok(image.size() / record.unit as u64)
        })?;
        self.model.borrow().judge_all(after, size, &self.found)?;
        Ok(size)
    }

    /// Has the engine check an image, and opens it for writing, as the next process does, and
    /// closes it: that changes nothing, and leaves no errors. In a world that is not needed any
    /// more.
    fn reopen(&mut self, world: &World) -> Result<(), String> {
        let record = self.record;
        let before = self.check(world)?;
        let found = &self.found;
        on(world, async {
            let file = world.open(IMAGE).map_err(|e| e.to_string())?;
            let report = qcow2::check(&file, Repair::None).await;
            let report = report.map_err(|e| format!("checking: {}", text(&e)))?;
            if !before.dirty && (report.corruptions, report.leaks) != (0, before.leaks) {
                return Err(format!("the image: {before:?}, but by the engine {report:?}"));
            }
            let image = open_image(world, record, false).await?;
            let mut bytes = Vec::new();
            read_all(&image, &mut bytes).await?;
            image.close().await.map_err(|e| format!("closing: {}", text(&e)))?;
            if &bytes == found { Ok(()) } else { Err("it reads differently".to_owned()) }
        })?;
        let after = self.check(world)?;
        self.figures.kept += after.leaks;
        Ok(())
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
        let size = found.map_err(|why| format!("after {crash:?}: {why}"))?;
        if fatal {
            return Ok(Some(Crashed { world: crashed, after, size }));
        }
        if self.rng.chance(REOPENED) {
            let opened = self.reopen(&crashed);
            opened.map_err(|why| format!("opened after {crash:?}: {why}"))?;
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
                return Ok(crashed);
            }
        }
    }

    fn run<T: Target>(&mut self, mut world: World, log: usize) -> Result<(), Failure> {
        let (cursor, operations) = (Cell::new(0), Cell::new(0));
        let life = Life {
            record: self.record,
            model: self.model,
            machine: Machine::default(),
            cursor: &cursor,
            operations: &operations,
        };
        let mut result = Ok(());
        while result.is_ok() && cursor.get() < self.record.ops.len() {
            world.set_log(log);
            let (first, start) = (world.steps(), world.now());
            let lived = self.live::<T>(&world, &life);
            self.figures.steps += world.steps() - first;
            self.figures.nanoseconds += world.now() - start;
            match lived {
                Ok(Crashed { world: next, after, size }) => {
                    self.model.borrow_mut().adopt(after, size, &self.found);
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
    let (content, found) = (Vec::new(), Vec::new());
    let rng = Rng::new(record.crash_seed);
    let mut run = Run { record, model: &model, qemu, figures, rng, content, found };
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
