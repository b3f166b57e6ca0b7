// SPDX-License-Identifier: Apache-2.0
//! The engine, alone and beneath ring and logical unit, keeps its promises in some worlds, and one
//! with a bug is found out.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
use std::time::{Duration, Instant};

use sim::crash::explore::{Figures, run, run_seed};
use sim::crash::planted::Planted;
use sim::crash::qemu::Qemu;
use sim::crash::workload::{Driven, Record};

/// Runs seeds for some seconds.
fn keeps_its_promises(driven: Driven) -> Figures {
    let (mut figures, began) = (Figures::default(), Instant::now());
    let qemu = Qemu::new(200).unwrap();
    for seed in 0..1000 {
        let record = Record::drawn_for(seed, driven);
        let failure = run(&record, Some(&qemu), 0, &mut figures).err();
        assert!(failure.is_none(), "seed {seed}: {:?}", failure.map(|failure| failure.why));
        if began.elapsed() > Duration::from_secs(6) {
            break;
        }
    }
    figures
}

#[test]
fn the_engine_keeps_its_promises() {
    let figures = keeps_its_promises(Driven::Engine);
    assert!(figures.crashes > 100 && figures.places.len() > 8, "{figures:?}");
}

#[test]
fn ring_logical_unit_and_engine_keep_their_promises_together() {
    let figures = keeps_its_promises(Driven::Stack);
    assert!(figures.crashes > 100 && figures.places.len() > 8, "{figures:?}");
}

/// Whether a record has something.
type Has = fn(&Record) -> bool;

#[test]
fn seeds_draw_all_that_an_image_can_have_and_all_that_is_done_to_it() {
    let records: Vec<Record> = (0..300).map(Record::drawn).collect();
    let has: [(&str, Has); 6] = [
        ("snapshots", Record::has_snapshots),
        ("bitmaps", |record| record.format.bitmaps.is_some()),
        ("an unknown extension", |record| record.format.unknown),
        ("compression", |record| record.compress),
        ("two files below it", |record| record.chain.is_some()),
        ("a clock that leaps", |record| record.knobs.leap > 0),
    ];
    for (what, has) in has {
        let count = records.iter().filter(|record| has(record)).count();
        assert!(count > 10, "{what}: {count} of 300");
    }
}

#[test]
fn a_seed_is_a_run() {
    let figures = |seed, driven| {
        let mut figures = Figures::default();
        run(&Record::drawn_for(seed, driven), None, 0, &mut figures).unwrap();
        (figures.steps, figures.nanoseconds, figures.crashes, figures.leaks, figures.places)
    };
    for driven in [Driven::Engine, Driven::Stack] {
        assert_eq!(figures(0, driven), figures(0, driven));
    }
}

/// Planted bugs, and how many of the first seeds the search passes over because they take long and
/// do not find it. (`lunette-sim --plant NAME` tries those, too.)
const BUGS: [(&str, u64); 20] = [
    ("no-sync", 0),
    ("no-image-sync", 0),
    ("no-data-sync", 13),
    ("early-acknowledgement", 0),
    ("torn-write", 1),
    ("no-punch", 8),
    ("mapping-before-refcount", 25),
    ("reuse-before-unmapping", 1),
    ("half-table", 18),
    ("freed-under-read", 33),
    ("evicted-dirty", 32),
    ("flush-skips-data-file", 13),
    ("copy-without-barrier", 8),
    ("size-before-zeroes", 10),
    ("acknowledged-early", 104),
    ("snapshot-before-refcounts", 1),
    ("freed-before-apply", 7),
    ("flags-kept", 1),
    ("bitmap-unmarked", 182),
    ("packed-before-refcount", 0),
];

#[test]
fn each_planted_bug_is_found() {
    assert_eq!(BUGS.map(|(name, _)| name), Planted::ALL.map(|(name, _)| name));
    for (name, passed) in BUGS {
        let bug = Planted::named(name);
        let found = |&seed: &u64| run_seed(seed, bug, &mut Figures::default()).is_err();
        let seed = (passed..passed + 200).find(found);
        assert!(seed.is_some(), "{name} is not found by 200 seeds from {passed} on");
        println!("{name}: found by seed {seed:?}");
    }
}
