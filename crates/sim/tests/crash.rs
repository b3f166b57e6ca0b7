// SPDX-License-Identifier: Apache-2.0
//! The engine, alone and beneath ring and logical unit, keeps its promises in some worlds, and one
//! with a bug is found out.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
use std::time::{Duration, Instant};

use sim::crash::explore::{Figures, run, run_seed};
use sim::crash::planted::{Bug, Planted};
use sim::crash::qemu::Qemu;
use sim::crash::workload::{Driven, Record};

/// Runs seeds for some seconds.
fn keeps_its_promises(driven: Driven) -> Figures {
    let (mut figures, began) = (Figures::default(), Instant::now());
    let qemu = Qemu::new(200).unwrap();
    for seed in 0..1000 {
        let record = Record::drawn_for(seed, driven);
        if let Err(failure) = run(&record, Some(&qemu), 0, &mut figures) {
            panic!("seed {seed}, step {}: {}", failure.step, failure.why);
        }
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

/// After how many seeds a bug is found.
fn seeds_for(bug: Planted) -> Option<u64> {
    let found = |&seed: &u64| run_seed(seed, Some(bug), &mut Figures::default()).is_err();
    (0..200).find(found).map(|seed| seed + 1)
}

#[test]
fn bugs_below_the_engine_are_found() {
    for bug in [Bug::NoSync, Bug::NoImageSync, Bug::NoDataSync, Bug::TornWrite, Bug::NoPunch] {
        let bug = Planted::Storage(bug);
        let seeds = seeds_for(bug);
        assert!(seeds.is_some(), "{bug:?} is not found by 200 seeds");
        println!("{bug:?}: found after {seeds:?} seeds");
    }
}

/// The other planted bugs take tens of seeds each; those of the engine's own tests are found there.
#[test]
fn a_size_that_is_written_before_what_is_new_reads_as_zeroes_is_found() {
    let seeds = seeds_for(Planted::Engine(qcow2::Bug::SizeBeforeZeroes));
    assert!(seeds.is_some(), "not found by 200 seeds");
    println!("found after {seeds:?} seeds");
}
