// SPDX-License-Identifier: Apache-2.0
//! An image of a Ceph cluster: ours, and the C daemon with Debian's handler_rbd.so, in turns on one image
//! in one boot; beside them Ceph's own tool, which is librbd without a target.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::parse::{self, About, Job};
use super::{boot, vm_of};
use crate::bench::{median, sections};
use crate::{install, run, vm};

const HANDLER: &str = "handler_rbd.so";
/// What fio does, by blocks of 4k, and how deep its queue is.
const JOBS: [(&str, u32); 4] =
    [("randread", 1), ("randwrite", 1), ("randread", 32), ("randwrite", 32)];

const WORDS: &str = "One image of a cluster of one monitor and one OSD, which keeps its data in memory; \
    all of it in this VM. Through the kernel's loopback fabric, by libaio with O_DIRECT, blocks of 4k. \
    \"us per I/O\" is the CPU time of the daemon's cgroup, librbd's threads included. The ceiling is \
    `rbd bench` on the same image, which is librbd with no target and no daemon. Figures are medians of \
    the rounds, in each of which each has its turn; \"times\" and \"share\" are the medians of the rounds' \
    ratios, with the least and the greatest.";

/// What one round measured, in the order of [`JOBS`].
struct Round {
    ours: Vec<Job>,
    c: Vec<Job>,
    /// In I/Os per second.
    ceiling: Vec<f64>,
}

/// Measures in `rounds` rounds, and writes what is to be said of it.
pub(super) fn measure(ours: &str, rounds: usize) -> Result<String> {
    let daemon = run::find_program("tcmu-runner").context("no tcmu-runner installed")?;
    let plugins = install::unpacked::plugin(HANDLER)?;
    let c = format!("{} --handler-path {}", daemon.display(), plugins.display());
    let mut vm = vm_of("handler.sh", &[ours, &c, "5", "64", &rounds.to_string()]);
    vm.uml = !vm::kvm_works()?;
    vm.timeout = 600 + 240 * rounds as u64;
    let way = if vm.uml {
        "User-Mode Linux, one CPU, whose time is counted by ticks of 10 ms"
    } else {
        "QEMU with KVM, two CPUs"
    };
    let share = boot("rbd", vm)?;
    let all = (0..rounds).map(|round| read(&share, round)).collect::<Result<Vec<_>>>()?;
    let guest = About::read(&share)?;
    let mut text = "Measured with `cargo xtask bench tcmu --handler rbd`:\n\n".to_owned();
    for (what, version) in [
        ("VM", way),
        ("its kernel", guest.fact("kernel")),
        ("fio", guest.fact("fio")),
        ("Ceph", guest.fact("ceph")),
        ("tcmu-runner", guest.fact("ours")),
        ("the C daemon", guest.fact("c")),
        ("commit", &sections::commit()),
        ("processor", &sections::processor()),
    ] {
        writeln!(text, "- {what}: {version}")?;
    }
    let words = sections::wrap(WORDS);
    write!(text, "\n## rbd, by the wall clock, {rounds} rounds\n\n{words}\n\n{}", table(&all))?;
    Ok(text)
}

/// What the guest left of a round.
fn read(share: &Path, round: usize) -> Result<Round> {
    let names = || JOBS.iter().map(|(rw, qd)| format!("{rw}-4k-{qd}"));
    let jobs = |who: &str| parse::each_job(&share.join(format!("{round}-{who}")), names());
    let ceiling = share.join(format!("{round}-ceiling"));
    let ceiling = names().map(|job| parse::number(&ceiling, &job)).collect::<Result<_>>()?;
    Ok(Round { ours: jobs("ours")?, c: jobs("c")?, ceiling })
}

/// The median of what `of` says of each round, and the least and the greatest.
fn spread(rounds: &[Round], of: impl Fn(&Round) -> f64) -> (f64, f64, f64) {
    let all: Vec<f64> = rounds.iter().map(of).collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = all.iter().copied().fold(0.0, f64::max);
    (median(all), least, greatest)
}

fn table(rounds: &[Round]) -> String {
    let mut out = String::from(
        "| job | QD | IOPS, C | IOPS | times | ceiling | of it | daemon us per I/O, C | us per I/O | \
         share |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (i, (rw, qd)) in JOBS.iter().enumerate() {
        let middle = |of: fn(&Round, usize) -> f64| spread(rounds, |round| of(round, i)).0;
        let (c, ours) = (middle(|r, i| r.c[i].iops), middle(|r, i| r.ours[i].iops));
        let (c_cpu, cpu) = (middle(|r, i| r.c[i].cpu_us), middle(|r, i| r.ours[i].cpu_us));
        let (times, fewest, most) = spread(rounds, |r| r.ours[i].iops / r.c[i].iops);
        let (ceiling, of_it) =
            (middle(|r, i| r.ceiling[i]), middle(|r, i| 100.0 * r.ours[i].iops / r.ceiling[i]));
        let (share, least, greatest) = spread(rounds, |r| 100.0 * r.ours[i].cpu_us / r.c[i].cpu_us);
        let _ = writeln!(
            out,
            "| {rw} 4k | {qd} | {c:.0} | {ours:.0} | {times:.2} ({fewest:.2} to {most:.2}) | \
             {ceiling:.0} | {of_it:.0} % | {c_cpu:.0} | {cpu:.0} | {share:.0} % ({least:.0} to \
             {greatest:.0}) |"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_medians_of_the_rounds_and_how_far_their_ratios_are_apart() {
        let job = |iops, cpu_us| vec![Job { iops, cpu_us }; JOBS.len()];
        let round = |iops, cpu_us, ceiling| Round {
            ours: job(iops, cpu_us),
            c: job(100.0, 50.0),
            ceiling: vec![ceiling; JOBS.len()],
        };
        let table = table(&[round(100.0, 41.0, 200.0), round(150.0, 25.0, 300.0)]);
        let row = "| randread 4k | 1 | 100 | 125 | 1.25 (1.00 to 1.50) | 250 | 50 % | 50 | 33 | 66 % \
                   (50 to 82) |";
        assert!(table.contains(row), "{table}");
    }
}
