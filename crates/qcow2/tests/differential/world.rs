// SPDX-License-Identifier: Apache-2.0
//! The three copies of an image of one case, and the sessions on them.
use std::fs;
use std::path::{Path, PathBuf};

use io_engine::{Backend, Engine};
use qcow2::check::{Repair, Report, check};
use qcow2::{Image, Options, Parts, Secret};
use sgl::Sgl;

use crate::cases::{Base, Case, Start};
use crate::compare;
use crate::layer::Layer;
use crate::operations::{Limits, Operation, Random};
use crate::tools::{PASSPHRASE, named, qemu_io};

/// Sessions of a run, and operations in each.
const SESSIONS: usize = 3;
const OPERATIONS: usize = 25;

const OURS: &str = "ours";
const THEIRS: &str = "theirs";
const MIXED: &str = "mixed";

pub(crate) struct World<'a> {
    case: &'a Case,
    directory: tempfile::TempDir,
    pub(crate) model: Vec<u8>,
    random: Random,
    /// Whether a session compressed what it wrote.
    pub(crate) compressed: bool,
    /// Which case, for the text of a failure.
    pub(crate) what: String,
}

impl<'a> World<'a> {
    pub(crate) fn new(case: &'a Case, seed: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("differential").tempdir().unwrap();
        let mut random = Random(seed);
        let first = directory.path().join(OURS);
        fs::create_dir(&first).unwrap();
        case.make(&first, &mut random);
        for copy in [THEIRS, MIXED] {
            let to = directory.path().join(copy);
            fs::create_dir(&to).unwrap();
            for file in fs::read_dir(&first).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        let (options, start, base) = (case.options, case.start, case.base);
        let what = format!("{options} {start:?} on {base:?}, seed {seed}");
        let mut world =
            World { case, directory, model: Vec::new(), random, compressed: false, what };
        world.model = world.read_all(OURS);
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn image(&self, copy: &str) -> PathBuf {
        self.path().join(copy).join("image")
    }

    fn name(&self, copy: &str) -> String {
        named(&self.image(copy), self.case.has("data_file"), self.case.encrypted())
    }

    async fn open(&self, copy: &str, read_only: bool, compress: bool) -> Image<Layer> {
        let path = self.image(copy);
        let base = self.path().join("base");
        let parts = Parts {
            storage: Layer::file(&path, read_only),
            data_file: self
                .case
                .has("data_file")
                .then(|| Layer::file(&path.with_file_name("data"), read_only)),
            backing: match self.case.base {
                Base::Nothing => None,
                Base::Raw(_) => Some(Layer::file(&base, true)),
                Base::Qcow2(..) => Some(Layer::image(&base).await),
            },
        };
        let secret = self.case.encrypted().then(|| Secret::new(PASSPHRASE.into()));
        let options = Options { read_only, compress, discard: true, secret, ..Options::default() };
        Image::open(parts, &options).await.unwrap_or_else(|e| panic!("{}: {e}", self.what))
    }

    /// All of a copy as our engine reads it.
    fn read_all(&self, copy: &str) -> Vec<u8> {
        on_engine(async {
            let image = self.open(copy, true, false).await;
            let mut content = vec![0xa5; usize::try_from(image.size()).unwrap()];
            image.read(&Sgl::from_slice(&mut content), 0).await.unwrap();
            content
        })
    }

    fn draw(&mut self) -> Vec<Operation> {
        let alone = self.case.base == Base::Nothing;
        let limits = Limits {
            cluster: self.case.cluster_size(),
            resizes: !self.case.version_2() || alone && self.case.start != Start::Snapshot,
            discards: !self.case.version_2() || alone,
            whole_discards: self.case.has("extended_l2"),
            compresses: self.case.compresses() && self.random.below(2) == 0,
            keeps: !self.case.version_2(),
        };
        let mut size = self.model.len() as u64;
        let draw = |_| {
            let operation = Operation::draw(&mut self.random, size, &limits);
            if let Operation::Resize { size: new } = operation {
                size = new;
            }
            operation
        };
        (0..OPERATIONS).map(draw).collect()
    }

    fn ours(&self, copy: &str, operations: &[Operation]) {
        on_engine(async {
            let image = self.open(copy, false, compresses(operations)).await;
            let mut model = self.model.clone();
            for operation in operations {
                operation.apply(&image, &model).await;
                operation.model(&mut model, self.case.granule());
            }
            image.close().await.unwrap();
        });
    }

    fn theirs(&self, copy: &str, operations: &[Operation]) {
        let commands: Vec<String> = operations.iter().map(|op| op.command()).collect();
        qemu_io(self.path(), &self.name(copy), &commands);
    }

    /// One session on each copy.
    pub(crate) fn session(&mut self, number: usize, operations: &[Operation]) {
        self.compressed |= compresses(operations);
        self.ours(OURS, operations);
        self.theirs(THEIRS, operations);
        if number.is_multiple_of(2) {
            self.theirs(MIXED, operations);
        } else {
            self.ours(MIXED, operations);
        }
        for operation in operations {
            operation.model(&mut self.model, self.case.granule());
        }
        for copy in [THEIRS, OURS, MIXED] {
            let content = self.read_all(copy);
            let what = format!("{}, session {number}, {copy}", self.what);
            assert_eq!(content.len(), self.model.len(), "{what}: the size after {operations:#?}");
            let differs = content.iter().zip(&self.model).position(|(a, b)| a != b);
            if let Some(at) = differs {
                let (a, b) = (content[at], self.model[at]);
                panic!("{what}: the byte at {at} is {a}, not {b}, after {operations:#?}");
            }
        }
    }

    /// What our check says of a copy.
    fn report(&self, copy: &str) -> Report {
        let file = Layer::file(&self.image(copy), true);
        let report = on_engine(check(&file, Repair::None));
        report.unwrap_or_else(|e| panic!("{}, {copy}: {e}", self.what))
    }

    /// What is left when all sessions are over.
    pub(crate) fn compare(&self) {
        let copies = [THEIRS, OURS, MIXED].map(|copy| (self.name(copy), self.report(copy)));
        compare::images(self, &copies);
    }
}

/// Whether what is written in a session is compressed.
fn compresses(operations: &[Operation]) -> bool {
    operations.iter().any(|operation| matches!(operation, Operation::Compress { .. }))
}

/// Runs each case with one seed.
pub(crate) fn run(cases: &[Case], seed: u64) {
    for case in cases {
        let mut world = World::new(case, seed);
        for number in 0..SESSIONS {
            let operations = world.draw();
            world.session(number, &operations);
        }
        world.compare();
    }
}

fn on_engine<F: Future>(future: F) -> F::Output {
    Engine::new(Backend::Auto).unwrap().block_on(future).unwrap()
}
