// SPDX-License-Identifier: Apache-2.0
//! The simulated world: `lunette-sim` (crates/sim) on each CPU, each with seeds of its own. Their
//! lines come here on pipes: `figures KEY=NUMBER...` and `place KIND PHASE COUNT` from time to time
//! and at the end, each in place of that process's earlier ones; `failure seed=N after=N REASON`,
//! with the shortest trace after it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{ChildStdout, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::{self, Build, Kept};

/// Options of `cargo xtask sim`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Stop after so many seeds
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Stop after so many minutes; without --seeds the default is 2
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Run this seed alone, or with --seeds so many from it on
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Plant a bug in the engine: it is to be found
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Drive this alone: engine, or stack (ring, logical unit, block layer, engine)
    #[arg(long, value_name = "WHAT")]
    drive: Option<String>,
    /// Have one of N images checked by qemu-img, too; 0: none. Default: one of 2000, where there
    /// is a qemu-img
    #[arg(long, value_name = "N")]
    qemu_check: Option<u64>,
    /// Processes at the same time; default: one for each CPU
    #[arg(long, value_name = "N")]
    jobs: Option<u64>,
}

/// What a process has told.
#[derive(Clone, Debug, Default, PartialEq)]
struct Figures {
    numbers: BTreeMap<String, u64>,
    /// Kind and phase of the operation that a crash fell on, and how often.
    places: BTreeMap<String, u64>,
}

impl Figures {
    /// Takes in a line; whether it was one of figures.
    fn read(&mut self, line: &str) -> bool {
        if let Some(line) = line.strip_prefix("figures ") {
            self.numbers = line.split_whitespace().filter_map(number).collect();
        } else if let Some((place, count)) =
            line.strip_prefix("place ").and_then(|line| line.rsplit_once(' '))
        {
            self.places.insert(place.to_owned(), count.parse().unwrap_or(0));
        } else {
            return false;
        }
        true
    }

    fn add(&mut self, other: &Figures) {
        for (mine, theirs) in
            [(&mut self.numbers, &other.numbers), (&mut self.places, &other.places)]
        {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }

    fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }
}

/// `KEY=NUMBER`.
fn number(word: &str) -> Option<(String, u64)> {
    let (name, number) = word.split_once('=')?;
    Some((name.to_owned(), number.parse().ok()?))
}

/// A process and what came from it.
#[derive(Default)]
struct Worker {
    figures: Figures,
    /// All that is not figures: the failure and its trace.
    told: Vec<String>,
    /// Whether it ended in good order: with success, or with a failure that it found.
    good: bool,
}

impl Worker {
    fn has_failure(&self) -> bool {
        self.told.iter().any(|line| line.starts_with("failure "))
    }
}

/// From a process: a line, or its end.
type Message = (usize, Option<String>);

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let program = Build::start(run::SOON, &["sim"])?.finish()?.join("lunette-sim");
    let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let seeds = options.seeds.or(options.seed.map(|_| 1));
    let jobs = options.jobs.unwrap_or(cpus).max(1).min(seeds.unwrap_or(u64::MAX).max(1));
    let minutes = options.minutes.or(seeds.is_none().then_some(2.0));
    if minutes.is_some_and(|minutes| !minutes.is_finite() || minutes <= 0.0) {
        bail!("--minutes {}: it has to be more than 0", minutes.unwrap_or_default());
    }
    let limit = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let first = options.seed.unwrap_or_else(new_seed);
    let began = Instant::now();
    let (sender, messages) = mpsc::channel();
    let mut children = Vec::new();
    for job in 0..jobs {
        let mut command = Kept::command(&program.to_string_lossy());
        command.args(["--progress", "--first", &first.wrapping_add(job).to_string()]);
        command.args(["--stride", &jobs.to_string()]);
        if let Some(seeds) = seeds {
            let share = seeds / jobs + u64::from(job < seeds % jobs);
            command.args(["--seeds", &share.to_string()]);
        }
        if let Some(limit) = limit {
            command.args(["--seconds", &limit.as_secs().max(1).to_string()]);
        }
        if let Some(bug) = &options.plant {
            command.args(["--plant", bug]);
        }
        if let Some(driven) = &options.drive {
            command.args(["--drive", driven]);
        }
        if let Some(every) = options.qemu_check {
            command.args(["--qemu-check", &every.to_string()]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("no pipe")?;
        let (worker, sender) = (children.len(), sender.clone());
        thread::spawn(move || hand_on(worker, stdout, &sender));
        children.push(Kept(child));
    }
    drop(sender);
    let workers = collect(&mut children, &messages, began);
    report(&workers, began.elapsed(), options.plant.as_deref())
}

/// A first seed that was not used before: who runs it for an hour each day wants new ones.
fn new_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() << 24)
}

fn hand_on(worker: usize, stdout: ChildStdout, sender: &mpsc::Sender<Message>) {
    for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if sender.send((worker, Some(line))).is_err() {
            return;
        }
    }
    let _ = sender.send((worker, None));
}

/// Takes in all that the processes tell, until all have ended, one has told of a failure and ended,
/// or Ctrl-C.
fn collect(
    children: &mut [Kept],
    messages: &mpsc::Receiver<Message>,
    began: Instant,
) -> Vec<Worker> {
    let mut workers: Vec<Worker> = children.iter().map(|_| Worker::default()).collect();
    let terminal = std::io::stdout().is_terminal();
    let mut told = Instant::now();
    let mut left = workers.len();
    while left > 0 && !run::interrupted() {
        match messages.recv_timeout(Duration::from_millis(100)) {
            Ok((worker, Some(line))) => {
                let Worker { figures, told, .. } = &mut workers[worker];
                if !figures.read(&line) {
                    told.push(line);
                }
            }
            Ok((worker, None)) => {
                left -= 1;
                let status = children[worker].0.wait();
                let found = workers[worker].has_failure();
                workers[worker].good = found || status.is_ok_and(|status| status.success());
                if !workers[worker].good || found {
                    break;
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if terminal && told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            let all = total(&workers);
            let (seeds, crashes) = (all.number("seeds"), all.number("crashes"));
            print!("\r{:>5} s  {seeds} seeds  {crashes} crashes  ", began.elapsed().as_secs());
            let _ = std::io::stdout().flush();
        }
    }
    if terminal {
        print!("\r\x1b[K");
    }
    children.iter_mut().for_each(Kept::kill);
    workers
}

fn total(workers: &[Worker]) -> Figures {
    let mut all = Figures::default();
    workers.iter().for_each(|worker| all.add(&worker.figures));
    all
}

/// A count a second.
#[allow(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(0.001)
}

fn report(workers: &[Worker], time: Duration, planted: Option<&str>) -> Result<ExitCode> {
    let all = total(workers);
    let [seeds, steps, operations, crashes, by_qemu] =
        ["seeds", "steps", "operations", "crashes", "by_qemu"].map(|name| all.number(name));
    let hours = rate(all.number("nanoseconds"), time) / 3.6e12;
    println!("{seeds} seeds in {:.1} s", time.as_secs_f64());
    println!("{steps} steps of the world, {:.0} a second", rate(steps, time));
    println!("{operations} operations, {:.0} a second", rate(operations, time));
    println!("{hours:.3} simulated hours a second");
    println!("{crashes} crashes judged, {:.0} a second", rate(crashes, time));
    println!("{by_qemu} of these by qemu-img check, too");
    println!("{} places (kind and phase of an operation) that crashes fell on:", all.places.len());
    for (place, count) in &all.places {
        println!("  {count:>10}  {place}");
    }
    workers.iter().flat_map(|worker| &worker.told).for_each(|line| println!("{line}"));
    let failed = workers.iter().find(|worker| worker.has_failure());
    if run::interrupted() {
        println!("interrupted");
        return Ok(if failed.is_some() { ExitCode::FAILURE } else { ExitCode::from(130) });
    }
    if failed.is_none() && workers.iter().any(|worker| !worker.good) {
        bail!("lunette-sim ended without a result; what it said is above");
    }
    Ok(match (planted, failed) {
        (Some(bug), Some(_)) => {
            println!("the planted bug {bug} was found after {seeds} seeds");
            ExitCode::SUCCESS
        }
        (Some(bug), None) => {
            println!("FAIL the planted bug {bug} was not found");
            ExitCode::FAILURE
        }
        (None, Some(worker)) => {
            let words = worker.told.iter().flat_map(|line| line.split_whitespace());
            let seed = words.filter_map(|word| word.strip_prefix("seed=")).next();
            println!("FAIL; again: cargo xtask sim --seed {}", seed.unwrap_or("N"));
            ExitCode::FAILURE
        }
        (None, None) => ExitCode::SUCCESS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_processes_are_added_and_later_ones_replace_earlier_ones() {
        let mut one = Figures::default();
        assert!(one.read("figures seeds=3 crashes=10"));
        assert!(one.read("place Write Begun 2"));
        assert!(one.read("figures seeds=4 crashes=20"));
        assert!(one.read("place Write Begun 5"));
        assert!(!one.read("failure seed=7 after=4 sector 3 of the read has zeroes"));
        let mut all = one.clone();
        all.add(&one);
        assert_eq!((all.number("seeds"), all.number("crashes"), all.number("x")), (8, 40, 0));
        assert_eq!(all.places.get("Write Begun"), Some(&10));
    }
}
