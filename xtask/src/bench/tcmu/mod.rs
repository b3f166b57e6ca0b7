// SPDX-License-Identifier: Apache-2.0
//! tcmu-runner: side by side with the C daemon in the VM, and natively with criterion.

mod c_daemon;
mod native;
mod parse;
mod report;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use super::sections;
use crate::{install, run, vm};
use parse::Measured;
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
    icount: bool,
    cpu: Option<&'static str>,
    runtime: &'static str,
    megabytes: &'static str,
    /// Devices of the second measurement of memory; 0: none.
    many: u32,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        name: "icount-movsq",
        title: "Instructions counted, copies by words",
        words: "One CPU; the guest's time is its instructions, 2 ns each, so that a run repeats \
                within 2 % on a busy host, and short jobs tell. CPU model `max,-erms`: the kernel copies by `rep movsq`. \
                QEMU counts every round of a `rep` instruction, so a copy of 4 KiB counts 512.",
        icount: true,
        cpu: Some("max,-erms"),
        runtime: "300ms",
        megabytes: "32",
        many: 256,
    },
    Setting {
        name: "icount-movsb",
        title: "Instructions counted, copies by bytes",
        words: "The same with CPU model `max`: the kernel takes `rep movsb` for copies, and 4 KiB \
                count 4096 instructions, 8 us, which no processor takes: the figures are bounded by \
                the kernel's own copies between the ring and the initiator.",
        icount: true,
        cpu: None,
        runtime: "300ms",
        megabytes: "32",
        many: 0,
    },
    Setting {
        name: "wall",
        title: "Two CPUs, by the wall clock",
        words: "What a person sees in this VM. Figures depend on what else the host does.",
        icount: false,
        cpu: None,
        runtime: "3",
        megabytes: "256",
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
    if let Some(why) = &c.no_file {
        println!("the C daemon is not measured with `file`: {why}");
    }
    let ours = match &options.daemon {
        Some(command) => command.clone(),
        None => run::build_daemon()?.to_string_lossy().into_owned(),
    };
    let zeroes = build_zeroes()?.to_string_lossy().into_owned();
    let kinds: Vec<&'static str> = ["file", "qcow"]
        .into_iter()
        .filter(|kind| options.only.as_deref().is_none_or(|only| only == *kind))
        .collect();
    let settings: Vec<&Setting> =
        SETTINGS.iter().take(if options.quick { 1 } else { SETTINGS.len() }).collect();
    let mut text = String::new();
    for (i, setting) in settings.iter().enumerate() {
        let mut runs = VecDeque::new();
        for &kind in &kinds {
            runs.push_back(Run { kind, daemon: ours.clone(), who: "ours" });
            if kind != "file" || c.no_file.is_none() {
                runs.push_back(Run { kind, daemon: c.command.clone(), who: "c" });
            }
        }
        if setting.icount {
            runs.push_back(Run { kind: "zeroes", daemon: zeroes.clone(), who: "least" });
        }
        let mut shares = measure(setting, runs, options.quick)?;
        let least = shares.remove(&("zeroes", "least")).map(|s| parse::jobs(&s)).transpose()?;
        let devices: &[u32] =
            if many(setting, options.quick) > 0 { &[1, setting.many] } else { &[1] };
        let mut pairs = Vec::new();
        for &kind in &kinds {
            let mut take = |who| shares.remove(&(kind, who)).map(|s| parse::measured(&s, devices));
            let ours = take("ours").context("not measured")??;
            pairs.push(Pair { kind, ours, c: take("c").transpose()? });
        }
        if i == 0 {
            text += &about(&pairs, c.no_file.as_deref())?;
        }
        text += &format!("\n## {}\n\n{}\n", setting.title, sections::wrap(setting.words));
        for pair in &pairs {
            text += &format!("\n### {}\n\n{}", pair.kind, report::jobs(pair));
            if let (true, Some(reach)) = (setting.icount, report::reach(pair)) {
                text += &format!("\n{reach}");
            }
        }
        if let [file, qcow] = &pairs[..] {
            let table = report::qcow_against_file(&file.ours, &qcow.ours);
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
    println!("\n{text}");
    if options.quick || options.only.is_some() || options.daemon.is_some() {
        println!("(BENCHMARKS.md is as it was: this was not the whole measurement)");
    } else {
        sections::replace("tcmu", &text)?;
        println!("written to BENCHMARKS.md");
    }
    Ok(ExitCode::SUCCESS)
}

struct Run {
    kind: &'static str,
    daemon: String,
    who: &'static str,
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

/// Measures all of `runs`. Where instructions are counted, other work does not show: as many run
/// at the same time as there are CPUs.
fn measure(setting: &Setting, runs: VecDeque<Run>, quick: bool) -> Result<Shares> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if setting.icount { cpus.min(runs.len()) } else { 1 };
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
    let name = format!("{}-{}-{}", setting.name, one.kind, one.who);
    let share = run::target_dir()?.join("bench").join(&name);
    if share.exists() {
        std::fs::remove_dir_all(&share)?;
    }
    let script = run::root().join("xtask/guest/bench.sh");
    let script = script.to_string_lossy();
    let many = many(setting, quick).to_string();
    let words = [
        script.as_ref(),
        one.daemon.as_str(),
        one.kind,
        setting.runtime,
        setting.megabytes,
        many.as_str(),
    ];
    let mut vm = vm::Options::new(words.map(str::to_owned));
    vm.icount = setting.icount;
    vm.cpu = setting.cpu.map(str::to_owned);
    vm.share = Some(share.clone());
    vm.timeout = 1800;
    vm.mem = 3072;
    vm.scratch = 16384;
    vm.quiet = true;
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

/// With what it was measured.
fn about(pairs: &[Pair], no_file: Option<&str>) -> Result<String> {
    let first = pairs.first().context("nothing was measured")?;
    let fact = |m: &Measured, what: &str| {
        let found = m.about.iter().find(|(name, _)| name == what);
        found.map_or("unknown", |(_, version)| version.as_str()).to_owned()
    };
    let qemu = run::output(run::command("qemu-system-x86_64").arg("--version"))?;
    let with_c = pairs.iter().find_map(|pair| pair.c.as_ref());
    let mut text = String::from("Measured with `cargo xtask bench tcmu`:\n\n");
    for (what, version) in [
        ("kernel of the VM", fact(&first.ours, "kernel")),
        ("QEMU", qemu.lines().next().unwrap_or_default().to_owned()),
        ("fio", fact(&first.ours, "fio")),
        ("tcmu-runner", fact(&first.ours, "daemon")),
        ("the C daemon", with_c.map_or("not measured".into(), |c| fact(c, "daemon"))),
        ("commit", sections::commit()),
        ("processor", sections::processor()),
    ] {
        text += &format!("- {what}: {version}\n");
    }
    text += "\nThe same image file, through the kernel's loopback fabric, by libaio with O_DIRECT. \
             \"us per I/O\" is\nthe CPU time of the daemon's cgroup: its threads, its system calls, \
             its io_uring workers.\n";
    if let Some(why) = no_file {
        text += &format!("The C daemon's `file` handler could not be built: {why}\n");
    }
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
