// SPDX-License-Identifier: Apache-2.0
//! guestfsd: the same calls of the unmodified libguestfs to the distribution's daemon and ours, on the
//! same disk, with no VM, alternating. A session is a process of its own ([`client`]), so that the
//! client's CPU time is known.

pub(crate) mod client;
mod disk;
mod library;
mod report;
mod rows;
mod tools;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::sections;
use crate::install::{self, For};
use crate::run;
use client::{MEMORY, ROW, Took};
use report::Sessions;

/// Options of `cargo xtask bench guestfs`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One round with small files and few calls; prints the table and writes no file
    #[arg(long)]
    quick: bool,
    /// Only the launch and rows whose names contain this; prints the table and writes no file
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Only the programs that people run; prints the table and writes no file
    #[arg(long, conflicts_with = "only")]
    tools: bool,
}

/// How often each daemon is measured.
const ROUNDS: usize = 5;
/// Sessions of a round that are only launched.
const LAUNCHES: usize = 4;
/// Seconds that one session may take.
const TIMEOUT: &str = "600";

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root can attach disks and mount their filesystems with no VM: run it as root");
    }
    install::ensure(&[For::Test])?;
    let stock = run::find_program("guestfsd").context("apt-get install guestfsd")?;
    let built = run::Build::start(run::RELEASE, &["guestfsd", "guestfs-novm"])?.finish()?;
    let ours = built.join("guestfsd");
    let dir = disk::directory()?;
    let rounds = if options.quick { 1 } else { ROUNDS };
    let lab = Lab { novm: &built.join("guestfs-novm"), dir: dir.path() };
    if options.tools {
        println!("{}", tools::measure(&lab, &stock, &ours, rounds)?);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("making the disk in {}", dir.path().display());
    disk::make_files(dir.path(), options.quick)?;
    lab.session(&stock, &["--fill"])?;

    let mut how = Vec::new();
    if options.quick {
        how.push("--quick");
    }
    if let Some(only) = &options.only {
        how.extend(["--only", only]);
    }
    let (mut theirs, mut mine) = (Sessions::default(), Sessions::default());
    for round in 1..=rounds {
        let mut daemons = [("stock", &stock, &mut theirs), ("ours", &ours, &mut mine)];
        // Whoever comes first may find the machine's caches as the other left them.
        if round % 2 == 0 {
            daemons.reverse();
        }
        for _ in 0..LAUNCHES {
            for (_, daemon, sessions) in &mut daemons {
                sessions.add(&lab.session(daemon, &["--launch"])?, false)?;
            }
        }
        for (name, daemon, sessions) in daemons {
            eprintln!("round {round} of {rounds}: {name}");
            sessions.add(&lab.session(daemon, &how)?, true)?;
        }
    }
    let mut text = report::text(&theirs, &mine, dir.path())?;
    if options.only.is_none() {
        text += &tools::measure(&lab, &stock, &ours, rounds)?;
    }
    println!("\n{text}");
    if options.quick || options.only.is_some() {
        println!("(BENCHMARKS.md is as it was: this was not the whole measurement)");
    } else {
        sections::replace("guestfs", &text)?;
        println!("written to BENCHMARKS.md");
    }
    Ok(ExitCode::SUCCESS)
}

/// Where sessions are.
struct Lab<'a> {
    novm: &'a Path,
    dir: &'a Path,
}

impl Lab<'_> {
    /// Runs a session with this daemon; yields what the client prints.
    fn session(&self, daemon: &Path, how: &[&str]) -> Result<String> {
        run::check_interrupt()?;
        let mut command = self.command(daemon);
        command.arg(std::env::current_exe()?).args(["bench", "guestfs-client"]);
        run::output(command.args(how).arg(self.dir))
    }

    /// What runs a client with this daemon; the client's words are still to come.
    fn command(&self, daemon: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.arg(TIMEOUT).arg(self.novm).arg("--instant").arg("--guestfsd").arg(daemon);
        command.arg("--").env("TMPDIR", self.dir);
        command
    }
}

/// What a session printed.
fn parse(output: &str) -> Result<(Vec<(String, Took)>, u64)> {
    let (mut rows, mut memory) = (Vec::new(), None);
    for line in output.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match &fields[..] {
            [ROW, row @ ..] => rows.push(Took::parse(row).with_context(|| line.to_owned())?),
            [MEMORY, kib] => memory = Some(kib.parse()?),
            _ => bail!("a client printed {line:?}"),
        }
    }
    Ok((rows, memory.context("a client did not come to its end")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_its_rows_and_its_memory() {
        let (rows, memory) = parse("row\tlaunch\t1\t5\t2\t1\nmemory\t77\n").unwrap();
        assert_eq!((rows.len(), rows[0].0.as_str(), memory), (1, "launch", 77));
        assert!(parse("row\tlaunch\t1\t5\t2\t1\n").is_err());
        assert!(parse("memory\t77\nelse\n").is_err());
    }
}
