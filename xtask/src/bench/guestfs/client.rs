// SPDX-License-Identifier: Apache-2.0
//! One session: a libguestfs client that is a process of its own, started in the environment that
//! guestfs-novm gives it. It times its calls and prints a line for each row.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::disk::{self, EXT, Inputs};
use super::library::{Guestfs, cpu_time};
use super::rows::{LAUNCH, ROWS, Row};

/// Options of `cargo xtask bench guestfs-client`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the disk and the client's files are
    dir: PathBuf,
    /// Make filesystems on the disk and fill them: nothing is timed
    #[arg(long)]
    fill: bool,
    /// Launch, and no more
    #[arg(long)]
    launch: bool,
    /// A tenth of the calls
    #[arg(long)]
    quick: bool,
    /// Only rows whose names contain this
    #[arg(long, default_value = "")]
    only: String,
}

/// What some calls took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Took {
    pub(crate) calls: u32,
    pub(crate) wall: Duration,
    /// CPU time of the client.
    pub(crate) client: Duration,
    /// CPU time of the daemon and of the programs that it ran.
    pub(crate) daemon: Duration,
}

/// What a line of the output begins with.
pub(crate) const ROW: &str = "row";
/// Peak resident memory of the daemon.
pub(crate) const MEMORY: &str = "memory";

impl Took {
    fn print(self, name: &str) {
        let ns = [self.wall, self.client, self.daemon].map(|time| time.as_nanos().to_string());
        println!("{ROW}\t{name}\t{}\t{}", self.calls, ns.join("\t"));
    }

    /// A line's fields after the first, as it was printed.
    pub(crate) fn parse(fields: &[&str]) -> Option<(String, Self)> {
        let [name, calls, wall, client, daemon] = fields else { return None };
        let time = |ns: &str| ns.parse().ok().map(Duration::from_nanos);
        let calls = calls.parse().ok()?;
        let (wall, client, daemon) = (time(wall)?, time(client)?, time(daemon)?);
        Some(((*name).to_owned(), Self { calls, wall, client, daemon }))
    }
}

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let inputs = Inputs::of(&options.dir)?;
    few_descriptors();
    let g = Guestfs::new()?;
    let before = cpu_time(None)?;
    let begin = Instant::now();
    g.add_drive(&inputs.image)?;
    g.add_drive(&inputs.spare)?;
    g.status0(g.f.launch)?;
    g.status0(g.f.ping_daemon)?;
    let wall = begin.elapsed();
    let client = cpu_time(None)? - before;
    let daemon = Daemon::find(g.status0(g.f.get_pid)?)?;
    Took { calls: 1, wall, client, daemon: daemon.cpu_time()? }.print(LAUNCH);
    if options.fill {
        disk::fill(&g, &inputs)?;
    } else if !options.launch {
        g.status2(g.f.mount, EXT, c"/")?;
        for row in ROWS.iter().filter(|row| row.name.contains(&options.only)) {
            let calls = if options.quick { row.calls.div_ceil(10) } else { row.calls };
            time(&g, &inputs, &daemon, row, calls)
                .with_context(|| row.name.to_owned())?
                .print(row.name);
        }
    }
    println!("{MEMORY}\t{}", daemon.memory()?);
    g.status0(g.f.shutdown)?;
    Ok(ExitCode::SUCCESS)
}

/// Before each program that it starts, libguestfs closes every descriptor that there could be, one by one:
/// as many as most systems allow by default, so that a launch does not depend on more being allowed here.
fn few_descriptors() {
    const USUAL: u64 = 1024;
    let limits = getrlimit(Resource::Nofile);
    let current = Some(limits.current.unwrap_or(USUAL).min(USUAL));
    // Without it launches only take longer.
    setrlimit(Resource::Nofile, Rlimit { current, ..limits }).ok();
}

/// Times a row's calls, after one that is not timed.
fn time(g: &Guestfs, inputs: &Inputs, daemon: &Daemon, row: &Row, calls: u32) -> Result<Took> {
    (row.call)(g, inputs)?;
    let mut took = Took { calls, ..Took::default() };
    let Some(undo) = row.undo else {
        took.add(daemon, || (0..calls).try_for_each(|_| (row.call)(g, inputs)))?;
        return Ok(took);
    };
    undo(g)?;
    for _ in 0..calls {
        took.add(daemon, || (row.call)(g, inputs))?;
        undo(g)?;
    }
    Ok(took)
}

impl Took {
    fn add(&mut self, daemon: &Daemon, f: impl FnOnce() -> Result<()>) -> Result<()> {
        let (daemons, client, begin) = (daemon.cpu_time()?, cpu_time(None)?, Instant::now());
        f()?;
        self.wall += begin.elapsed();
        self.client += cpu_time(None)? - client;
        self.daemon += daemon.cpu_time()?.saturating_sub(daemons);
        Ok(())
    }
}

/// The daemon of our session.
struct Daemon(i32);

impl Daemon {
    /// The first process of this name below the one that libguestfs takes for a hypervisor.
    fn find(hypervisor: i32) -> Result<Self> {
        let mut todo = vec![hypervisor];
        while let Some(pid) = todo.pop() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim_end() == "guestfsd" {
                return Ok(Self(pid));
            }
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
            for thread in threads.flatten() {
                let children = std::fs::read_to_string(thread.path().join("children"));
                let children = children.unwrap_or_default();
                todo.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
        }
        anyhow::bail!("there is no guestfsd below process {hypervisor}")
    }

    /// Its CPU time with that of its children that have ended.
    fn cpu_time(&self) -> Result<Duration> {
        const FIELDS_TO_CHILDREN: usize = 13;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name may hold anything; what follows are numbers.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let children = fields.split_whitespace().skip(FIELDS_TO_CHILDREN).take(2);
        let ticks: u64 = children.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(cpu_time(Some(self.0))? + Duration::from_secs(ticks) / u32::try_from(per_second)?)
    }

    /// Its peak resident memory, in KiB.
    fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.context("/proc/PID/status has no VmHWM")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_printed() {
        let took = Took {
            calls: 3,
            wall: Duration::from_nanos(5),
            client: Duration::from_nanos(2),
            daemon: Duration::ZERO,
        };
        let fields = ["a call", "3", "5", "2", "0"];
        assert_eq!(Took::parse(&fields), Some(("a call".into(), took)));
        assert_eq!(Took::parse(&fields[1..]), None);
        assert_eq!(Took::parse(&["a call", "3", "5", "2", "x"]), None);
    }
}
