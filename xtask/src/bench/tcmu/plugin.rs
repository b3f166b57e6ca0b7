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

/// The C daemon is measured twice: what its two runs differ by is the measure's.
const WORDS: &str = "The work of the handler is the same under all hosts; what differs is what its host \
    adds. Each has a VM of its own, with an image made and filled in the same way.";

/// A run: who it is in the tables, and what it met and measured.
struct Host {
    name: &'static str,
    met: Vec<(String, String)>,
    measured: Measured,
}

/// Measures all hosts, and writes what is to be said of them.
pub(super) fn measure(ours: &str, c: &CDaemon, isolation: bool) -> Result<String> {
    let setting = &SETTINGS[0];
    let ours = format!("{ours} --handler-path {}", install::unpacked::plugin(HANDLER)?.display());
    let hosted = |daemon, who, place| Run { plugin: Some(place), ..Run::new(KIND, daemon, who) };
    let mut runs = VecDeque::from([
        hosted(&c.command, "c", "theirs"),
        hosted(&ours, "plugin", "inside"),
        hosted(&c.command, "c-again", "theirs"),
    ]);
    if isolation {
        runs.push_back(hosted(&ours, "isolated", "apart"));
    }
    // Neither memory nor the start of many devices is of interest here.
    let mut shares = run_all(setting, runs, true)?;
    let mut take = |name, who| -> Result<Host> {
        let share = shares.remove(&(KIND, who)).context("not measured")?;
        let (met, measured) = (parse::met(&share)?, parse::measured(&share, &[1])?);
        Ok(Host { name, met, measured })
    };
    let (theirs, again) = (take("the C daemon", "c")?, take("once more", "c-again")?);
    let inside = take("tcmu-runner", "plugin")?;
    let apart = if isolation { Some(take("isolated", "isolated")?) } else { None };

    let option = if isolation { " --isolation" } else { "" };
    let command = format!("cargo xtask bench tcmu --plugin{option}");
    let guest = &inside.measured.about;
    let c_version = theirs.measured.about.fact("daemon");
    let mut text = about(&command, guest, guest.fact("daemon"), Some(c_version))?;
    let words = format!("{WORDS} {}", setting.words);
    text += &format!("\n## A plugin: Debian's {HANDLER}\n\n{}\n", sections::wrap(&words));
    let hosts = [Some(&theirs), Some(&again), Some(&inside), apart.as_ref()];
    let hosts: Vec<&Host> = hosts.into_iter().flatten().collect();
    text += &format!("\nWhat the jobs met:\n\n{}\n", met(&hosts)?);
    text += &sections::wrap(&spread(&theirs.measured.jobs, &again.measured.jobs));
    let pair = |host: &Host| Pair {
        kind: KIND,
        ours: host.measured.clone(),
        c: Some(theirs.measured.clone()),
    };
    text += &format!("\n\n### In the daemon's process\n\n{}", table(&pair(&inside)));
    if let Some(apart) = &apart {
        text += &format!("\n### In a process of its own\n\n{}", table(&pair(apart)));
        let price = price(&inside.measured.jobs, &apart.measured.jobs);
        text += &format!("\n{}\n", sections::wrap(&price));
    }
    Ok(text)
}

/// What the jobs met, of each host.
fn met(hosts: &[&Host]) -> Result<String> {
    let names: Vec<&str> = hosts.iter().map(|host| host.name).collect();
    let mut out = format!("| | {} |\n|{}\n", names.join(" | "), " --- |".repeat(hosts.len() + 1));
    for (row, (what, _)) in hosts.first().map_or(&[][..], |host| &host.met).iter().enumerate() {
        let of = |host: &&Host| {
            let found = host.met.get(row).filter(|(name, _)| name == what);
            found.map(|(_, number)| number.clone()).context("hosts met different things")
        };
        let numbers = hosts.iter().map(of).collect::<Result<Vec<_>>>()?;
        out += &format!("| {what} | {} |\n", numbers.join(" | "));
    }
    Ok(out)
}

/// What two runs of the same daemon differ by.
fn spread(one: &[Job], other: &[Job]) -> String {
    let greatest = |of: fn(&Job) -> f64| {
        let each = one.iter().zip(other).map(|(a, b)| (of(b) / of(a) - 1.0).abs());
        100.0 * each.fold(0.0, f64::max)
    };
    format!(
        "Two runs of the C daemon differ by at most {:.1} % in CPU per I/O and {:.1} % in IOPS.",
        greatest(|job| job.cpu_us),
        greatest(|job| job.iops)
    )
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
    fn two_runs_differ_by_the_row_that_differs_most() {
        let one = jobs(100.0, 40.0);
        let mut other = jobs(101.0, 40.0);
        other[3] = Job { iops: 95.0, cpu_us: 41.0 };
        let text = spread(&one, &other);
        assert!(text.contains("2.5 % in CPU per I/O and 5.0 % in IOPS"), "{text}");
    }

    #[test]
    fn what_jobs_met_stands_side_by_side() {
        let about = parse::About::default();
        let measured = Measured { jobs: Vec::new(), ready_us: 0.0, memory: Vec::new(), about };
        let host = |name, number: &str| Host {
            name,
            met: vec![("extents".to_owned(), number.to_owned())],
            measured: measured.clone(),
        };
        let table = met(&[&host("a", "1"), &host("b", "2")]).unwrap();
        assert_eq!(table, "| | a | b |\n| --- | --- | --- |\n| extents | 1 | 2 |\n");
        let other = Host { met: Vec::new(), ..host("c", "") };
        assert!(met(&[&host("a", "1"), &other]).is_err());
    }

    #[test]
    fn the_price_is_a_difference_of_cpu_time_and_a_ratio_of_iops() {
        let text = price(&jobs(100.0, 40.0), &jobs(80.0, 52.5));
        assert!(text.contains("+12.5 us of CPU for each I/O of 4k"), "{text}");
        assert!(text.ends_with("0.80 times the IOPS."), "{text}");
    }
}
