// SPDX-License-Identifier: Apache-2.0
//! A handler written in C, Debian's handler_qcow.so: under the daemon that it was written for, under
//! ours, and in a process of its own. The work of the handler is the same in all of them; what
//! differs is what its host adds.

use std::collections::VecDeque;

use anyhow::{Context, Result};

use super::c_daemon::CDaemon;
use super::parse::{self, JOBS, Job, Measured};
use super::report::{self, Pair};
use super::{Run, SETTINGS, about, measure as run_all};
use crate::bench::{median, sections};
use crate::install;

const HANDLER: &str = "handler_qcow.so";
const KIND: &str = "qcow";

/// Measures all hosts, and writes what is to be said of them.
pub(super) fn measure(ours: &str, c: &CDaemon, isolation: bool) -> Result<String> {
    let setting = &SETTINGS[0];
    let ours = format!("{ours} --handler-path {}", install::unpacked::plugin(HANDLER)?.display());
    let hosted = |daemon, who, place| Run { plugin: Some(place), ..Run::new(KIND, daemon, who) };
    let mut runs =
        VecDeque::from([hosted(&c.command, "c", "theirs"), hosted(&ours, "plugin", "inside")]);
    if isolation {
        runs.push_back(hosted(&ours, "isolated", "apart"));
    }
    // Neither memory nor the start of many devices is of interest here.
    let mut shares = run_all(setting, runs, true)?;
    let mut take = |who| -> Result<Measured> {
        parse::measured(&shares.remove(&(KIND, who)).context("not measured")?, &[1])
    };
    let (theirs, inside) = (take("c")?, take("plugin")?);
    let apart = if isolation { Some(take("isolated")?) } else { None };

    let option = if isolation { " --isolation" } else { "" };
    let command = format!("cargo xtask bench tcmu --plugin{option}");
    let daemon = inside.about.fact("daemon").to_owned();
    let mut text = about(&command, &inside.about, &daemon, Some(theirs.about.fact("daemon")))?;
    text += &format!("\n## A plugin: Debian's {HANDLER}\n\n{}\n", sections::wrap(setting.words));
    let pair = |ours: &Measured| Pair { kind: KIND, ours: ours.clone(), c: Some(theirs.clone()) };
    text += &format!("\n### In the daemon's process\n\n{}", table(&pair(&inside)));
    if let Some(apart) = &apart {
        text += &format!("\n### In a process of its own\n\n{}", table(&pair(apart)));
        text += &format!("\n{}\n", price(&inside.jobs, &apart.jobs));
    }
    Ok(text)
}

fn table(pair: &Pair) -> String {
    let reach = pair.c.as_ref().map(|c| reach(&pair.ours.jobs, &c.jobs)).unwrap_or_default();
    format!("{}\n{reach}\n", report::jobs(pair))
}

/// In how many rows our host is no dearer than the C daemon, and no slower with many commands.
fn reach(ours: &[Job], c: &[Job]) -> String {
    let rows = || JOBS.iter().zip(ours.iter().zip(c));
    let cpu = rows().filter(|(_, (ours, c))| ours.cpu_us <= c.cpu_us).count();
    let deep = |job: &(&str, &str, u32)| job.2 > 1;
    let all = JOBS.iter().filter(|job| deep(job)).count();
    let iops = rows().filter(|(job, (ours, c))| deep(job) && ours.iops >= c.iops).count();
    format!(
        "CPU per I/O is at most the C daemon's in {cpu} of {} rows; \
         IOPS at QD 32 are at least as many in {iops} of {all}.",
        JOBS.len()
    )
}

/// What a process of its own costs, each I/O.
fn price(inside: &[Job], apart: &[Job]) -> String {
    let rows = || inside.iter().zip(apart);
    let more = |bs| {
        let all = JOBS.iter().zip(rows()).filter(|((_, size, _), _)| *size == bs);
        median(all.map(|(_, (inside, apart))| apart.cpu_us - inside.cpu_us).collect())
    };
    let iops = median(rows().map(|(inside, apart)| apart.iops / inside.iops).collect());
    format!(
        "Against the daemon's own process, by the median of the rows: {:+.1} us of CPU for each I/O \
         of 4k, {:+.1} us for one of 64k; {iops:.2} times the IOPS.",
        more("4k"),
        more("64k")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(iops: f64, cpu_us: f64) -> Vec<Job> {
        vec![Job { iops, cpu_us }; JOBS.len()]
    }

    #[test]
    fn the_aims_are_the_c_daemons_figures() {
        let c = jobs(100.0, 40.0);
        let text = reach(&jobs(100.0, 40.0), &c);
        assert!(text.contains("in 12 of 12 rows") && text.ends_with("in 6 of 6."), "{text}");
        let text = reach(&jobs(99.0, 40.1), &c);
        assert!(text.contains("in 0 of 12 rows") && text.ends_with("in 0 of 6."), "{text}");
    }

    #[test]
    fn the_price_is_a_difference_of_cpu_time_and_a_ratio_of_iops() {
        let text = price(&jobs(100.0, 40.0), &jobs(80.0, 52.5));
        assert!(text.contains("+12.5 us of CPU for each I/O of 4k"), "{text}");
        assert!(text.ends_with("0.80 times the IOPS."), "{text}");
    }
}
