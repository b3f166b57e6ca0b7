// SPDX-License-Identifier: Apache-2.0
//! tcmu-runner: side by side with the C daemon in the VM, and natively with criterion.

mod c_daemon;
mod handler;
mod native;
mod parse;
mod plugin;
mod report;
mod wall;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use super::sections;
use crate::{install, run, vm};
use c_daemon::CDaemon;
use parse::About;
use report::Pair;

/// Options of `cargo xtask bench tcmu`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Instruction-counted only, one device; prints the tables and writes no file
    #[arg(long)]
    quick: bool,
    /// Criterion's benchmarks on this machine itself, with the simulated kernel, in place of the VM
    #[arg(long)]
    native: bool,
    /// By the wall clock on two CPUs in place of counted instructions: both daemons in turns
    #[arg(long, conflicts_with_all = ["quick", "native"])]
    wall: bool,
    /// Debian's handler_qcow.so, under its own daemon and under ours, by counted instructions
    #[arg(long, conflicts_with_all = ["quick", "native", "wall", "only"])]
    plugin: bool,
    /// With --plugin: under ours also in a process of its own (plugin_isolation)
    #[arg(long, requires = "plugin")]
    isolation: bool,
    /// An image of a cluster, under Debian's daemon with its handler and under ours, in turns
    #[arg(long, value_name = "SUBTYPE", value_parser = ["rbd"])]
    #[arg(conflicts_with_all = ["quick", "native", "wall", "plugin", "only", "icount"])]
    handler: Option<String>,
    /// By counted instructions: so it is where nothing else is said
    #[arg(long, conflicts_with_all = ["native", "wall"])]
    icount: bool,
    /// With --wall or --handler: how often each daemon's turn comes; default: 9, 5
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only this backstore
    #[arg(long, value_parser = ["file", "qcow"])]
    only: Option<String>,
    /// Another daemon in place of ours: a command line
    #[arg(long, value_name = "COMMAND")]
    daemon: Option<String>,
}

/// A kind of VM to measure in.
struct Setting {
    name: &'static str,
    title: &'static str,
    words: &'static str,
    cpu: Option<&'static str>,
    /// Devices of the second measurement of memory; 0: none.
    many: u32,
}

const SETTINGS: [Setting; 2] = [
    Setting {
        name: "icount-movsq",
        title: "Instructions counted, copies by words",
        words: "One CPU; the guest's time is its instructions, 2 ns each, so that a run repeats \
                within 2 % on a busy host, and short jobs tell. CPU model `max,-erms`: the kernel copies by `rep movsq`. \
                QEMU counts every round of a `rep` instruction, so a copy of 4 KiB counts 512.",
        cpu: Some("max,-erms"),
        many: 256,
    },
    Setting {
        name: "icount-movsb",
        title: "Instructions counted, copies by bytes",
        words: "The same with CPU model `max`: the kernel takes `rep movsb` for copies, and 4 KiB \
                count 4096 instructions, 8 us, which no processor takes: the figures are bounded by \
                the kernel's own copies between the ring and the initiator.",
        cpu: None,
        many: 0,
    },
];

/// What the table of the least says.
const LEAST: &str = "What the kernel's interface costs by itself: a daemon that waits by a blocking \
    read, answers at once with zeroes, forgets what is written, and opens no file \
    (`crates/tcmu/examples/serve_zeroes.rs`). Where its CPU is more than a third of the C daemon's, \
    or its IOPS are fewer than 1.5 times as many, no daemon reaches that with this kernel and this \
    initiator.";

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    if options.native {
        return native::main();
    }
    install::ensure(install::ALL)?;
    let c = c_daemon::prepare()?;
    let file = !options.plugin && options.handler.is_none();
    if let Some(why) = c.no_file.as_ref().filter(|_| file) {
        println!("the C daemon is not measured with `file`: {why}");
    }
    let ours = match &options.daemon {
        Some(command) => command.clone(),
        None => {
            let plugins = if options.plugin { "" } else { run::NO_PLUGINS };
            format!("{}{plugins}", run::build_daemon(run::RELEASE)?.display())
        }
    };
    let kinds: Vec<&'static str> = ["file", "qcow"]
        .into_iter()
        .filter(|kind| options.only.as_deref().is_none_or(|only| only == *kind))
        .collect();
    // What does not measure all of it is printed only.
    let whole = !options.quick && options.only.is_none() && options.daemon.is_none();
    let rounds = |usual| options.rounds.unwrap_or(usual).max(1);
    let (section, mut text) = match (&options.handler, options.wall, options.plugin) {
        (Some(_), ..) => ("tcmu-rbd", handler::measure(&ours, rounds(5))?),
        (None, true, _) => ("tcmu-wall", wall::measure(&ours, &c, &kinds, rounds(9))?),
        (None, _, true) => ("tcmu-plugin", plugin::measure(&ours, &c, options.isolation)?),
        (None, false, false) => ("tcmu", counted(&ours, &c, &kinds, options.quick)?),
    };
    if let Some(why) = c.no_file.as_ref().filter(|_| file) {
        text += &format!("\nThe C daemon's `file` handler could not be built: {why}\n");
    }
    println!("\n{text}");
    if whole {
        sections::replace(section, &text)?;
        println!("written to BENCHMARKS.md");
    } else {
        println!("(BENCHMARKS.md is as it was: this was not the whole measurement)");
    }
    Ok(ExitCode::SUCCESS)
}

/// The measurements with counted instructions.
fn counted(ours: &str, c: &CDaemon, kinds: &[&'static str], quick: bool) -> Result<String> {
    let zeroes = build_zeroes()?.to_string_lossy().into_owned();
    let settings: Vec<&Setting> =
        SETTINGS.iter().take(if quick { 1 } else { SETTINGS.len() }).collect();
    let mut text = String::new();
    for (i, setting) in settings.iter().enumerate() {
        let mut runs = VecDeque::new();
        for &kind in kinds {
            runs.push_back(Run::new(kind, ours, "ours"));
            if kind != "file" || c.no_file.is_none() {
                runs.push_back(Run::new(kind, &c.command, "c"));
            }
        }
        runs.push_back(Run::new("zeroes", &zeroes, "least"));
        let mut shares = measure(setting, runs, quick)?;
        let least = shares.remove(&("zeroes", "least")).map(|s| parse::jobs(&s)).transpose()?;
        let devices: &[u32] = if many(setting, quick) > 0 { &[1, setting.many] } else { &[1] };
        let mut pairs = Vec::new();
        for &kind in kinds {
            let mut take = |who| shares.remove(&(kind, who)).map(|s| parse::measured(&s, devices));
            let ours = take("ours").context("not measured")??;
            pairs.push(Pair { kind, ours, c: take("c").transpose()? });
        }
        if i == 0 {
            let guest = &pairs.first().context("nothing was measured")?.ours.about;
            let with_c = pairs.iter().find_map(|pair| pair.c.as_ref());
            let theirs = with_c.map(|measured| measured.about.fact("daemon"));
            text += &about("cargo xtask bench tcmu", guest, guest.fact("daemon"), theirs)?;
        }
        text += &format!("\n## {}\n\n{}\n", setting.title, sections::wrap(setting.words));
        for pair in &pairs {
            text += &format!("\n### {}\n\n{}", pair.kind, report::jobs(pair));
            if let Some(reach) = report::reach(pair) {
                text += &format!("\n{reach}");
            }
        }
        if let [file, qcow] = &pairs[..] {
            let table = report::qcow_against_file(&file.ours.jobs, &qcow.ours.jobs);
            text += &format!("\n### qcow2, allocated, against a raw file\n\n{table}");
        }
        if let Some(least) = &least {
            let words = sections::wrap(LEAST);
            text += &format!("\n### The least\n\n{words}\n\n{}", report::least(least, &pairs));
        }
        if setting.many > 0 {
            let table = report::rest(&pairs);
            text += &format!("\n### Start and memory (without the shared data area)\n\n{table}");
        }
    }
    Ok(text)
}

struct Run {
    kind: &'static str,
    daemon: String,
    who: &'static str,
    /// For bench.sh: where a plugin has to be.
    plugin: Option<&'static str>,
}

impl Run {
    fn new(kind: &'static str, daemon: &str, who: &'static str) -> Run {
        Run { kind, daemon: daemon.to_owned(), who, plugin: None }
    }
}

/// The daemon that does the least.
fn build_zeroes() -> Result<PathBuf> {
    let words = ["build", "--release", "--quiet", "-p", "tcmu", "--example", "serve_zeroes"];
    run::run(&mut run::cargo(words))?;
    Ok(run::target_dir()?.join("release/examples/serve_zeroes"))
}

/// Devices of the second measurement of memory; 0: none.
fn many(setting: &Setting, quick: bool) -> u32 {
    if quick { 0 } else { setting.many }
}

/// What the guests left, by backstore and daemon.
type Shares = HashMap<(&'static str, &'static str), PathBuf>;

/// Measures all of `runs`. Since instructions are counted, other work does not show: as many run at
/// the same time as there are CPUs.
fn measure(setting: &Setting, runs: VecDeque<Run>, quick: bool) -> Result<Shares> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = cpus.min(runs.len());
    let queue = Mutex::new(runs);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                    let Some(one) = next.filter(|_| !run::interrupted()) else { return };
                    println!("measuring {}, {}, {}", setting.name, one.kind, one.who);
                    let result = measure_one(setting, &one, quick);
                    if let Ok(mut results) = results.lock() {
                        results.push(result.map(|share| ((one.kind, one.who), share)));
                    }
                }
            });
        }
    });
    run::check_interrupt()?;
    results.into_inner().unwrap_or_default().into_iter().collect()
}

/// Runs the guest's part; returns the directory with what it measured.
fn measure_one(setting: &Setting, one: &Run, quick: bool) -> Result<PathBuf> {
    let many = many(setting, quick).to_string();
    let mut vm = vm_of("bench.sh", &[&one.daemon, one.kind, "300ms", "32", &many]);
    vm.icount = true;
    vm.env.extend(one.plugin.map(|place| format!("PLUGIN={place}")));
    vm.cpu = setting.cpu.map(str::to_owned);
    vm.timeout = 1800;
    vm.scratch = 16384;
    boot(&format!("{}-{}-{}", setting.name, one.kind, one.who), vm)
}

/// A VM for the guest's part `script`.
fn vm_of(script: &str, args: &[&str]) -> vm::Options {
    let script = run::root().join("xtask/guest").join(script).to_string_lossy().into_owned();
    let args = args.iter().map(|&arg| arg.to_owned());
    let mut vm = vm::Options::new([script].into_iter().chain(args));
    vm.mem = 3072;
    vm.quiet = true;
    vm
}

/// Boots a VM; returns the directory with what its guest has left.
fn boot(name: &str, mut vm: vm::Options) -> Result<PathBuf> {
    let share = run::target_dir()?.join("bench").join(name);
    if share.exists() {
        std::fs::remove_dir_all(&share)?;
    }
    vm.share = Some(share.clone());
    let log = share.join("log");
    let mut output = Vec::new();
    let outcome = vm::boot(&vm, &mut |bytes| {
        output.extend_from_slice(bytes);
        Ok(())
    })?;
    std::fs::write(&log, &output)?;
    if outcome.status != Some(0) {
        let text = String::from_utf8_lossy(&output);
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        for line in tail.iter().rev().copied().chain(outcome.last_words.iter().map(String::as_str))
        {
            println!("{name}: {line}");
        }
        bail!("{name} failed; all of its output is in {}", log.display());
    }
    for line in outcome.trouble.iter().take(5) {
        println!("{name}: the kernel: {line}");
    }
    Ok(share)
}

/// With what it was measured: the command, what the guest says of itself, and the versions of both
/// daemons.
fn about(command: &str, guest: &About, ours: &str, c: Option<&str>) -> Result<String> {
    let qemu = run::output(run::command("qemu-system-x86_64").arg("--version"))?;
    let mut text = format!("Measured with `{command}`:\n\n");
    for (what, version) in [
        ("kernel of the VM", guest.fact("kernel")),
        ("QEMU", qemu.lines().next().unwrap_or_default()),
        ("fio", guest.fact("fio")),
        ("tcmu-runner", ours),
        ("the C daemon", c.unwrap_or("not measured")),
        ("commit", &sections::commit()),
        ("processor", &sections::processor()),
    ] {
        text += &format!("- {what}: {version}\n");
    }
    text += "\nThe same image file, through the kernel's loopback fabric, by libaio with O_DIRECT. \
             \"us per I/O\" is\nthe CPU time of the daemon's cgroup: its threads, its system calls, \
             its io_uring workers.\n";
    Ok(text)
}

/// Directories below `dir` that hold `name`, for [`native`].
fn find_all(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_all(&path, name, found);
        } else if path.ends_with(name) {
            found.push(path);
        }
    }
}
