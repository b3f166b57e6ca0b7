// SPDX-License-Identifier: Apache-2.0
//! Finds a shorter run that fails: fewer operations, less side by side, fewer faults.
use std::time::{Duration, Instant};

use io_engine::sim::Knobs;

use crate::crash::explore::{Failure, Figures, run};
use crate::crash::image::Filled;
use crate::crash::workload::Record;

/// How often a shorter run is tried, each time with other crashes.
const TRIES: u64 = 12;
/// How many events of the world are kept.
const LOG: usize = 60;

/// What kind of failure it is: a shorter run is to fail in the same way.
fn class(failure: &Failure) -> usize {
    let classes = ["of a read", "of the disk", "snapshot", "bitmap", "the image: ", "stands still"];
    classes.iter().position(|class| failure.why.contains(class)).unwrap_or(classes.len())
}

fn fails(record: &Record, like: usize, until: Instant) -> Option<(Record, Failure)> {
    for n in 0..TRIES {
        if Instant::now() > until {
            return None;
        }
        let every = if n < TRIES / 2 { record.every } else { 1 };
        let crash_seed = record.crash_seed.wrapping_add(n);
        let record = Record { crash_seed, every, ..record.clone() };
        if let Err(failure) = run(&record, None, LOG, &mut Figures::default())
            && class(&failure) == like
        {
            return Some((record, failure));
        }
    }
    None
}

/// The shortest run that is found in `time`.
pub fn shrink(record: Record, failure: Failure, time: Duration) -> (Record, Failure) {
    let until = Instant::now() + time;
    let like = class(&failure);
    let mut best = (record, failure);
    let mut piece = best.0.ops.len().div_ceil(2);
    while piece > 0 && Instant::now() < until {
        let mut at = 0;
        while at < best.0.ops.len() {
            let mut shorter = best.0.clone();
            shorter.ops.drain(at..(at + piece).min(best.0.ops.len()));
            match fails(&shorter, like, until) {
                Some(found) => best = found,
                None => at += piece,
            }
        }
        piece /= 2;
    }
    let simpler: [fn(&mut Record); 12] = [
        |record| record.knobs = Knobs { inline: record.knobs.inline, ..Knobs::CALM },
        |record| record.knobs = Knobs::CALM,
        |record| record.depth = 1,
        |record| record.depth = record.depth.div_ceil(2),
        |record| record.cache = 0,
        |record| record.ops.iter_mut().for_each(|op| op.cancel = None),
        |record| record.fatal = 0,
        |record| record.keeps_house = false,
        |record| record.compress = false,
        |record| record.format.bitmaps = None,
        |record| record.knobs.leap = 0,
        |record| record.format.filled = Filled::default(),
    ];
    for change in simpler {
        let mut record = best.0.clone();
        change(&mut record);
        if let Some(found) = fails(&record, like, until) {
            best = found;
        }
    }
    best
}
