// SPDX-License-Identifier: Apache-2.0
//! kill -9 at any moment: the image has no errors afterwards, and what was acknowledged is there.
//!
//! The child is this test's own program, run with [`child`] as its one test. It reports on its
//! standard output each operation before it begins and when it is acknowledged.
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use block::{AnyStore, Store};
use io_engine::{Backend, Started, TaskSet};

use crate::common::*;

/// The unit of the child's operations; several share a cluster.
const SLOT: u64 = 16 * KIB;
const SLOTS: u64 = 1024;
const WORKERS: u64 = 8;
const IMAGE: &str = "QCOW_CRASH_IMAGE";
const SEED: &str = "QCOW_CRASH_SEED";

/// What is written to a slot; version 0 is zeroes.
fn pattern(slot: u64, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; usize::try_from(SLOT).unwrap()];
    }
    Random(slot << 40 ^ version).bytes(usize::try_from(SLOT).unwrap())
}

fn report(line: std::fmt::Arguments<'_>) {
    // One write to the pipe for each line, so that none is cut.
    let line = format!("{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// Works on every `WORKERS`th slot until the process is killed.
async fn work(store: &AnyStore, worker: u64, seed: u64) {
    let mut random = Random(seed ^ worker << 32);
    let mut version = seed;
    loop {
        let slot = random.below(SLOTS / WORKERS) * WORKERS + worker;
        version += 1;
        match random.below(12) {
            // Clusters of 4 KiB are freed and used again by these.
            0 => {
                report(format_args!("begin {slot} 0"));
                store.discard(slot * SLOT, SLOT).await.unwrap();
                report(format_args!("done {slot} 0"));
            }
            1 => {
                report(format_args!("begin {slot} 0"));
                store.write_zeroes(slot * SLOT, SLOT, random.below(2) == 0).await.unwrap();
                report(format_args!("done {slot} 0"));
            }
            _ => {
                report(format_args!("begin {slot} {version}"));
                write(store, slot * SLOT, &pattern(slot, version)).await.unwrap();
                report(format_args!("done {slot} {version}"));
            }
        }
        // Let the others go on: what the page cache takes never waits.
        io_engine::sleep(Duration::ZERO).await;
    }
}

#[test]
#[ignore = "the child of acknowledged_data_survives_kill_9, which starts it"]
fn child() {
    let image = std::env::var(IMAGE).expect("this is the child of another test");
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let backend = if seed.is_multiple_of(2) { Backend::IoUring } else { Backend::Pool };
    with(backend, async {
        let store = open_image(Path::new(&image)).await;
        let mut set = TaskSet::new();
        for worker in 0..WORKERS {
            if let Started::Done(()) = set.push(work(&store, worker, seed << 24)) {
                unreachable!("it works until it is killed");
            }
        }
        set.next().await;
    });
}

/// What may be in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// `None`: what was there before the round.
    acknowledged: Option<u64>,
    begun: Option<u64>,
}

/// Runs the child for a while and kills it.
fn run_child(image: &Path, seed: u64, life: Duration, slots: &mut HashMap<u64, Slot>) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(IMAGE, image)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut killer = None;
    let pid = rustix::process::Pid::from_child(&child);
    let mut acknowledged = 0;
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<_> = line.split_whitespace().collect();
        // The first stands behind the name of the test.
        let &[.., event @ ("begin" | "done"), slot, version] = words.as_slice() else {
            continue;
        };
        let slot = slots.entry(slot.parse().unwrap()).or_default();
        let version = version.parse().unwrap();
        if event == "begin" {
            slot.begun = Some(version);
            continue;
        }
        *slot = Slot { acknowledged: Some(version), begun: None };
        acknowledged += 1;
        killer.get_or_insert_with(|| {
            std::thread::spawn(move || {
                std::thread::sleep(life);
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            })
        });
    }
    killer.expect("the child did nothing").join().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    acknowledged
}

/// Compares what is in the image after a round with what was there before it and was written.
fn verify(content: &[u8], before: &[u8], slots: &HashMap<u64, Slot>, what: &str) {
    for number in 0..SLOTS {
        let slot = slots.get(&number).copied().unwrap_or_default();
        let start = usize::try_from(number * SLOT).unwrap();
        let place = start..start + usize::try_from(SLOT).unwrap();
        let old = match slot.acknowledged {
            Some(version) => pattern(number, version),
            None => before[place.clone()].to_vec(),
        };
        // What was under way may be there in part.
        let new = slot.begun.map(|version| pattern(number, version));
        for (i, block) in content[place].chunks(512).enumerate() {
            let range = i * 512..(i + 1) * 512;
            let is_new = new.as_ref().is_some_and(|new| block == &new[range.clone()]);
            assert!(
                block == &old[range] || is_new,
                "{what}: slot {number} block {i} after {slot:?}: begins with {:?}",
                &block[..8]
            );
        }
    }
}

fn kill_repeatedly(options: &str, backing: bool, rounds: u64) {
    let dir = Dir::new();
    let mut options = options.to_owned();
    let mut expected = vec![0; usize::try_from(SLOT * SLOTS).unwrap()];
    if backing {
        let raw = dir.path("raw");
        expected = Random(7).bytes(expected.len());
        std::fs::write(&raw, &expected).unwrap();
        options = format!("{options},backing_file={},backing_fmt=raw", raw.display());
    }
    let image = dir.create("image", &options, SLOT * SLOTS);
    let mut random = Random(rounds);
    let mut leaks = 0;
    let mut acknowledged = 0;
    for round in 1..=rounds {
        let life = Duration::from_micros(500 + random.below(40_000));
        let mut slots = HashMap::new();
        acknowledged += run_child(&image, round, life, &mut slots);
        if check(&image) == Check::Leaks {
            leaks += 1;
        }
        let there = content(&image);
        verify(&there, &expected, &slots, &format!("{options} round {round}"));
        expected = there;
        // It opens as it is, leaks or not.
        on_engine(async { open_image(&image).await.close().await.unwrap() });
    }
    println!("{options}: {rounds} kills, {acknowledged} acknowledged, {leaks} with leaks");
    assert!(acknowledged > rounds);
}

#[test]
fn acknowledged_data_survives_kill_9_with_clusters_of_4_kib() {
    kill_repeatedly("cluster_size=4096", false, 12);
}

#[test]
fn acknowledged_data_survives_kill_9_with_clusters_of_64_kib() {
    kill_repeatedly("cluster_size=65536", false, 12);
}

#[test]
fn acknowledged_data_survives_kill_9_on_a_backing_file() {
    kill_repeatedly("cluster_size=65536", true, 8);
}

#[test]
fn acknowledged_data_survives_kill_9_in_a_version_2_image() {
    kill_repeatedly("cluster_size=512,compat=0.10", false, 8);
}
