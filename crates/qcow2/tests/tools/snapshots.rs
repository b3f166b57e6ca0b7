// SPDX-License-Identifier: Apache-2.0
//! Snapshots, ours and QEMU's: each lists, applies and deletes what the other made, with the same
//! results, and after each step `qemu-img check` finds nothing.
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use io_engine::{Backend, Engine, File};
use qcow2::create::{CreateOptions, create};
use qcow2::snapshots::{Snapshot, list};
use qcow2::{Error, ErrorKind, Image, Options, Parts};
use sgl::Sgl;

use crate::memory::{Memory, now, qemu_img, qemu_io};

/// When our snapshots are made.
const DATE: Duration = Duration::new(1_700_000_000, 5);

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What has to work.
    fn qemu_img(&self, arguments: &[&str]) -> String {
        let (code, text) = qemu_img(self.0.path(), arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        text
    }

    fn create(&self, name: &str, options: &str, size: &str) {
        self.qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, name, size]);
    }

    fn qemu_io(&self, name: &str, commands: &[&str]) {
        qemu_io(self.0.path(), name, commands);
    }

    /// Neither errors nor leaks.
    fn check(&self, name: &str) {
        self.qemu_img(&["check", "-q", name]);
    }

    fn file(&self, name: &str, write: bool) -> File {
        let file = fs::OpenOptions::new().read(true).write(write).open(self.path(name)).unwrap();
        File::new(OwnedFd::from(file))
    }

    async fn open(&self, name: &str, options: &Options) -> Result<Image<File>, Error> {
        let backing = name.contains("over").then(|| self.file("base", false));
        let storage = self.file(name, !options.read_only);
        Image::open(Parts { storage, data_file: None, backing }, options).await
    }

    /// Does something with an open image, and closes it.
    fn with<T>(&self, name: &str, work: impl AsyncFnOnce(&Image<File>) -> T) -> T {
        let engine = Engine::new(Backend::Pool).unwrap();
        engine
            .block_on(async {
                let options = Options { discard: true, ..Options::default() };
                let image = self.open(name, &options).await.unwrap();
                let result = work(&image).await;
                image.close().await.unwrap();
                result
            })
            .unwrap()
    }

    /// All bytes of the disk, or of a snapshot.
    fn content(&self, name: &str, snapshot: Option<&str>) -> Vec<u8> {
        let snapshot = snapshot.map(str::to_owned);
        let options = Options { read_only: true, snapshot, ..Options::default() };
        let engine = Engine::new(Backend::Pool).unwrap();
        let read = async {
            let image = self.open(name, &options).await.unwrap();
            let mut bytes = vec![1; usize::try_from(image.size()).unwrap()];
            image.read(&Sgl::from_slice(&mut bytes), 0).await.unwrap();
            bytes
        };
        engine.block_on(read).unwrap()
    }

    fn list(&self, name: &str) -> Vec<Snapshot> {
        let image = Memory::default();
        *image.0.borrow_mut() = fs::read(self.path(name)).unwrap();
        now(list(&image)).unwrap()
    }

    fn raw(&self, name: &str) -> Vec<u8> {
        self.qemu_img(&["convert", "-O", "raw", name, "raw"]);
        fs::read(self.path("raw")).unwrap()
    }
}

/// One step, done by the engine or by QEMU.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u8, u64, u64),
    Create(&'static str),
    Apply(&'static str),
    Delete(&'static str),
    Resize(u64),
}

fn by_us(dir: &Dir, name: &str, step: Step) {
    dir.with(name, async |image| match step {
        Step::Write(byte, offset, len) => {
            let mut data = vec![byte; usize::try_from(len).unwrap()];
            image.write(&Sgl::from_slice(&mut data), offset).await.unwrap();
        }
        Step::Create(what) => drop(image.create_snapshot(what, DATE).await.unwrap()),
        Step::Apply(what) => image.apply_snapshot(what).await.unwrap(),
        Step::Delete(what) => image.delete_snapshot(what).await.unwrap(),
        Step::Resize(size) => image.resize(size).await.unwrap(),
    });
}

fn by_qemu(dir: &Dir, name: &str, step: Step) {
    match step {
        Step::Write(byte, offset, len) => {
            dir.qemu_io(name, &[&format!("write -P {byte} {offset} {len}")]);
        }
        Step::Create(what) => drop(dir.qemu_img(&["snapshot", "-c", what, name])),
        Step::Apply(what) => drop(dir.qemu_img(&["snapshot", "-a", what, name])),
        Step::Delete(what) => drop(dir.qemu_img(&["snapshot", "-d", what, name])),
        Step::Resize(size) => {
            drop(dir.qemu_img(&["resize", "-q", "--shrink", name, &size.to_string()]));
        }
    }
}

/// Steps of both on one image, and of QEMU alone on another: the images stay alike.
fn compare(options: &str, resize: bool) {
    let dir = Dir::new();
    let over = options.contains("backing");
    if over {
        dir.qemu_img(&["create", "-q", "-f", "raw", "base", "700k"]);
        qemu_io_raw(&dir, "write -P 77 0 700k");
    }
    let (mixed, theirs) = if over { ("mixed-over", "qemu-over") } else { ("mixed", "qemu") };
    dir.create(mixed, options, "1M");
    dir.qemu_io(mixed, &["write -P 1 0 300k", "write -c -P 2 512k 64k", "write -z 320k 64k"]);
    fs::copy(dir.path(mixed), dir.path(theirs)).unwrap();
    let mut steps = vec![
        (true, Step::Create("one")),
        (true, Step::Write(3, 100 << 10, 90 << 10)),
        (false, Step::Create("two")),
        (false, Step::Write(4, 500 << 10, 30 << 10)),
        (true, Step::Create("2")),
        (true, Step::Apply("one")),
        (false, Step::Apply("2")),
        (true, Step::Write(5, 10, 5000)),
        (true, Step::Delete("2")),
    ];
    if resize {
        steps.extend([
            (true, Step::Resize(3 << 20)),
            (true, Step::Write(6, 2 << 20, 100 << 10)),
            (true, Step::Create("large")),
            (true, Step::Apply("one")),
            (false, Step::Write(7, 0, 4096)),
            (true, Step::Apply("large")),
        ]);
    }
    steps.extend([(false, Step::Delete("one")), (true, Step::Delete("two"))]);
    for (ours, step) in steps {
        if ours {
            by_us(&dir, mixed, step)
        } else {
            by_qemu(&dir, mixed, step)
        }
        by_qemu(&dir, theirs, step);
        dir.check(mixed);
        let told = |name| -> Vec<_> {
            let all = dir.list(name).into_iter();
            all.map(|s| (s.id, s.name, s.disk_size, s.vm_state_size)).collect()
        };
        assert_eq!(told(mixed), told(theirs), "{options} {step:?}");
        let disk = dir.content(mixed, None);
        assert!(disk == dir.raw(theirs), "{options} {step:?}: the disk differs");
        assert!(disk == dir.raw(mixed), "{options} {step:?}: QEMU reads something else");
        for (id, ..) in told(mixed) {
            let (ours, qemus) = (dir.content(mixed, Some(&id)), dir.content(theirs, Some(&id)));
            assert!(ours == qemus, "{options} {step:?}: the snapshot {id} differs");
        }
    }
}

fn qemu_io_raw(dir: &Dir, command: &str) {
    let mut qemu = std::process::Command::new("qemu-io");
    let status = qemu.args(["-f", "raw", "-c", command, "base"]).current_dir(&dir.0).output();
    assert!(status.expect("the tests need qemu-io: install qemu-utils").status.success());
}

#[test]
fn steps_of_ours_and_of_qemu_give_the_same_images() {
    compare("cluster_size=65536", true);
}

#[test]
fn small_clusters_have_the_snapshots_that_qemu_makes() {
    compare("cluster_size=512,refcount_bits=32", true);
}

#[test]
fn version_2_has_the_snapshots_that_qemu_makes() {
    compare("compat=0.10,cluster_size=4096", false);
}

#[test]
fn subclusters_have_the_snapshots_that_qemu_makes() {
    compare("extended_l2=on,cluster_size=16384,refcount_bits=64", true);
}

#[test]
fn images_over_another_have_the_snapshots_that_qemu_makes() {
    compare("cluster_size=4096,backing_file=base,backing_fmt=raw", true);
}
#[test]
fn snapshots_are_listed_as_qemu_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for compat in ["compat=0.10", "compat=1.1"] {
        qemu_img(path, &["create", "-q", "-f", "qcow2", "-o", compat, "image", "1M"]);
        for name in ["first", "a name of more than eight letters", "ümlaut"] {
            let (code, text) = qemu_img(path, &["snapshot", "-c", name, "image"]);
            assert_eq!(code, Some(0), "{text}");
        }
        assert_eq!(
            qemu_img(path, &["resize", "-q", "image", "2M"]).0 == Some(0),
            compat == "compat=1.1"
        );
        assert_eq!(qemu_img(path, &["snapshot", "-d", "first", "image"]).0, Some(0));
        let image = Memory::default();
        *image.0.borrow_mut() = fs::read(path.join("image")).unwrap();
        let ours = now(list(&image)).unwrap();
        let (_, info) = qemu_img(path, &["info", "--output=json", "image"]);
        let fields = |name: &str| -> Vec<String> {
            let parts = info.split("\"snapshots\": [").nth(1).unwrap().split(']').next().unwrap();
            let found = parts.lines().filter_map(|line| line.split_once(&format!("\"{name}\": ")));
            found.map(|(_, value)| value.trim_matches([',', '"', ' ']).to_owned()).collect()
        };
        assert_eq!(ours.iter().map(|s| s.id.clone()).collect::<Vec<_>>(), fields("id"));
        assert_eq!(
            ours.iter().map(|s| s.name.clone()).collect::<Vec<_>>(),
            ["a name of more than eight letters", "ümlaut"]
        );
        assert_eq!(fields("name").len(), 2);
        let seconds: Vec<_> = ours.iter().map(|s| s.date.as_secs().to_string()).collect();
        assert_eq!(seconds, fields("date-sec"));
        let nanos: Vec<_> = ours.iter().map(|s| s.date.subsec_nanos().to_string()).collect();
        assert_eq!(nanos, fields("date-nsec"));
        let states: Vec<_> = ours.iter().map(|s| s.vm_state_size.to_string()).collect();
        assert_eq!(states, fields("vm-state-size"));
        assert!(ours.iter().all(|s| s.disk_size == 1 << 20 && s.clock.is_zero()));
    }
}

#[test]
fn a_damaged_table_of_snapshots_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    qemu_img(path, &["create", "-q", "-f", "qcow2", "image", "1M"]);
    qemu_img(path, &["snapshot", "-c", "one", "image"]);
    let image = Memory::default();
    *image.0.borrow_mut() = fs::read(path.join("image")).unwrap();
    let at = u64::from_be_bytes(image.0.borrow()[64..72].try_into().unwrap()) as usize;
    image.0.borrow_mut()[at + 36..at + 40].fill(0xff);
    let error = now(list(&image)).unwrap_err().to_string();
    assert!(error.contains("the snapshot 0 has 4294967295 bytes of extra data"), "{error}");
}

#[test]
fn a_refcount_that_would_be_too_high_refuses_a_snapshot_and_changes_nothing() {
    let dir = Dir::new();
    // How many snapshots there can be of data.
    for (bits, most) in [(1, 0), (2, 2)] {
        let options = format!("cluster_size=4096,refcount_bits={bits}");
        dir.create("image", &options, "1M");
        by_us(&dir, "image", Step::Create("empty"));
        dir.qemu_io("image", &["write -P 1 0 100k", "write -P 2 900k 100k"]);
        (0..most).for_each(|_| by_us(&dir, "image", Step::Create("full")));
        let (before, disk) = (dir.list("image"), dir.content("image", None));
        let e = dir.with("image", async |image| image.create_snapshot("more", DATE).await);
        let e = e.unwrap_err();
        assert!(matches!(e.kind, ErrorKind::Unsupported(_)), "{e}");
        let text = format!("the highest that {bits} bits can be (refcount_bits)");
        assert!(e.to_string().contains(&text), "{e}");
        dir.check("image");
        assert_eq!(dir.list("image"), before);
        assert!(dir.content("image", None) == disk);
        by_us(&dir, "image", Step::Write(9, 0, 8192));
        dir.check("image");
    }
}

#[test]
fn names_that_are_not_there_and_other_wrong_ones_are_told() {
    let dir = Dir::new();
    dir.create("image", "cluster_size=4096", "1M");
    let apply = |name: &str| {
        let e = dir.with("image", async |image| image.apply_snapshot(name).await).unwrap_err();
        assert!(matches!(e.kind, ErrorKind::Unsupported(_)), "{e}");
        e.to_string()
    };
    let none = "apply the snapshot \"one\": it has no snapshot with the identifier or name \"one\"";
    assert_eq!(apply("one"), format!("{none}; it has none"));
    by_us(&dir, "image", Step::Create("first"));
    by_us(&dir, "image", Step::Create("second"));
    assert_eq!(apply("one"), format!("{none}; it has 1 (\"first\"), 2 (\"second\")"));
    let e = dir.with("image", async |image| image.delete_snapshot("3").await).unwrap_err();
    assert!(e.to_string().contains("2 (\"second\")"), "{e}");
    let e = dir.with("image", async |image| image.create_snapshot(&"x".repeat(256), DATE).await);
    assert!(e.unwrap_err().to_string().contains("the name has 256 bytes"));
    dir.check("image");
    let options = Options { snapshot: Some("first".into()), ..Options::default() };
    let engine = Engine::new(Backend::Pool).unwrap();
    let e = engine.block_on(dir.open("image", &options)).unwrap().unwrap_err();
    let text = "open: the snapshot \"first\" can only be read; open it read only";
    assert_eq!(e.to_string(), text);
}

#[test]
fn an_image_with_an_external_data_file_gets_no_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let options = ["create", "-q", "-f", "qcow2", "-o", "data_file=data", "image", "1M"];
    assert_eq!(qemu_img(path, &options).0, Some(0));
    assert_ne!(qemu_img(path, &["snapshot", "-c", "one", "image"]).0, Some(0));
    let image = Memory::default();
    *image.0.borrow_mut() = fs::read(path.join("image")).unwrap();
    let parts = Parts { storage: image, data_file: Some(Memory::default()), backing: None };
    let image = now(Image::open(parts, &Options::default())).unwrap();
    let e = now(image.create_snapshot("one", DATE)).unwrap_err().to_string();
    assert!(e.contains("external data file, which snapshots cannot keep"), "{e}");
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Where the table of snapshots is.
fn table(bytes: &[u8]) -> usize {
    number(bytes, 64, 8) as usize
}

#[test]
fn the_state_of_a_machine_stays_in_its_snapshot() {
    let dir = Dir::new();
    // An L1 entry is 2 MiB; the second holds the state.
    dir.create("image", "cluster_size=4096", "4M");
    dir.qemu_io("image", &["write -P 1 0 200k", "write -P 2 2M 64k"]);
    by_qemu(&dir, "image", Step::Create("running"));
    let mut bytes = fs::read(dir.path("image")).unwrap();
    let at = table(&bytes);
    bytes[at + 40..at + 48].copy_from_slice(&(64u64 << 10).to_be_bytes());
    bytes[at + 48..at + 56].copy_from_slice(&(2u64 << 20).to_be_bytes());
    fs::write(dir.path("image"), bytes).unwrap();
    by_us(&dir, "image", Step::Resize(2 << 20));
    by_us(&dir, "image", Step::Write(3, 100, 50_000));
    dir.check("image");
    by_us(&dir, "image", Step::Apply("running"));
    dir.check("image");
    let mut expected = vec![0; 2 << 20];
    expected[..200 << 10].fill(1);
    assert!(dir.content("image", None) == expected);
    assert!(dir.content("image", Some("running")) == expected);
    by_us(&dir, "image", Step::Create("disk"));
    let found: Vec<_> = dir.list("image").into_iter().map(|s| (s.id, s.vm_state_size)).collect();
    assert_eq!(found, [("1".into(), 64 << 10), ("2".into(), 0)]);
    let machine = &dir.list("image")[0];
    assert_eq!((machine.l1_entries, machine.disk_size), (2, 2 << 20));
    dir.check("image");
    by_us(&dir, "image", Step::Delete("running"));
    dir.check("image");
    assert!(dir.raw("image") == expected);
}

#[test]
fn extra_data_of_later_versions_is_kept() {
    let dir = Dir::new();
    dir.create("image", "cluster_size=4096", "1M");
    by_qemu(&dir, "image", Step::Create("strange"));
    let mut bytes = fs::read(dir.path("image")).unwrap();
    let at = table(&bytes);
    bytes.resize(at + 4096, 0);
    let names: Vec<u8> = bytes[at + 64..at + 72].to_vec();
    bytes[at + 36..at + 40].copy_from_slice(&32u32.to_be_bytes());
    bytes[at + 64..at + 72].copy_from_slice(b"unknown!");
    bytes[at + 72..at + 80].copy_from_slice(&names);
    fs::write(dir.path("image"), bytes).unwrap();
    let record = |dir: &Dir| {
        let bytes = fs::read(dir.path("image")).unwrap();
        let at = table(&bytes);
        bytes[at..at + 80].to_vec()
    };
    let before = record(&dir);
    by_us(&dir, "image", Step::Create("more"));
    by_us(&dir, "image", Step::Create("most"));
    by_us(&dir, "image", Step::Delete("more"));
    assert_eq!(record(&dir), before);
    dir.check("image");
    assert!(dir.qemu_img(&["snapshot", "-l", "image"]).contains("strange"));
}

#[test]
fn no_cluster_of_the_guest_is_where_a_snapshot_has_its_tables() {
    let dir = Dir::new();
    let made = Memory::default();
    let options = CreateOptions { cluster_size: 4096, ..CreateOptions::new(4 << 20) };
    now(create(&made, None, &options)).unwrap();
    fs::write(dir.path("image"), &*made.0.borrow()).unwrap();
    by_us(&dir, "image", Step::Write(1, 0, 8192));
    by_us(&dir, "image", Step::Create("one"));
    // The L2 table that is written to is another one than the snapshot's from now on.
    by_us(&dir, "image", Step::Write(2, 0, 4096));
    let bytes = fs::read(dir.path("image")).unwrap();
    let snapshot = &dir.list("image")[0];
    let l1 = snapshot.l1_offset as usize;
    let l2 = number(&bytes, l1, 8) as usize;
    let active = number(&bytes, number(&bytes, 40, 8) as usize, 8) & !(1 << 63);
    assert_ne!(l2 as u64, active);
    for place in [table(&bytes), l1, l2] {
        // The second cluster of the guest.
        let mut damaged = bytes.clone();
        // Refcounts are right, or it would not be opened.
        let block = number(&bytes, number(&bytes, 48, 8) as usize, 8) as usize;
        damaged[block + place / 4096 * 2 + 1] += 1;
        let entry = (place as u64).to_be_bytes();
        damaged[active as usize + 8..active as usize + 16].copy_from_slice(&entry);
        fs::write(dir.path("image"), damaged).unwrap();
        let mut data = vec![3; 4096];
        let e =
            dir.with("image", async |image| image.write(&Sgl::from_slice(&mut data), 4096).await);
        let e = e.unwrap_err().to_string();
        assert!(
            e.contains(&format!("refers to {place:#x} in the file, where the metadata")),
            "{e}"
        );
    }
}

/// What is written between a snapshot and its return leaves a shared cluster whose refcount is still
/// to be lowered.
#[test]
fn the_only_owner_of_a_cluster_has_its_flag_after_a_snapshot_came_back_and_went() {
    let dir = Dir::new();
    dir.create("image", "cluster_size=64k", "1M");
    dir.with("image", async |image| {
        let write = async |byte| {
            let mut data = vec![byte; 64 << 10];
            image.write(&Sgl::from_slice(&mut data), 0).await.unwrap();
        };
        write(1).await;
        image.create_snapshot("first", DATE).await.unwrap();
        write(2).await;
        image.apply_snapshot("first").await.unwrap();
        image.delete_snapshot("first").await.unwrap();
    });
    assert_eq!(dir.content("image", None)[..2], [1, 1]);
    dir.check("image");
}
