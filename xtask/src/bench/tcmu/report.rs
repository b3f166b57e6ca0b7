// SPDX-License-Identifier: Apache-2.0
//! Tables of what was measured.

use std::fmt::Write;

use super::parse::{JOBS, Job, Measured};

/// Figures of both daemons with one backstore, in one kind of VM.
pub(crate) struct Pair {
    pub(crate) kind: &'static str,
    pub(crate) ours: Measured,
    pub(crate) c: Option<Measured>,
}

/// The table of one pair, and how far the aims are reached in it.
pub(crate) fn jobs(pair: &Pair) -> String {
    let mut out = String::from(
        "| job | QD | IOPS, C | IOPS | times | daemon us per I/O, C | us per I/O | share |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (i, (rw, bs, qd)) in JOBS.iter().enumerate() {
        let ours = pair.ours.jobs[i];
        let row = match &pair.c {
            Some(c) => {
                let c = c.jobs[i];
                format!(
                    "{:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {:.0} %",
                    c.iops,
                    ours.iops,
                    ours.iops / c.iops,
                    c.cpu_us,
                    ours.cpu_us,
                    100.0 * ours.cpu_us / c.cpu_us
                )
            }
            None => format!("- | {:.0} | - | - | {:.1} | -", ours.iops, ours.cpu_us),
        };
        let _ = writeln!(out, "| {rw} {bs} | {qd} | {row} |");
    }
    out
}

/// How many rows reach the aims: a third of the CPU time, 1.5 times the IOPS at QD 32, more at QD 1.
pub(crate) fn reach(pair: &Pair) -> Option<String> {
    let c = pair.c.as_ref()?;
    let rows = JOBS.iter().zip(pair.ours.jobs.iter().zip(&c.jobs));
    let (mut cpu, mut iops) = (0, 0);
    for ((_, _, qd), (ours, c)) in rows {
        cpu += usize::from(ours.cpu_us <= c.cpu_us / 3.0);
        iops += usize::from(ours.iops > aim(*qd) * c.iops);
    }
    let n = JOBS.len();
    Some(format!(
        "CPU per I/O is at most a third of the C daemon's in {cpu} of {n} rows; \
         IOPS are 1.5 times as many (QD 32) or more (QD 1) in {iops} of {n}.\n"
    ))
}

/// A daemon that does nothing, beside the C daemon's aims and ours.
pub(crate) fn least(least: &[Job], pairs: &[Pair]) -> String {
    let mut head = String::from("| job | QD | least us per I/O |");
    for Pair { kind, .. } in pairs {
        let _ = write!(head, " {kind}: a third of C's | {kind}: ours |");
    }
    head += " least's IOPS |";
    for Pair { kind, .. } in pairs {
        let _ = write!(head, " {kind}: C's times 1.5 (QD 1: 1) | {kind}: ours |");
    }
    let columns = head.matches('|').count() - 1;
    let mut out = format!("{head}\n|{}\n", " --- |".repeat(columns));
    for (i, ((rw, bs, qd), job)) in JOBS.iter().zip(least).enumerate() {
        let _ = write!(out, "| {rw} {bs} | {qd} | {:.1} |", job.cpu_us);
        for Pair { ours, c, .. } in pairs {
            let aim = c.as_ref().map_or("-".into(), |c| format!("{:.1}", c.jobs[i].cpu_us / 3.0));
            let _ = write!(out, " {aim} | {:.1} |", ours.jobs[i].cpu_us);
        }
        let _ = write!(out, " {:.0} |", job.iops);
        for Pair { ours, c, .. } in pairs {
            let aim =
                c.as_ref().map_or("-".into(), |c| format!("{:.0}", aim(*qd) * c.jobs[i].iops));
            let _ = write!(out, " {aim} | {:.0} |", ours.jobs[i].iops);
        }
        out.push('\n');
    }
    out
}

/// How many times the C daemon's IOPS are wanted at a queue depth.
fn aim(qd: u32) -> f64 {
    if qd == 1 { 1.0 } else { 1.5 }
}

/// Memory and time to be ready, of all pairs.
pub(crate) fn rest(pairs: &[Pair]) -> String {
    let mut out = String::from("| | C | tcmu-runner |\n| --- | --- | --- |\n");
    for Pair { kind, ours, c } in pairs {
        let seconds = |m: &Measured| format!("{:.3} s", m.ready_us / 1e6);
        let other = c.as_ref().map_or("-".into(), seconds);
        let _ =
            writeln!(out, "| {kind}: first answer after the start | {other} | {} |", seconds(ours));
        for (i, (devices, kib)) in ours.memory.iter().enumerate() {
            let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
            let other = c.as_ref().and_then(|c| c.memory.get(i)).map_or("-".into(), |m| mib(m.1));
            let plural = if *devices == 1 { "" } else { "s" };
            let what = format!("{kind}: resident memory, idle, {devices} device{plural}");
            let _ = writeln!(out, "| {what} | {other} | {} |", mib(*kib));
        }
    }
    out
}

/// IOPS of our qcow2 against our raw file.
pub(crate) fn qcow_against_file(file: &[Job], qcow: &[Job]) -> String {
    let mut out = String::from("| job | QD | file IOPS | qcow2 IOPS | qcow2 / file |\n");
    out += "| --- | --- | --- | --- | --- |\n";
    for (i, (rw, bs, qd)) in JOBS.iter().enumerate() {
        let (f, q) = (file[i].iops, qcow[i].iops);
        let _ = writeln!(out, "| {rw} {bs} | {qd} | {f:.0} | {q:.0} | {:.2} |", q / f);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::parse::{About, Job};
    use super::*;

    fn measured(iops: f64, cpu_us: f64) -> Measured {
        let jobs = vec![Job { iops, cpu_us }; JOBS.len()];
        Measured { jobs, ready_us: 250_000.0, memory: vec![(1, 2048)], about: About::default() }
    }

    #[test]
    fn a_row_tells_both_daemons_and_their_ratio() {
        let pair =
            Pair { kind: "file", ours: measured(300.0, 10.0), c: Some(measured(200.0, 40.0)) };
        let table = jobs(&pair);
        assert!(table.contains("| randread 4k | 1 | 200 | 300 | 1.50 | 40.0 | 10.0 | 25 % |"));
        let reach = reach(&pair).unwrap();
        assert!(reach.contains("in 12 of 12 rows") && reach.ends_with("in 6 of 12.\n"), "{reach}");
        assert!(
            rest(&[pair]).contains("| file: resident memory, idle, 1 device | 2.0 MiB | 2.0 MiB |")
        );
    }

    #[test]
    fn the_least_stands_beside_the_aims_and_ours() {
        let pair =
            Pair { kind: "file", ours: measured(300.0, 10.0), c: Some(measured(200.0, 40.0)) };
        let table = least(&measured(400.0, 5.0).jobs, &[pair]);
        assert!(table.contains("| randread 4k | 1 | 5.0 | 13.3 | 10.0 | 400 | 200 | 300 |"));
        assert!(table.contains("| randread 4k | 32 | 5.0 | 13.3 | 10.0 | 400 | 300 | 300 |"));
    }

    #[test]
    fn without_the_c_daemon_its_columns_are_empty() {
        let pair = Pair { kind: "file", ours: measured(300.0, 10.0), c: None };
        assert!(jobs(&pair).contains("| randread 4k | 1 | - | 300 | - | - | 10.0 | - |"));
        assert_eq!(reach(&pair), None);
    }
}
