// SPDX-License-Identifier: Apache-2.0
//! What a command costs by itself, without a clock: instructions in user space and system calls of
//! `crates/lun/examples/command_cost.rs` under callgrind, from the CDB to the file and back. Each
//! figure is the difference of two runs that differ in nothing but the number of commands, so that
//! opening and closing do not count.
//!
//! One thing depends on what else the machine does: when a write takes long by the clock, the file's
//! next ones are timed exactly for a second (`io_engine`'s pace), which costs a `getrusage` each. So
//! each run is done several times, and the one with the fewest instructions counts.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// What the commands are done to: a name, and the subtype of the configuration string.
const STORES: [(&str, &str); 2] = [("file", "file"), ("qcow2", "qcow")];
/// Modes of the program, and what they are in words.
const MODES: [(&str, &str); 3] = [
    ("read", "4k read, in the page cache"),
    ("write", "4k write, allocated"),
    ("allocate", "4k write that allocates 64 KiB"),
];
/// Commands of the two runs.
const COUNTS: [u32; 2] = [2_000, 12_000];
/// How often each is run.
const RUNS: usize = 3;
/// System calls by number, as far as they are to be expected; valgrind does not know all names.
const CALLS: [(libc::c_long, &str); 9] = [
    (libc::SYS_preadv2, "preadv2"),
    (libc::SYS_pwritev2, "pwritev2"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_getrusage, "getrusage"),
];
/// Size of the images in bytes: each command of the longer run allocates a cluster of its own.
const SIZE: u64 = 1 << 30;

/// Measures in `dir`; the table.
pub(super) fn table(dir: &Path) -> Result<String> {
    run::run(&mut run::cargo(["build", "--release", "-p", "lun", "--example", "command_cost"]))?;
    let program = run::target_dir()?.join("release/examples/command_cost");
    let dir = tempfile::tempdir_in(dir)?;
    let mut table = String::from(
        "| command | on | instructions | system calls |\n\
         | --- | --- | --- | --- |\n",
    );
    for (mode, name) in MODES {
        for (store, subtype) in STORES {
            let job = Job { program: &program, dir: dir.path(), mode, store, subtype };
            let [few, many] = COUNTS.map(|count| job.best(count));
            let (few, many) = (few?, many?);
            let each = |many: u64, few: u64| {
                (f64_of(many) - f64_of(few)) / f64::from(COUNTS[1] - COUNTS[0])
            };
            let calls = CALLS.iter().zip(many.calls.iter().zip(few.calls));
            let calls = calls.map(|((_, name), (many, few))| (name, each(*many, few)));
            let calls = calls.filter(|(_, each)| *each >= 0.0005);
            let calls: Vec<_> = calls.map(|(name, each)| format!("{name} {each:.3}")).collect();
            let instructions = each(many.instructions, few.instructions);
            let line = format!("| {name} | {store} | {instructions:.0} | {} |", calls.join(", "));
            println!("{line}");
            writeln!(table, "{line}")?;
        }
    }
    Ok(table)
}

struct Job<'a> {
    program: &'a Path,
    dir: &'a Path,
    mode: &'a str,
    store: &'a str,
    subtype: &'a str,
}

/// What a whole run takes.
struct Cost {
    instructions: u64,
    /// As in [`CALLS`].
    calls: [u64; CALLS.len()],
}

impl Job<'_> {
    /// The cheapest of several runs.
    fn best(&self, count: u32) -> Result<Cost> {
        let mut best = self.run(count)?;
        for _ in 1..RUNS {
            run::check_interrupt()?;
            let other = self.run(count)?;
            if other.instructions < best.instructions {
                best = other;
            }
        }
        Ok(best)
    }

    /// Runs the program on a new image.
    fn run(&self, count: u32) -> Result<Cost> {
        let [image, totals, log] = [self.store, "totals", "log"].map(|name| self.dir.join(name));
        if image.exists() {
            std::fs::remove_file(&image)?;
        }
        let format = if self.store == "file" { "raw" } else { self.store };
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format]).arg(&image).arg(SIZE.to_string());
        run::output(&mut create).context("qemu-img (package qemu-utils)")?;
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--trace-syscalls=yes"]);
        valgrind.arg(format!("--callgrind-out-file={}", totals.display()));
        valgrind.arg(format!("--log-file={}", log.display()));
        valgrind.arg(self.program).args([self.mode, &count.to_string()]);
        valgrind.arg(format!("{}/{}", self.subtype, image.display()));
        run::output(&mut valgrind).context("valgrind (package valgrind)")?;
        let totals = std::fs::read_to_string(&totals)?;
        let total = totals.lines().find_map(|line| line.strip_prefix("totals:"));
        let instructions = total.context("callgrind says no total")?.trim().parse()?;
        let log = std::fs::read_to_string(&log)?;
        let numbers: Vec<_> = log.lines().filter_map(begun).collect();
        let calls = CALLS
            .map(|(number, _)| numbers.iter().filter(|other| **other == number).count() as u64);
        Ok(Cost { instructions, calls })
    }
}

/// The number of the system call that a line of valgrind's log tells the beginning of:
/// `SYSCALL[PID,THREAD](NUMBER) NAME(...) --> ...`; lines with `...` in place of the name tell how
/// one ended that waited.
fn begun(line: &str) -> Option<libc::c_long> {
    let (_, rest) = line.strip_prefix("SYSCALL[")?.split_once("](")?;
    let (number, rest) = rest.split_once(')')?;
    if rest.starts_with(" ...") { None } else { number.trim().parse().ok() }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn f64_of(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_call_that_waited_counts_once() {
        let log = "==1== Callgrind\n\
                   SYSCALL[1,1](228) sys_clock_gettime( 6, 0x1ff )[sync] --> Success(0x0) \n\
                   SYSCALL[1,1]( 98) sys_getrusage ( 1, 0x1ff )[sync] --> Success(0x0) \n\
                   SYSCALL[1,1](328)  --> [async] ... \n\
                   SYSCALL[1,1](328) ... [async] --> Success(0x1000) \n";
        assert_eq!(log.lines().filter_map(begun).collect::<Vec<_>>(), [228, 98, 328]);
    }
}
