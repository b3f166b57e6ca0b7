// SPDX-License-Identifier: Apache-2.0
//! The engine against a model, through crashes. Many operations run side by side, are dropped at
//! any await, meet errors; then the process dies or power is lost, the image is checked, opened
//! again, compared with what the model allows, and used on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests' helpers")]
#![allow(missing_docs, clippy::cast_possible_truncation)]

mod disk;
mod image;
mod model;
mod snapshots;

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use disk::{Disk, Random, Tasks, run};
use image::Kind;
use model::{BASE, Model, content};
use qcow2::{ErrorKind, Image, Options, Parts};
use sgl::Sgl;

/// How hard it is.
#[derive(Clone, Copy)]
struct Stress {
    steps: u64,
    rounds: u64,
    depth: u64,
    faults: bool,
    snapshots: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Write(Range<u64>),
    Read(Range<u64>),
    Zero(Range<u64>),
    /// With the sectors that are zero when it is done.
    Discard(Range<u64>, Range<u64>),
    Flush(Vec<usize>),
    /// To so many sectors.
    Resize(u64),
    /// With what the disk may be.
    Create(Model),
    /// Of the list of snapshots.
    Apply(usize),
    Delete(usize),
}

impl Op {
    /// Whether it has the image for itself.
    fn is_alone(&self) -> bool {
        matches!(self, Op::Resize(_) | Op::Create(_) | Op::Apply(_) | Op::Delete(_))
    }
}

enum Done {
    Read(Vec<u8>),
    Other,
}

fn base_version(sector: u64, kind: &Kind) -> u64 {
    let cluster = (sector * 512) >> kind.cluster_bits;
    if sector * 512 < kind.backing && cluster % 3 != 1 { BASE } else { 0 }
}

fn read_all(random: &Random, image: &Image<Disk>) -> Vec<u8> {
    let mut bytes = vec![0; image.size() as usize];
    run(random, image.read(&Sgl::from_slice(&mut bytes), 0)).unwrap();
    bytes
}

struct World {
    random: Random,
    kind: Kind,
    disk: Disk,
    data_file: Option<Disk>,
    backing: Option<Disk>,
    model: Model,
    /// The snapshots: identifier and content.
    saved: Vec<(String, Vec<u8>)>,
    /// Whether an operation on snapshots met an error.
    leaky: bool,
    version: u64,
    /// Sectors that the bitmap that tells of changes may tell of.
    touched: BTreeSet<u64>,
    /// Which bitmaps were valid when the image was opened.
    valid: Vec<bool>,
    #[cfg(feature = "planted")]
    planted: Option<qcow2::Bug>,
}

impl World {
    fn new(seed: u64, kind: Kind) -> Self {
        let random = Random::new(seed);
        let disk = Disk::new(image::make(&kind), &random);
        let data_file = kind.data_file.then(|| Disk::new(Vec::new(), &random));
        let backing = (kind.backing > 0).then(|| {
            let sectors = 0..kind.backing / 512;
            let bytes = sectors.flat_map(|at| content(at, base_version(at, &kind)));
            Disk::new(bytes.collect(), &random)
        });
        let mut model = Model::new();
        for at in 0..kind.size / 512 {
            model.push(base_version(at, &kind));
        }
        World {
            random,
            kind,
            disk,
            data_file,
            backing,
            model,
            saved: Vec::new(),
            leaky: false,
            version: 0,
            touched: BTreeSet::new(),
            valid: Vec::new(),
            #[cfg(feature = "planted")]
            planted: None,
        }
    }

    fn open(&self) -> Image<Disk> {
        let parts = Parts {
            storage: self.disk.clone(),
            data_file: self.data_file.clone(),
            backing: self.backing.clone(),
        };
        let options = Options {
            discard: self.random.one_in(2),
            compress: self.kind.compress,
            secret: self.kind.secret(),
            cache_bytes: Some(if self.random.one_in(2) { 4096 } else { 1 << 20 }),
            #[cfg(feature = "planted")]
            planted: self.planted,
            ..Options::default()
        };
        run(&self.random, Image::open(parts, &options)).unwrap()
    }

    /// One life of the image's process.
    fn live(&mut self, stress: &Stress) {
        let random = self.random.clone();
        self.valid = self.valid_bitmaps();
        let image = Rc::new(self.open());
        self.leaky = false;
        let mut ops: Vec<(u64, Op)> = Vec::new();
        let mut tasks: Tasks<'_, Result<Done, qcow2::Error>> = Tasks::new(&random);
        if stress.faults {
            self.disk.set_faults(60);
        }
        let mut next = 0;
        for _ in 0..stress.steps {
            if (tasks.len() as u64) < stress.depth
                && random.one_in(3)
                && let Some(op) = self.choose(&ops, stress)
            {
                self.start(next, &op, &image, &mut tasks);
                ops.push((next, op));
                next += 1;
            }
            if random.one_in(60)
                && let Some(id) = tasks.drop_one()
            {
                let at = ops.iter().position(|(other, _)| *other == id).unwrap();
                let (_, op) = ops.swap_remove(at);
                if op.is_alone() {
                    // It goes on, or has not begun.
                    let _ = run(&random, image.map(0, 512));
                    match op {
                        Op::Resize(_) => self.resized(image.size() / 512),
                        op => self.saved_or_not(&op, &image),
                    }
                }
            }
            if let Some((id, result)) = tasks.step() {
                self.finish(id, result, &mut ops, &image);
            }
            if random.one_in(30) {
                self.crash_aside(&ops);
            }
        }
        self.end(image, tasks, ops);
    }

    /// What would be there if it crashed now.
    fn crash_aside(&self, ops: &[(u64, Op)]) {
        let power = !self.random.one_in(4);
        let crash = |disk: &Disk| if power { disk.cut() } else { disk.killed() };
        let disk = crash(&self.disk);
        let content = disk.content();
        image::check(&content).unwrap_or_else(|e| panic!("after a crash aside: {e}"));
        let data_file = self.data_file.as_ref().map(crash);
        let bytes = self.content_of(&disk, data_file, None);
        self.judge_bitmaps(&content, &bytes);
        let _: Vec<_> = self.judge_saved(&disk, ops);
        if self.is_applied(&bytes, ops).is_none() {
            self.model.clone().judge_crash(&bytes, power);
        }
    }

    /// What is on a disk, or in a snapshot there.
    fn content_of(&self, disk: &Disk, data_file: Option<Disk>, snapshot: Option<&str>) -> Vec<u8> {
        let parts = Parts { storage: disk.clone(), data_file, backing: self.backing.clone() };
        let (secret, snapshot) = (self.kind.secret(), snapshot.map(str::to_owned));
        let options = Options { read_only: true, snapshot, secret, ..Options::default() };
        let image = run(&self.random, Image::open(parts, &options)).unwrap();
        read_all(&self.random, &image)
    }

    /// A bitmap that is not in use tells of every sector that is not what it was at the beginning,
    /// and of none that nobody changed. `bytes` is what the guest has.
    fn judge_bitmaps(&self, content: &[u8], bytes: &[u8]) {
        let [disabled, auto] = &image::read_bitmaps(content)[..] else { return };
        assert!(disabled.marked.is_empty(), "a disabled bitmap was changed: {disabled:?}");
        if auto.in_use {
            return;
        }
        for (at, sector) in (0..).zip(bytes.chunks(512)).take((self.kind.size / 512) as usize) {
            let same = sector == model::content(at, base_version(at, &self.kind));
            assert!(same || auto.marked.contains(&at), "sector {at} has changed: {auto:?}");
        }
        let more = auto.marked.iter().find(|at| !self.touched.contains(at));
        assert_eq!(more, None, "nobody changed a sector");
    }

    /// The disabled bitmap, and the one that tells of changes, are valid.
    fn valid_bitmaps(&self) -> Vec<bool> {
        image::read_bitmaps(&self.disk.content()).iter().map(|bitmap| !bitmap.in_use).collect()
    }

    fn end(
        &mut self,
        image: Rc<Image<Disk>>,
        mut tasks: Tasks<'_, Result<Done, qcow2::Error>>,
        mut ops: Vec<(u64, Op)>,
    ) {
        let random = self.random.clone();
        let how = random.below(3);
        if how == 0 {
            self.disk.set_faults(0);
            while tasks.len() > 0 {
                if let Some((id, result)) = tasks.step() {
                    self.finish(id, result, &mut ops, &image);
                }
            }
            let covered = self.model.flush_begins();
            run(&random, image.close()).unwrap();
            self.model.flushed(&covered);
            drop(image);
            let content = self.disk.content();
            let now = self.valid_bitmaps();
            assert_eq!(self.valid, now, "a bitmap was not saved, or one that was in use is not");
            let leaks = image::check(&content).unwrap_or_else(|e| panic!("after closing: {e}"));
            // What an error leaves is given back at the next opening.
            let clean = leaks == 0 || std::mem::take(&mut self.leaky);
            assert!(clean, "{leaks} leaked clusters, or missing flags, after closing");
            self.disk = self.disk.killed();
        } else {
            let power = how == 1;
            for disk in self.data_file.iter_mut().chain([&mut self.disk]) {
                *disk = if power { disk.cut() } else { disk.killed() };
            }
            drop(tasks);
            drop(image);
            let what = if power { "loss of power" } else { "a kill" };
            image::check(&self.disk.content()).unwrap_or_else(|e| panic!("after {what}: {e}"));
        }
        let image = self.open();
        let bytes = read_all(&random, &image);
        self.saved = self.judge_saved(&self.disk, &ops);
        match self.is_applied(&bytes, &ops) {
            Some(bytes) => self.model.becomes(&bytes, true),
            None => self.model.judge_crash(&bytes, how == 1),
        }
        self.judge_bitmaps(&self.disk.content(), &bytes);
    }

    fn choose(&mut self, ops: &[(u64, Op)], stress: &Stress) -> Option<Op> {
        if ops.iter().any(|(_, op)| op.is_alone()) {
            return None;
        }
        if stress.snapshots && ops.is_empty() && self.random.one_in(3) {
            return Some(self.choose_snapshot());
        }
        let random = &self.random;
        let sectors = self.model.len();
        if ops.is_empty() && random.one_in(8) {
            let new = (sectors + random.below(512)).saturating_sub(256).max(1);
            if new < sectors {
                self.model.begin(new..sectors, 0);
                let covered = self.kind.backing / 512;
                if self.kind.version == 2 && covered > new {
                    self.model.begin(new..sectors.min(covered), BASE);
                }
            }
            self.touched.extend(sectors..new);
            return Some(Op::Resize(new));
        }
        let first = random.below(sectors);
        let most = 1 << random.below(9);
        let range = first..(first + 1 + random.below(most)).min(sectors);
        let op = match random.below(20) {
            0..9 => Op::Write(range),
            9..13 => Op::Read(range),
            13..15 => Op::Zero(range),
            15..18 => {
                let granule = (1u64 << self.kind.cluster_bits) / 512;
                let granule = if self.kind.extended { granule / 32 } else { granule };
                let from = range.start.next_multiple_of(granule);
                let to = if range.end == sectors { sectors } else { range.end / granule * granule };
                if self.kind.version == 2 && self.kind.backing > 0 || from >= to {
                    return None;
                }
                Op::Discard(range, from..to)
            }
            _ => return Some(Op::Flush(self.model.flush_begins())),
        };
        let (Op::Write(range) | Op::Read(range) | Op::Zero(range) | Op::Discard(range, _)) = &op
        else {
            return None;
        };
        let free = ops.iter().all(|(_, other)| match other {
            Op::Write(other) | Op::Read(other) | Op::Zero(other) | Op::Discard(other, _) => {
                other.end <= range.start || range.end <= other.start
            }
            Op::Flush(_) => true,
            _ => false,
        });
        free.then_some(op)
    }

    fn start(
        &mut self,
        id: u64,
        op: &Op,
        image: &Rc<Image<Disk>>,
        tasks: &mut Tasks<'_, Result<Done, qcow2::Error>>,
    ) {
        let image = image.clone();
        if let Op::Write(range) | Op::Zero(range) | Op::Discard(range, _) = op {
            self.touched.extend(range.clone());
        }
        let bytes = |range: &Range<u64>| (range.start * 512, (range.end - range.start) * 512);
        match op {
            Op::Write(range) => {
                self.version += 1;
                self.model.begin(range.clone(), self.version);
                let version = self.version;
                let data = range.clone().flat_map(move |at| content(at, version));
                let mut data: Vec<u8> = data.collect();
                let (offset, _) = bytes(range);
                tasks.push(id, async move {
                    image.write(&Sgl::from_slice(&mut data), offset).await.map(|()| Done::Other)
                });
            }
            Op::Read(range) => {
                let (offset, len) = bytes(range);
                tasks.push(id, async move {
                    let mut data = vec![0; len as usize];
                    image.read(&Sgl::from_slice(&mut data), offset).await?;
                    Ok(Done::Read(data))
                });
            }
            Op::Zero(range) => {
                self.model.begin(range.clone(), 0);
                let (offset, len) = bytes(range);
                let unmap = self.random.one_in(2);
                tasks.push(id, async move {
                    image.write_zeroes(offset, len, unmap).await.map(|()| Done::Other)
                });
            }
            Op::Discard(range, zeroed) => {
                self.model.begin(zeroed.clone(), 0);
                let (offset, len) = bytes(range);
                tasks.push(
                    id,
                    async move { image.discard(offset, len).await.map(|()| Done::Other) },
                );
            }
            Op::Flush(_) => {
                tasks.push(id, async move { image.flush().await.map(|()| Done::Other) });
            }
            Op::Resize(sectors) => {
                let size = sectors * 512;
                tasks.push(id, async move { image.resize(size).await.map(|()| Done::Other) });
            }
            Op::Create(_) | Op::Apply(_) | Op::Delete(_) => {
                let work = self.snapshot_work(op, image);
                tasks.push(id, async move { work.await.map(|()| Done::Other) });
            }
        }
    }

    fn resized(&mut self, sectors: u64) {
        self.model.truncate(sectors);
        while self.model.len() < sectors {
            self.model.push(0);
        }
    }

    fn finish(
        &mut self,
        id: u64,
        result: Result<Done, qcow2::Error>,
        ops: &mut Vec<(u64, Op)>,
        image: &Image<Disk>,
    ) {
        let at = ops.iter().position(|(other, _)| *other == id).unwrap();
        let (_, op) = ops.swap_remove(at);
        let done = match result {
            Ok(done) => done,
            Err(e) => {
                assert!(matches!(e.kind, ErrorKind::Io(_)), "{e}");
                if matches!(op, Op::Create(_) | Op::Apply(_) | Op::Delete(_)) {
                    self.saved_or_not(&op, image);
                }
                return;
            }
        };
        match (op, done) {
            (Op::Write(range) | Op::Zero(range) | Op::Discard(_, range), _) => {
                self.model.ack(range);
            }
            (Op::Read(range), Done::Read(bytes)) => self.model.judge_read(range.start, &bytes),
            (Op::Flush(covered), _) => self.model.flushed(&covered),
            (Op::Resize(new), _) => self.resized(new),
            (op @ (Op::Create(_) | Op::Apply(_) | Op::Delete(_)), _) => self.saved(&op, image),
            (Op::Read(_), Done::Other) => {}
        }
    }
}

/// Lets worlds of one kind live: a quarter of `seeds`, or with LUNETTE_FULL all of them.
fn explore(name: &str, kind: Kind, stress: Stress, seeds: u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let usual = if std::env::var_os("LUNETTE_FULL").is_some() { seeds } else { seeds.div_ceil(4) };
    let first: u64 = number("SEED").unwrap_or(0);
    let count: u64 = number("SEEDS").unwrap_or(usual);
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, kind);
            for _ in 0..stress.rounds {
                world.live(&stress);
            }
        });
        if let Err(e) = result {
            eprintln!("{name}: seed {seed}, {kind:?}");
            std::panic::resume_unwind(e);
        }
    }
}

const STRESS: Stress = Stress { steps: 600, rounds: 4, depth: 8, faults: false, snapshots: false };

#[test]
fn one_operation_after_the_other_survives_crashes() {
    let stress = Stress { depth: 1, ..STRESS };
    explore("alone", Kind::simple(12, 300 << 10), stress, 60);
}

#[test]
fn small_clusters_survive_crashes() {
    explore("512", Kind::simple(9, 80 << 10), STRESS, 40);
}

#[test]
fn clusters_of_4_kib_survive_crashes() {
    explore("4k", Kind::simple(12, 300 << 10), STRESS, 60);
}

#[test]
fn clusters_of_64_kib_survive_crashes() {
    explore("64k", Kind::simple(16, 1 << 20), STRESS, 10);
}

#[test]
fn images_with_backing_files_survive_crashes() {
    explore("shorter", Kind { backing: 100 << 10, ..Kind::simple(12, 300 << 10) }, STRESS, 40);
    explore("longer", Kind { backing: 500 << 10, ..Kind::simple(12, 300 << 10) }, STRESS, 30);
}

#[test]
fn images_of_version_2_survive_crashes() {
    let kind = Kind { version: 2, ..Kind::simple(12, 300 << 10) };
    explore("v2", kind, STRESS, 20);
    explore("v2 backing", Kind { backing: 200 << 10, ..kind }, STRESS, 20);
}

#[test]
fn subclusters_survive_crashes() {
    let kind = Kind { extended: true, ..Kind::simple(14, 400 << 10) };
    explore("extended", kind, STRESS, 30);
    explore("extended backing", Kind { backing: 200 << 10, ..kind }, STRESS, 30);
}

#[test]
fn refcounts_of_every_width_survive_crashes() {
    for order in [0, 1, 2, 3, 5, 6] {
        let kind = Kind { refcount_order: order, ..Kind::simple(9, 80 << 10) };
        explore("refcounts", kind, STRESS, 6);
    }
}

#[test]
fn bitmaps_survive_crashes() {
    let kind = Kind { bitmaps: true, ..Kind::simple(12, 300 << 10) };
    explore("bitmaps", kind, STRESS, 12);
    explore("bitmaps backing", Kind { backing: 500 << 10, ..kind }, STRESS, 4);
    // Sizes around that at which a table of another length is needed.
    let kind = Kind { bitmaps: true, ..Kind::simple(9, 2 << 20) };
    explore("bitmaps' tables", kind, Stress { steps: 200, ..STRESS }, 4);
    explore(
        "bitmaps' faults",
        Kind { refcount_order: 6, ..kind },
        Stress { faults: true, steps: 200, ..STRESS },
        8,
    );
}

#[test]
fn compressed_clusters_survive_crashes() {
    let kind = Kind { compress: true, ..Kind::simple(12, 300 << 10) };
    explore("compressed", kind, STRESS, 4);
    explore("compressed backing", Kind { backing: 500 << 10, ..kind }, STRESS, 2);
    explore("compressed narrow", Kind { refcount_order: 1, ..kind }, STRESS, 2);
    explore("compressed bitmaps", Kind { bitmaps: true, ..kind }, STRESS, 2);
    let extended = Kind { extended: true, cluster_bits: 14, size: 400 << 10, ..kind };
    explore("compressed extended", extended, STRESS, 1);
    explore("compressed faults", kind, Stress { faults: true, ..STRESS }, 2);
}

#[test]
fn lazy_refcounts_survive_crashes() {
    explore("lazy", Kind { lazy: true, ..Kind::simple(12, 300 << 10) }, STRESS, 30);
    explore("lazy 512", Kind { lazy: true, ..Kind::simple(9, 80 << 10) }, STRESS, 20);
}

#[test]
fn external_data_files_survive_crashes() {
    let kind = Kind { data_file: true, ..Kind::simple(12, 300 << 10) };
    explore("data file", kind, STRESS, 30);
    explore("data file backing", Kind { backing: 200 << 10, ..kind }, STRESS, 20);
}

#[test]
fn encrypted_images_survive_crashes() {
    let kind = Kind { encrypted: true, ..Kind::simple(12, 300 << 10) };
    explore("encrypted", kind, STRESS, 4);
    explore("encrypted backing", Kind { backing: 200 << 10, ..kind }, STRESS, 4);
    let kind = Kind { extended: true, ..Kind { cluster_bits: 14, size: 400 << 10, ..kind } };
    explore("encrypted extended", kind, STRESS, 4);
}

#[test]
fn errors_of_the_storage_lose_nothing_that_was_acknowledged() {
    let stress = Stress { faults: true, ..STRESS };
    explore("faults", Kind::simple(12, 300 << 10), stress, 40);
    explore("faults 512", Kind { refcount_order: 6, ..Kind::simple(9, 80 << 10) }, stress, 20);
    explore(
        "faults backing",
        Kind { backing: 500 << 10, ..Kind::simple(12, 300 << 10) },
        stress,
        20,
    );
}

/// The bugs of `qcow2::Bug` that these tests find, by one of the kinds of images. The simulation
/// (`cargo xtask sim --plant`) looks for all of them.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found() {
    use qcow2::Bug;
    let kinds = [
        Kind::simple(12, 300 << 10),
        Kind { backing: 500 << 10, ..Kind::simple(12, 300 << 10) },
        Kind { data_file: true, ..Kind::simple(12, 300 << 10) },
        Kind::simple(9, 80 << 10),
    ];
    let bugs = [
        Bug::MappingBeforeRefcount,
        Bug::ReuseBeforeUnmapping,
        Bug::HalfTable,
        Bug::EvictedDirty,
        Bug::FlushSkipsDataFile,
        Bug::CopyWithoutBarrier,
        Bug::AcknowledgedEarly,
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in bugs {
        let found = (0..60).find(|seed| {
            let kind = kinds[*seed as usize % kinds.len()];
            std::panic::catch_unwind(|| {
                let mut world = World::new(*seed, kind);
                world.planted = Some(bug);
                for _ in 0..STRESS.rounds {
                    world.live(&STRESS);
                }
            })
            .is_err()
        });
        match found {
            Some(seed) => eprintln!("{bug:?}: found with seed {seed}"),
            None => missed.push(bug),
        }
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
