// SPDX-License-Identifier: Apache-2.0
//! `lunette-sim`: runs seeds until one fails, or so many, or so long.
#![allow(clippy::print_stdout, reason = "figures and findings are its output")]
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::crash::explore::{Failure, Figures, run};
use sim::crash::planted::Planted;
use sim::crash::qemu::Qemu;
use sim::crash::shrink::shrink;
use sim::crash::workload::{Driven, Record};

/// Of how many images qemu-img judges one, where it is there.
const QEMU_CHECK: u64 = 2000;

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
    /// Drive this in place of what the seed draws: engine, or stack (ring, logical unit, engine).
    #[arg(long)]
    drive: Option<String>,
    /// Have one of N images checked by qemu-img, too; 0: none. Default: one of 2000, where there is
    /// a qemu-img.
    #[arg(long, value_name = "N")]
    qemu_check: Option<u64>,
    /// Print a line of figures each second.
    #[arg(long)]
    progress: bool,
}

fn print(figures: &Figures, seeds: u64, began: Instant) {
    let Figures { steps, nanoseconds, crashes, by_qemu, operations, leaks, kept, places } = figures;
    println!(
        "figures seeds={seeds} steps={steps} nanoseconds={nanoseconds} crashes={crashes} \
         by_qemu={by_qemu} operations={operations} leaks={leaks} kept={kept} milliseconds={}",
        began.elapsed().as_millis()
    );
    for ((kind, phase), count) in places {
        println!("place {kind:?} {phase:?} {count}");
    }
}

/// What the options ask for, beside seeds.
struct Asked {
    bug: Option<Planted>,
    driven: Option<Driven>,
    qemu: Option<Qemu>,
}

impl Asked {
    fn of(arguments: &Arguments) -> Result<Asked, String> {
        let bug = match arguments.plant.as_deref() {
            None => None,
            Some(name) => Some(Planted::named(name).ok_or_else(|| {
                let names = Planted::ALL.map(|(name, _)| name).join(", ");
                format!("--plant {name}: there is no such bug; there are {names}")
            })?),
        };
        let driven = match arguments.drive.as_deref() {
            None => None,
            Some(name) => Some(
                Driven::named(name)
                    .ok_or_else(|| format!("--drive {name}: it has to be engine or stack"))?,
            ),
        };
        let qemu = match arguments.qemu_check {
            Some(0) => None,
            Some(every) => Some(Qemu::new(every)?),
            None => Qemu::new(QEMU_CHECK).ok(),
        };
        Ok(Asked { bug, driven, qemu })
    }

    fn record(&self, seed: u64) -> Record {
        let record = match self.driven {
            Some(driven) => Record::drawn_for(seed, driven),
            None => Record::drawn(seed),
        };
        Record { bug: self.bug, ..record }
    }
}

/// Prints the shortest run that fails in the same way.
fn trace(record: Record, failure: Failure) {
    let all = record.ops.len();
    let (record, failure) = shrink(record, failure, Duration::from_secs(20));
    println!("trace {} of {all} operations:\n{record}", record.ops.len());
    println!("at step {}: {}", failure.step, failure.why);
    failure.log.iter().for_each(|event| println!("  {event}"));
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let asked = match Asked::of(&arguments) {
        Ok(asked) => asked,
        Err(why) => {
            println!("{why}");
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
        let record = asked.record(seed);
        if let Err(failure) = run(&record, asked.qemu.as_ref(), 0, &mut figures) {
            failures += 1;
            println!("failure seed={seed} after={seeds} {}", failure.why);
            if !arguments.survey {
                trace(record, failure);
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
