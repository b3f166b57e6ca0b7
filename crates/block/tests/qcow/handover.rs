// SPDX-License-Identifier: Apache-2.0
//! An image takes the place of another that shares files with it: snapshots under I/O.
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use block::{AnyStore, Error, ErrorKind, OpenOptions, Store, open};
use io_engine::ofd;

use crate::common::*;

/// Opens an image in the place of `old`, as a device does that is told of another `dev_config`.
async fn succeed(old: &AnyStore, image: &Path) -> Result<AnyStore, Error> {
    old.close().await.unwrap();
    let options = OpenOptions { predecessor: Some(old.held()), ..OpenOptions::default() };
    open(&config(image), &options).await
}

/// Whether QEMU could write the image. Takes no lock.
fn is_free(image: &Path) -> bool {
    let file = std::fs::File::open(image).unwrap();
    ![100, 101, 103, 201, 203].iter().any(|&at| ofd::is_locked(file.as_fd(), at).unwrap())
}

/// Runs one of QEMU's programs; whether it got the image.
fn qemu_gets(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; install qemu-utils"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || text.contains("lock"), "{program} {args:?}: {text}");
    output.status.success()
}

fn can_be_written(image: &Path) -> bool {
    qemu_gets("qemu-io", &["-f", "qcow2", "-c", "flush", image.to_str().unwrap()])
}

fn can_be_read(image: &Path) -> bool {
    qemu_gets("qemu-img", &["map", "-f", "qcow2", image.to_str().unwrap()])
}

/// An overlay on an image that is open, as `qemu-img create -u` makes it.
fn overlay(dir: &Dir, name: &str, below: &Path) -> PathBuf {
    let path = dir.path(name);
    let (top, below) = (path.to_str().unwrap(), below.to_str().unwrap());
    qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, top, "4M"]);
    path
}

#[test]
fn a_snapshot_is_taken_and_left_again_and_nobody_gets_the_image_in_between() {
    let dir = Dir::new();
    let s0 = dir.create("s0", "", 4 * MIB);
    let s1 = overlay(&dir, "s1", &s0);
    on_engine(async {
        let mut store = open_image(&s0).await;
        write(&store, 0, &[1; 4096]).await.unwrap();
        let watcher = Watcher::start(s0.clone());
        for round in 0..20u8 {
            let snapshot = succeed(&store, &s1).await.unwrap();
            drop(std::mem::replace(&mut store, snapshot));
            write(&store, 8192, &[round; 512]).await.unwrap();
            assert_eq!(read(&store, 0, 4096).await.unwrap(), [1; 4096]);
            let base = succeed(&store, &s0).await.unwrap();
            drop(std::mem::replace(&mut store, base));
            assert_eq!(read(&store, 8192, 512).await.unwrap(), [0; 512]);
        }
        assert!(!watcher.stop(), "the image was free for a moment");
        // Served as the image itself, nobody else gets it ...
        assert!(!can_be_read(&s0) && !can_be_written(&s0));
        let snapshot = succeed(&store, &s1).await.unwrap();
        drop(store);
        // ... as a backing file, others may read it.
        assert!(can_be_read(&s0) && !can_be_written(&s0) && !can_be_written(&s1));
        drop(snapshot);
        assert!(can_be_written(&s0) && can_be_written(&s1));
    });
    assert_eq!(check(&s0), Check::Clean);
    assert_eq!(check(&s1), Check::Clean);
    assert_eq!(&content(&s1)[8192..8704], &[19; 512]);
}

/// Asks without a pause whether an image is free, in a thread of its own.
struct Watcher {
    end: Arc<AtomicBool>,
    thread: thread::JoinHandle<bool>,
}

impl Watcher {
    fn start(image: PathBuf) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let until = end.clone();
        let thread = thread::spawn(move || {
            let mut free = false;
            while !until.load(Ordering::Relaxed) {
                free |= is_free(&image);
            }
            free
        });
        Watcher { end, thread }
    }

    /// Whether it ever was.
    fn stop(self) -> bool {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn what_the_old_image_has_in_memory_is_seen_by_the_overlay() {
    let dir = Dir::new();
    let s0 = dir.create("s0", "", 4 * MIB);
    let mut random = Random(1);
    let mut expected = vec![0; 4 << 20];
    on_engine(async {
        let mut store = open_image(&s0).await;
        let mut below = s0.clone();
        for depth in 1..8 {
            for _ in 0..40 {
                let at = usize::try_from(random.next() % (4 << 20)).unwrap() & !511;
                let len = (64 << 10).min(expected.len() - at);
                let byte = random.next().to_le_bytes()[0];
                write(&store, at as u64, &vec![byte; len]).await.unwrap();
                expected[at..at + len].fill(byte);
            }
            store.discard(512 * KIB, 192 * KIB).await.unwrap();
            expected[512 << 10..(512 + 192) << 10].fill(0);
            let top = overlay(&dir, &format!("s{depth}"), &below);
            let next = succeed(&store, &top).await.unwrap();
            drop(std::mem::replace(&mut store, next));
            assert!(read(&store, 0, 4 << 20).await.unwrap() == expected, "depth {depth}");
            assert_eq!(check(&below), Check::Clean);
            below = top;
        }
        store.close().await.unwrap();
        drop(store);
        assert!(content(&below) == expected);
    });
}

#[test]
fn a_base_that_another_device_uses_too_is_not_written() {
    let dir = Dir::new();
    let s0 = dir.create("s0", "", 4 * MIB);
    let (s1, s2) = (overlay(&dir, "s1", &s0), overlay(&dir, "s2", &s0));
    on_engine(async {
        let store = open_image(&s1).await;
        let other = open_image(&s2).await;
        let began = Instant::now();
        let e = succeed(&store, &s0).await.unwrap_err();
        assert!(matches!(e.kind, ErrorKind::InUse), "{e}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // The old one is as it was, and holds no more than before.
        write(&store, 0, &[5; 512]).await.unwrap();
        assert!(can_be_read(&s0) && !can_be_written(&s0) && !can_be_written(&s1));
        drop(other);
        let base = succeed(&store, &s0).await.unwrap();
        drop(store);
        write(&base, 0, &[6; 512]).await.unwrap();
        base.close().await.unwrap();
    });
}
