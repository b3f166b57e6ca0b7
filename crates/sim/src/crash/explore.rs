// SPDX-License-Identifier: Apache-2.0
//! Runs a [`Record`] and tries crashes on its way: at drawn steps of the world the state after a
//! kill or a loss of power is made aside, its image checked, opened and read, and judged; then the
//! run goes on, now and then from the crash.
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use io_engine::sim::{self, Crash, Knobs, Power, Rng, World};
use io_engine::{Engine, Started, TaskSet, timeout};
use qcow2::{Image, Options, Parts};
use sgl::Sgl;

use crate::crash::image;
use crate::crash::model::{After, INITIAL, Model, SECTOR, ZERO, fill};
use crate::crash::storage::{Disk, Planted};
use crate::crash::workload::{Kind, Op, Record};

/// What runs did, in sum.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Steps of the worlds in which the runs went on.
    pub steps: u64,
    /// Virtual time of these, in nanoseconds.
    pub nanoseconds: u64,
    /// Crashes that were judged.
    pub crashes: u64,
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
const IMAGE: &str = "image";
const DATA: &str = "data";
const BACKING: &str = "backing";

fn bytes_of(sectors: u64) -> usize {
    usize::try_from(sectors).unwrap_or(usize::MAX).saturating_mul(SECTOR)
}

async fn open(world: &World, record: &Record, read_only: bool) -> Result<Image<Disk>, String> {
    let file = |name, bug, is_data| match world.open(name) {
        Ok(file) => Ok(Disk::new(file, bug, is_data)),
        Err(e) => Err(format!("{name}: {e}")),
    };
    let bug = record.bug.and_then(Planted::of_storage);
    let parts = Parts {
        storage: file(IMAGE, bug, false)?,
        data_file: record.format.data_file.then(|| file(DATA, bug, true)).transpose()?,
        backing: record.format.backing.then(|| file(BACKING, None, false)).transpose()?,
    };
    let cache_bytes = (record.cache > 0).then_some(record.cache);
    let planted = record.bug.and_then(Planted::of_engine);
    let discard = record.discard;
    let options = Options { read_only, cache_bytes, discard, planted, ..Options::default() };
    Image::open(parts, &options).await.map_err(|e| format!("opening: {e}"))
}

/// The world at the beginning, and its model.
fn begin(record: &Record) -> (World, Model) {
    let world = World::new(record.seed, Knobs::CALM);
    let size = record.sectors * SECTOR as u64;
    world.put(IMAGE, &image::create(&record.format, size));
    if record.format.data_file {
        world.put(DATA, &vec![0; bytes_of(record.sectors)]);
    }
    let mut backing = vec![0; bytes_of(record.backing)];
    // Some of it is zero.
    let holds = |sector: u64| sector < record.backing && !(sector / 24).is_multiple_of(3);
    for (sector, bytes) in (0..).zip(backing.chunks_mut(SECTOR)).filter(|&(n, _)| holds(n)) {
        fill(record.seed, sector, INITIAL, bytes);
    }
    if record.format.backing {
        world.put(BACKING, &backing);
    }
    let model = Model::new(record.seed, record.sectors, holds);
    (world, model)
}

struct Life<'a> {
    record: &'a Record,
    model: &'a RefCell<Model>,
    operations: &'a Cell<u64>,
    /// Whether errors are expected.
    faulty: bool,
}

impl Life<'_> {
    /// What an error of an operation means.
    fn failed(&self, op: &Op, e: &qcow2::Error) -> Result<(), String> {
        if self.faulty { Ok(()) } else { Err(format!("operation {op}: {}", text(e))) }
    }

    async fn perform(&self, op: &Op, image: &Image<Disk>) -> Result<(), String> {
        match op.cancel {
            None => self.perform_all(op, image).await,
            Some(after) => {
                let work = self.perform_all(op, image);
                timeout(Duration::from_nanos(after), work).await.unwrap_or(Ok(()))
            }
        }
    }

    async fn perform_all(&self, op: &Op, image: &Image<Disk>) -> Result<(), String> {
        let Life { record, model, .. } = self;
        let size = image.size() / SECTOR as u64;
        let inside = |range: &std::ops::Range<u64>| range.start.min(size)..range.end.min(size);
        let place = |range: &std::ops::Range<u64>| {
            (range.start * SECTOR as u64, (range.end - range.start) * SECTOR as u64)
        };
        match &op.kind {
            Kind::Read(range) => {
                let range = inside(range);
                let data = Sgl::zeroed(bytes_of(range.end - range.start));
                let begun = ReadGuard::new(model);
                let result = image.read(&data, place(&range).0).await;
                let mut bytes = vec![0; data.len()];
                data.read_at(0, &mut bytes);
                match result {
                    Ok(()) => {
                        begun.end(range.start, &bytes).map_err(|why| format!("{op}: {why}"))?
                    }
                    Err(e) => self.failed(op, &e)?,
                }
            }
            Kind::Write(range) => {
                let range = inside(range);
                let mut bytes = vec![0; bytes_of(range.end - range.start)];
                for (sector, bytes) in range.clone().zip(bytes.chunks_mut(SECTOR)) {
                    fill(record.seed, sector, op.number, bytes);
                }
                let change = Change::new(model, range.clone(), op.number);
                let result = if op.number.is_multiple_of(2) {
                    let data = Sgl::zeroed(bytes.len());
                    data.write_at(0, &bytes);
                    image.write(&data, place(&range).0).await
                } else {
                    image.write(&Sgl::from_slice(&mut bytes), place(&range).0).await
                };
                match result {
                    Ok(()) => change.certain(),
                    Err(e) => self.failed(op, &e)?,
                }
            }
            Kind::Discard(range) | Kind::Zero(range, _) => {
                let range = inside(range);
                let change = Change::new(model, range.clone(), ZERO);
                let (offset, len) = place(&range);
                let result = match op.kind {
                    Kind::Zero(_, unmap) => image.write_zeroes(offset, len, unmap).await,
                    _ => image.discard(offset, len).await,
                };
                match result {
                    Ok(()) if matches!(op.kind, Kind::Zero(..)) => change.certain(),
                    Ok(()) => {}
                    Err(e) => self.failed(op, &e)?,
                }
            }
            Kind::Flush => {
                let begun = model.borrow_mut().begin_flush();
                match image.flush().await {
                    Ok(()) => model.borrow_mut().flushed(begun),
                    Err(e) => self.failed(op, &e)?,
                }
            }
            Kind::Map(sector) if *sector < size => {
                let offset = sector * SECTOR as u64;
                if let Err(e) = image.map(offset, image.size() - offset).await {
                    self.failed(op, &e)?;
                }
            }
            Kind::Map(_) => {}
            Kind::Resize(sectors) => {
                let begun = model.borrow_mut().begin_resize(*sectors);
                let result = image.resize(sectors * SECTOR as u64).await;
                model.borrow_mut().end_resize(begun, result.is_ok());
                if let Err(e) = result {
                    self.failed(op, &e)?;
                }
            }
            Kind::Reopen => {}
        }
        self.operations.set(self.operations.get() + 1);
        Ok(())
    }
}

fn text(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}

/// A change of sectors that ends, uncertain, when it is dropped.
struct Change<'a> {
    model: &'a RefCell<Model>,
    range: std::ops::Range<u64>,
    begun: crate::crash::model::Begun,
    certain: bool,
}

impl<'a> Change<'a> {
    fn new(model: &'a RefCell<Model>, range: std::ops::Range<u64>, value: u32) -> Self {
        let begun = model.borrow_mut().begin(range.clone(), value);
        Change { model, range, begun, certain: false }
    }

    fn certain(mut self) {
        self.certain = true;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.model.borrow_mut().end(self.range.clone(), self.begun, self.certain);
    }
}

struct ReadGuard<'a> {
    model: &'a RefCell<Model>,
    begun: Option<crate::crash::model::Begun>,
}

impl<'a> ReadGuard<'a> {
    fn new(model: &'a RefCell<Model>) -> Self {
        ReadGuard { model, begun: Some(model.borrow_mut().begin_read()) }
    }

    fn end(mut self, first: u64, bytes: &[u8]) -> Result<(), String> {
        match self.begun.take() {
            Some(begun) => self.model.borrow_mut().end_read(begun, first, bytes),
            None => Ok(()),
        }
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            let _ = self.model.borrow_mut().end_read(begun, 0, &[]);
        }
    }
}

/// One life of the process: opens the image and does what is left of the list.
async fn live(world: World, life: &Life<'_>, cursor: &Cell<usize>) -> Result<(), String> {
    let record = life.record;
    loop {
        world.set_knobs(Knobs { inline: record.knobs.inline, ..Knobs::CALM });
        let image = Rc::new(open(&world, record, false).await?);
        world.set_knobs(record.knobs);
        let mut set = TaskSet::new();
        let mut again = false;
        while let Some(op) = record.ops.get(cursor.get()) {
            cursor.set(cursor.get() + 1);
            let alone = matches!(op.kind, Kind::Resize(_) | Kind::Reopen);
            while set.len() >= record.depth || (alone && !set.is_empty()) {
                set.next().await.1?;
            }
            if op.kind == Kind::Reopen {
                again = true;
                break;
            }
            let image = image.clone();
            match set.push(async move { life.perform(op, &image).await }) {
                Started::Done(done) => done?,
                Started::Running(_) if alone => set.next().await.1?,
                Started::Running(_) => {}
            }
        }
        while !set.is_empty() {
            set.next().await.1?;
        }
        let begun = life.model.borrow_mut().begin_flush();
        match image.close().await {
            Ok(()) => life.model.borrow_mut().flushed(begun),
            Err(e) if life.faulty => drop(e),
            Err(e) => return Err(format!("closing: {}", text(&e))),
        }
        // A sync that failed has lost pages: only a loss of power tells what is there.
        if !again || world.failed_syncs() > 0 {
            return Ok(());
        }
    }
}

/// What is on the disk of a world after a crash: size in sectors, bytes.
fn find(
    world: &World,
    record: &Record,
    after: After,
    model: &Model,
    figures: &mut Figures,
) -> Result<(u64, Vec<u8>), String> {
    let content = world.content(IMAGE).unwrap_or_default();
    let checked = image::check(&content).map_err(|why| format!("the image: {why}"))?;
    figures.leaks += checked.leaks;
    world.set_knobs(Knobs::INSTANT);
    let engine = Engine::simulated(world).map_err(|e| e.to_string())?;
    let work = async {
        let image = open(world, record, true).await?;
        let data = Sgl::zeroed(usize::try_from(image.size()).unwrap_or(0));
        image.read(&data, 0).await.map_err(|e| format!("reading all: {}", text(&e)))?;
        let mut bytes = vec![0; data.len()];
        data.read_at(0, &mut bytes);
        Ok::<_, String>((image.size() / SECTOR as u64, bytes))
    };
    let (size, bytes) = engine.block_on(work).map_err(|e| e.to_string())??;
    model.judge_all(after, size, &bytes)?;
    Ok((size, bytes))
}

/// Opens an image for writing, as the next process does, and closes it: that changes nothing, and
/// leaves no errors. In a world that is not needed any more.
fn reopen(
    world: &World,
    record: &Record,
    found: &[u8],
    figures: &mut Figures,
) -> Result<(), String> {
    let engine = Engine::simulated(world).map_err(|e| e.to_string())?;
    let work = async {
        let image = open(world, record, false).await?;
        let data = Sgl::zeroed(found.len());
        image.read(&data, 0).await.map_err(|e| format!("reading all: {}", text(&e)))?;
        image.close().await.map_err(|e| format!("closing: {}", text(&e)))?;
        let mut bytes = vec![0; found.len()];
        data.read_at(0, &mut bytes);
        if bytes == found { Ok(()) } else { Err("it reads differently".to_owned()) }
    };
    engine.block_on(work).map_err(|e| e.to_string())??;
    let content = world.content(IMAGE).unwrap_or_default();
    let checked = image::check(&content).map_err(|why| format!("the image: {why}"))?;
    figures.kept += checked.leaks;
    Ok(())
}

/// Runs a record to its end.
///
/// # Errors
/// The first promise that was not kept.
pub fn run(record: &Record, log: usize, figures: &mut Figures) -> Result<(), Failure> {
    let (mut world, model) = begin(record);
    let model = RefCell::new(model);
    let (cursor, operations) = (Cell::new(0), Cell::new(0));
    let mut rng = Rng::new(record.crash_seed);
    let knobs = &record.knobs;
    let faulty = knobs.write_error > 0
        || knobs.read_error > 0
        || knobs.sync_error > 0
        || knobs.allocate_error > 0
        || knobs.space != u64::MAX;
    let life = Life { record, model: &model, operations: &operations, faulty };
    let mut result = Ok(());
    let mut more = true;
    while more && result.is_ok() {
        world.set_log(log);
        let mut found = None;
        let fail = |why: String| Failure { why, step: world.steps(), log: world.log() };
        {
            let engine = Engine::simulated(&world).map_err(|e| fail(e.to_string()))?;
            let mut future = Box::pin(live(world.clone(), &life, &cursor));
            let (first, start) = (world.steps(), world.now());
            loop {
                let next = world.steps() + 1 + rng.below(record.every * 2);
                let ended = match engine.run_until(next, future.as_mut()) {
                    Err(e) => Err(e.to_string()),
                    Ok(Some(Err(why))) => Err(why),
                    Ok(Some(Ok(()))) => Ok(true),
                    Ok(None) => Ok(false),
                };
                match ended {
                    Err(why) => {
                        result = Err(fail(why));
                        break;
                    }
                    Ok(ended) => {
                        more = !ended || cursor.get() < record.ops.len();
                        let fatal = ended || rng.chance(record.fatal);
                        let lost = world.failed_syncs() > 0;
                        let kill = rng.chance(400_000) && !(lost && fatal);
                        let (crash, after) = match kill {
                            true => (Crash::Kill, After::Kill),
                            false => (Crash::Power(Power::drawn(&mut rng)), After::Power),
                        };
                        if let Some(place) = world.place() {
                            *figures.places.entry(place).or_default() += 1;
                        }
                        figures.crashes += 1;
                        let crashed = world.crash(crash, rng.draw());
                        match find(&crashed, record, after, &model.borrow(), figures) {
                            Err(why) => {
                                result = Err(fail(format!("after {crash:?}: {why}")));
                                break;
                            }
                            Ok((size, bytes)) if fatal => {
                                found = Some((crashed, after, size, bytes));
                                break;
                            }
                            Ok((_, bytes)) if rng.chance(REOPENED) => {
                                if let Err(why) = reopen(&crashed, record, &bytes, figures) {
                                    let why = format!("opened after {crash:?}: {why}");
                                    result = Err(fail(why));
                                    break;
                                }
                            }
                            Ok(_) => {}
                        }
                    }
                }
            }
            figures.steps += world.steps() - first;
            figures.nanoseconds += world.now() - start;
        }
        if let Some((crashed, after, size, bytes)) = found {
            model.borrow_mut().adopt(after, size, &bytes);
            world = crashed;
        }
    }
    figures.operations += operations.get();
    result
}

/// Runs a seed with a bug, or none.
///
/// # Errors
/// As [`run`].
pub fn run_seed(seed: u64, bug: Option<Planted>, figures: &mut Figures) -> Result<(), Failure> {
    run(&Record { bug, ..Record::drawn(seed) }, 0, figures)
}
