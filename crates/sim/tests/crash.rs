// SPDX-License-Identifier: Apache-2.0
//! The engine keeps its promises in some worlds, and an engine with a bug is found out.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
use std::time::{Duration, Instant};

use sim::crash::explore::{Figures, run_seed};
use sim::crash::storage::{Bug, Planted};

#[test]
fn the_engine_keeps_its_promises() {
    let (mut figures, began) = (Figures::default(), Instant::now());
    for seed in 0..1000 {
        if let Err(failure) = run_seed(seed, None, &mut figures) {
            panic!("seed {seed}, step {}: {}", failure.step, failure.why);
        }
        if began.elapsed() > Duration::from_secs(10) {
            break;
        }
    }
    assert!(figures.crashes > 100 && figures.places.len() > 8, "{figures:?}");
}

#[test]
fn a_seed_is_a_run() {
    let figures = |seed| {
        let mut figures = Figures::default();
        run_seed(seed, None, &mut figures).unwrap();
        (figures.steps, figures.nanoseconds, figures.crashes, figures.leaks, figures.places)
    };
    for seed in 0..2 {
        assert_eq!(figures(seed), figures(seed));
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
