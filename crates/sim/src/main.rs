// SPDX-License-Identifier: Apache-2.0
//! `lunette-sim`: runs seeds until one fails, or so many, or so long.
#![allow(clippy::print_stdout, reason = "figures and findings are its output")]
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::crash::explore::{Figures, run, run_seed};
use sim::crash::shrink::shrink;
use sim::crash::storage::Planted;
use sim::crash::workload::Record;

/// Runs the qcow2 engine in simulated worlds and judges what is found after each crash.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// From one seed to the next (so that processes share the seeds).
    #[arg(long, default_value_t = 1)]
    stride: u64,
    /// How many seeds.
    #[arg(long, default_value_t = u64::MAX)]
    seeds: u64,
    /// For how many seconds.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// Go on after a failure, and print no trace of it.
    #[arg(long)]
    survey: bool,
    /// A bug to plant.
    #[arg(long)]
    plant: Option<String>,
    /// Print a line of figures each second.
    #[arg(long)]
    progress: bool,
}

fn print(figures: &Figures, seeds: u64, began: Instant) {
    let Figures { steps, nanoseconds, crashes, operations, leaks, kept, places } = figures;
    println!(
        "figures seeds={seeds} steps={steps} nanoseconds={nanoseconds} crashes={crashes} \
         operations={operations} leaks={leaks} kept={kept} milliseconds={}",
        began.elapsed().as_millis()
    );
    for ((kind, phase), count) in places {
        println!("place {kind:?} {phase:?} {count}");
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bug = match arguments.plant.as_deref().map(Planted::named) {
        None => None,
        Some(Some(bug)) => Some(bug),
        Some(None) => {
            println!("no such bug; there are:");
            Planted::ALL.iter().for_each(|(name, _)| println!("  {name}"));
            return ExitCode::from(2);
        }
    };
    let (began, mut told) = (Instant::now(), Instant::now());
    let limit = Duration::from_secs(arguments.seconds);
    let mut figures = Figures::default();
    let (mut seeds, mut failures) = (0, 0);
    while seeds < arguments.seeds && began.elapsed() < limit {
        let seed = arguments.first + seeds * arguments.stride;
        seeds += 1;
        if let Err(failure) = run_seed(seed, bug, &mut figures) {
            failures += 1;
            println!("failure seed={seed} after={seeds} {}", failure.why);
            if !arguments.survey {
                let record = Record { bug, ..Record::drawn(seed) };
                let all = record.ops.len();
                let time = Duration::from_secs(20);
                let (record, failure) = shrink(record, failure, time);
                println!("trace {} of {all} operations:\n{record}", record.ops.len());
                println!("at step {}: {}", failure.step, failure.why);
                let _ = run(&record, 60, &mut Figures::default()).map_err(|failure| {
                    failure.log.iter().for_each(|event| println!("  {event}"));
                });
                break;
            }
        }
        if arguments.progress && told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            print(&figures, seeds, began);
        }
    }
    print(&figures, seeds, began);
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
