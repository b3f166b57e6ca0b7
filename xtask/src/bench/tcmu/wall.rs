// SPDX-License-Identifier: Apache-2.0
//! By the wall clock, on two CPUs. One run tells little: the same daemon has other figures in another
//! boot, as the host does other things. So all runs are in one boot, the daemons take turns, and what
//! counts is the median of the rounds' ratios, beside the least and the greatest.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::c_daemon::CDaemon;
use super::parse::{self, About, JOBS, Job};
use super::{about, boot, report, vm_of};
use crate::bench::{median, sections};

const WORDS: &str = "What a person sees in this VM. IOPS and CPU are medians of the rounds, of \
    which each has a run of each daemon with each backstore, in an order that turns; \"times\" is the \
    median of what the rounds' ratios are, with the least and the greatest.";

/// Measures in `rounds` rounds, and writes what is to be said of it.
pub(crate) fn measure(
    ours: &str,
    c: &CDaemon,
    kinds: &[&'static str],
    rounds: usize,
) -> Result<String> {
    let with_c = |kind: &&str| c.no_file.is_none() || *kind != "file";
    let c_kinds: Vec<&str> = kinds.iter().copied().filter(with_c).collect();
    let (all, count) = (kinds.join(","), rounds.to_string());
    let words = [ours, &all, &c.command, &c_kinds.join(","), "2", "256", &count];
    let mut vm = vm_of("rounds.sh", &words);
    vm.cpus = 2;
    vm.timeout = 600 + 240 * rounds as u64;
    let share = boot("wall", vm)?;
    let guest = About::read(&share)?;
    let (our, their) = (guest.fact("ours"), guest.fact("c"));
    let mut text = about("cargo xtask bench tcmu --wall", &guest, our, Some(their))?;
    write!(
        text,
        "\n## Two CPUs, by the wall clock, {rounds} rounds\n\n{}\n",
        sections::wrap(WORDS)
    )?;
    let mut medians = Vec::new();
    for kind in kinds {
        let runs = |who: &str| runs(&share, kind, who, rounds);
        let ours = runs("ours")?;
        let theirs = if with_c(kind) { Some(runs("c")?) } else { None };
        write!(text, "\n### {kind}\n\n{}", table(&ours, theirs.as_deref()))?;
        medians.push((0..JOBS.len()).map(|job| median_job(&ours, job)).collect::<Vec<_>>());
    }
    if let [file, qcow] = &medians[..] {
        let table = report::qcow_against_file(file, qcow);
        write!(text, "\n### qcow2, allocated, against a raw file\n\n{table}")?;
    }
    Ok(text)
}

/// The jobs of each round.
fn runs(share: &Path, kind: &str, who: &str, rounds: usize) -> Result<Vec<Vec<Job>>> {
    (0..rounds).map(|round| parse::jobs(&share.join(format!("{round}-{kind}-{who}")))).collect()
}

fn median_job(rounds: &[Vec<Job>], job: usize) -> Job {
    Job {
        iops: median(rounds.iter().map(|jobs| jobs[job].iops).collect()),
        cpu_us: median(rounds.iter().map(|jobs| jobs[job].cpu_us).collect()),
    }
}

fn table(ours: &[Vec<Job>], theirs: Option<&[Vec<Job>]>) -> String {
    let mut out = String::from(
        "| job | QD | IOPS, C | IOPS | times | least to greatest | daemon us per I/O, C | us per \
         I/O |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (i, (rw, bs, qd)) in JOBS.iter().enumerate() {
        let our = median_job(ours, i);
        let row = match theirs {
            Some(theirs) => {
                let c = median_job(theirs, i);
                let pairs = ours.iter().zip(theirs);
                let ratios: Vec<f64> = pairs.map(|(a, b)| a[i].iops / b[i].iops).collect();
                let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let greatest = ratios.iter().copied().fold(0.0, f64::max);
                let times = median(ratios);
                format!(
                    "{:.0} | {:.0} | {times:.2} | {least:.2} to {greatest:.2} | {:.1} | {:.1}",
                    c.iops, our.iops, c.cpu_us, our.cpu_us
                )
            }
            None => format!("- | {:.0} | - | - | - | {:.1}", our.iops, our.cpu_us),
        };
        let _ = writeln!(out, "| {rw} {bs} | {qd} | {row} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_median_of_the_rounds_and_how_far_they_are_apart() {
        let rounds = |iops: [f64; 3]| iops.map(|iops| vec![Job { iops, cpu_us: 7.0 }; JOBS.len()]);
        let table = table(&rounds([100.0, 300.0, 200.0]), Some(&rounds([100.0, 100.0, 400.0])));
        let row = "| randread 4k | 1 | 100 | 200 | 1.00 | 0.50 to 3.00 | 7.0 | 7.0 |";
        assert!(table.contains(row), "{table}");
    }
}
