// SPDX-License-Identifier: Apache-2.0
//! All tests, in the order in which they are quick to fail: the project's files, formatting, lints,
//! documentation, unit tests (among them short runs of what `fuzz/` feeds), the model checks of
//! loom, the simulation, and with `--full` more seeds of the qcow2 engine beside QEMU's; then the
//! suites of `tests/vm` on a real kernel, some of them in several ways ([`variants`]): in User-Mode
//! Linux where KVM does not work, which is several times as fast as an emulated processor. Nothing
//! is skipped silently: what cannot run has failed.

mod tally;
mod variants;

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::install::{self, For};
use crate::{check, differential, package, run, vm};
use tally::Tally;
use variants::{VARIANTS, Variant};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out what needs a VM
    #[arg(long)]
    quick: bool,
    /// Only the steps and suites whose names contain NAME; may be repeated. guestfs:NAME means the
    /// scripts of tests/guestfs whose names contain NAME, such as guestfs:transfer@btrfs. SUITE@WAY
    /// is a suite run in another way, such as data@6.12, and is meant by names with an @ alone
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// More of each: 256 devices, 40 kills, seeds, all filesystems beside the distribution's
    /// guestfsd, and more suites with a C handler or on another kernel
    #[arg(long)]
    full: bool,
    /// Another daemon for the suites in the VM: a command line
    #[arg(long, value_name = "COMMAND")]
    daemon: Option<String>,
    /// VMs at the same time; default: one for each CPU, at most 4
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Version of the kernel in the VM, or how it begins, such as 6.12, in QEMU; default: the
    /// distribution's, or where KVM does not work User-Mode Linux
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Nothing but guestfish with libguestfs's own VM and our daemon in it, beside the
    /// distribution's: some scripts of tests/guestfs, or those that --only names, or with --full all
    #[arg(long, conflicts_with_all = ["quick", "daemon", "kernel", "list"])]
    vm: bool,
    /// Print the names of steps and suites
    #[arg(long)]
    list: bool,
}

/// How many checks passed, and which failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    pub(crate) passed: usize,
    /// By their names; further lines are what is known of the failure.
    pub(crate) failed: Vec<String>,
}

/// How many lines of a failure are repeated at the end of a run.
const DETAILS: usize = 15;

impl Checks {
    /// One check, and what it printed if it has failed.
    pub(crate) fn explained(name: impl Into<String>, complaints: &str) -> Checks {
        let mut checks = Checks::of(name, complaints.is_empty());
        checks.explain(complaints.lines());
        checks
    }

    /// One check.
    pub(crate) fn of(name: impl Into<String>, good: bool) -> Checks {
        match good {
            true => Checks { passed: 1, failed: Vec::new() },
            false => Checks { passed: 0, failed: vec![name.into()] },
        }
    }

    /// Adds what a check printed that has failed, the last of them.
    fn explain<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        if let Some(failed) = self.failed.last_mut() {
            let room = (DETAILS + 1).saturating_sub(failed.lines().count());
            lines.take(room).for_each(|line| *failed += &format!("\n{line}"));
        }
    }

    /// Adds others.
    pub(crate) fn add(&mut self, other: Checks) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
    }

    /// Prints the last lines of a run: what failed, and why, since its own lines are far up by then,
    /// and how many there were.
    pub(crate) fn conclude(&self) -> ExitCode {
        for name in &self.failed {
            println!("failed: {}", name.replace('\n', "\n    "));
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        let good = self.failed.is_empty() && self.passed > 0;
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

type Step = (&'static str, fn(&Options) -> Result<Checks>);

const STEPS: [Step; 9] = [
    ("sources", |_| check::sources::main()),
    ("fmt", |_| one("fmt", &mut run::cargo(["fmt", "--all", "--check"]))),
    ("clippy", |_| {
        let args = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        one("clippy", &mut run::cargo(args))
    }),
    ("doc", |_| {
        let mut doc = run::cargo(["doc", "--quiet", "--workspace", "--no-deps"]);
        one("doc", doc.env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("unit", |options| {
        let mut tests = run::cargo(["test", "--workspace", "--no-fail-fast"]);
        if options.full {
            tests.env("LUNETTE_FULL", "1");
        }
        cargo_test(&mut tests)
    }),
    ("guestfs", |options| {
        let scripts = options.only.iter().filter_map(|only| only.strip_prefix(SCRIPTS));
        differential::main(&scripts.collect::<Vec<_>>(), options.full)
    }),
    ("loom", |_| check::loom()),
    // The same seeds each time, about two minutes of them; new ones are for `cargo xtask sim`.
    ("sim", |_| {
        let mut sim = Command::new(std::env::current_exe()?);
        one("sim", sim.args(["sim", "--seed", "0", "--seeds", SIM_SEEDS]))
    }),
    // The first seed is among the unit tests.
    ("qemu", |options| {
        if !options.full {
            return Ok(Checks::default());
        }
        let args = ["test", "-p", "qcow2", "--test", "differential", "--", "--ignored"];
        cargo_test(run::cargo(args).env("LUNETTE_SEEDS", "20"))
    }),
];

const SIM_SEEDS: &str = "400";

/// What stands before the name of a script after --only.
const SCRIPTS: &str = "guestfs:";

/// A script of `tests/vm` with its arguments after the daemon.
struct Suite {
    name: &'static str,
    script: &'static str,
    args: &'static [&'static str],
    /// In place of `args` with --full.
    full_args: &'static [&'static str],
    env: &'static [&'static str],
    /// In seconds, on a slow machine without KVM.
    timeout: u64,
    kernel: Kernel,
    when: When,
}

/// The kernel of a suite.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Any,
    /// The distribution's: that of User-Mode Linux has neither zoned disks nor the address space that
    /// sanitizers want, and a write under dm-log-writes has hung on it, with no task that waited in the
    /// kernel.
    Usual,
    /// Two of User-Mode Linux, on one Ethernet.
    Pair,
    /// Any, with systemd as its first process.
    Systemd,
}
use Kernel::{Any, Pair, Systemd, Usual};

/// When a suite runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// With --full, or where --only names it: what it shows others show nearly as well, in less time.
    Full,
}

/// What stands before the name of a Debian package in a suite's arguments: the suite gets the
/// directory of its unpacked files.
const PACKAGE: &str = "package:";
/// The same, but the suite gets the package itself.
const DEB: &str = "deb:";
/// An argument: the directory of our own packages.
const OURS: &str = "our packages";
const PACKAGES: &[&str] = &[OURS, "deb:tcmu-runner", "deb:libtcmu2"];
const LIBTCMU2: &[&str] = &["package:libtcmu2"];
const WITH_VALGRIND: &[&str] = &["package:libtcmu2", "valgrind"];
/// Debian's plugins.
const HANDLERS: &[&str] = &["package:tcmu-runner"];
/// The kernel's iSCSI initiator, and what Debian's programs for it are linked with.
const INITIATOR: &[&str] = &["package:open-iscsi", "package:libisns0", "package:libopeniscsiusr"];
const WITH_CLUSTER: &[&str] = &["package:tcmu-runner", "cluster"];
/// The scripts whose daemons load plugins of the scripts' choice. Those that this machine happens to
/// have do not belong to the others.
const CHOOSE_PLUGINS: [&str; 5] = ["plugin.sh", "isolation.sh", "media.sh", "rbd.sh", "status.sh"];
const POOL: &[&str] = &["TCMU_RUNNER_ENGINE=pool"];

/// The longest first, those in QEMU, so that the last to end is short.
#[rustfmt::skip]
const SUITES: &[Suite] = &[
    Suite { name: "power",     script: "power.sh",     args: &["5"],    full_args: &["40"],         env: &[],  timeout: 1500, kernel: Usual, when: When::Always },
    Suite { name: "media",     script: "media.sh",     args: HANDLERS,  full_args: HANDLERS,        env: &[],  timeout: 900,  kernel: Usual, when: When::Always },
    Suite { name: "libtcmu",   script: "libtcmu.sh",   args: LIBTCMU2,  full_args: WITH_VALGRIND,   env: &[],  timeout: 900,  kernel: Usual, when: When::Always },
    Suite { name: "package",   script: "package.sh",   args: PACKAGES,  full_args: PACKAGES,        env: &[],  timeout: 1800,  kernel: Systemd, when: When::Always },
    Suite { name: "data",      script: "data.sh",      args: &[],       full_args: &[],             env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "life-qcow", script: "life.sh",      args: &["qcow"], full_args: &["qcow", "40"], env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "life-file", script: "life.sh",      args: &["file"], full_args: &["file", "40"], env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "scsi-qcow", script: "scsi.sh",      args: &["qcow"], full_args: &["qcow"],       env: &[],  timeout: 600,  kernel: Any,   when: When::Always },
    Suite { name: "scsi-file", script: "scsi.sh",      args: &["file"], full_args: &["file"],       env: &[],  timeout: 600,  kernel: Any,   when: When::Always },
    Suite { name: "plugin",    script: "plugin.sh",    args: HANDLERS,  full_args: HANDLERS,        env: &[],  timeout: 1200, kernel: Any,   when: When::Always },
    Suite { name: "isolation", script: "isolation.sh", args: HANDLERS,  full_args: HANDLERS,        env: &[],  timeout: 1200, kernel: Any,   when: When::Always },
    Suite { name: "boot",      script: "boot.sh",      args: &[OURS],   full_args: &[OURS],             env: &[],  timeout: 900,  kernel: Systemd, when: When::Always },
    Suite { name: "targetcli", script: "targetcli.sh", args: &[],       full_args: &[],             env: &[],  timeout: 600,  kernel: Any,   when: When::Always },
    Suite { name: "faults",    script: "faults.sh",    args: &[],       full_args: &[],             env: &[],  timeout: 600,  kernel: Any,   when: When::Always },
    Suite { name: "many",      script: "many.sh",      args: &["32"],   full_args: &["256"],        env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "refusals",  script: "refusals.sh",  args: &[],       full_args: &[],             env: &[],  timeout: 600,  kernel: Any,   when: When::Always },
    Suite { name: "absent",    script: "absent.sh",    args: &[],       full_args: &[],             env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "bus",       script: "bus.sh",       args: &[],       full_args: &[],             env: &[],  timeout: 600,  kernel: Any,   when: When::Always },
    Suite { name: "status",    script: "status.sh",    args: &[],       full_args: &[],             env: &[],  timeout: 600,  kernel: Any,   when: When::Always },
    Suite { name: "cluster-rbd", script: "cluster.sh", args: &["rbd", "16"], full_args: &["rbd", "64"], env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "cluster-glfs", script: "cluster.sh", args: &["glfs"], full_args: &["glfs"],      env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "rbd",       script: "rbd.sh",       args: WITH_CLUSTER, full_args: WITH_CLUSTER, env: &[],  timeout: 900,  kernel: Any,   when: When::Always },
    Suite { name: "gateways",  script: "gateways.sh",  args: INITIATOR, full_args: INITIATOR,       env: &[],  timeout: 600,  kernel: Pair,  when: When::Always },
    Suite { name: "pool-qcow", script: "scsi.sh",      args: &["qcow"], full_args: &["qcow"],       env: POOL, timeout: 600,  kernel: Any,   when: When::Full   },
];

/// What suites share, and servers that other tests start, too.
const SHARED: [&str; 4] = ["lib.sh", "ceph.sh", "gluster.sh", "installed.sh"];

/// Shell scripts of `tests/vm` that are no suite, without what suites share.
pub(crate) fn unused_suites(files: &BTreeSet<PathBuf>) -> Vec<String> {
    let scripts = files.iter().filter_map(|path| path.strip_prefix("tests/vm").ok());
    let scripts = scripts.filter(|script| script.extension() == Some(OsStr::new("sh")));
    let used = |script: &&Path| {
        SHARED.iter().any(|shared| *script == Path::new(shared))
            || SUITES.iter().any(|suite| *script == Path::new(suite.script))
    };
    scripts
        .filter(|script| !used(script))
        .map(|script| format!("tests/vm/{}", script.display()))
        .collect()
}

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    if options.vm {
        return in_vm(options);
    }
    let wanted = |name: &str| {
        let is_meant = |only: &String| match only.strip_prefix(SCRIPTS) {
            Some(_) => name == "guestfs",
            None => name.contains(only.as_str()),
        };
        options.only.is_empty() || options.only.iter().any(is_meant)
    };
    let steps: Vec<Step> = STEPS.into_iter().filter(|(name, _)| wanted(name)).collect();
    let is_due = |when: When| when == When::Always || options.full || !options.only.is_empty();
    let plain = SUITES.iter().filter(|suite| wanted(suite.name) && is_due(suite.when));
    let plain = plain.map(Job::plain);
    let varied = VARIANTS.iter().filter(|variant| variant.is_wanted(options)).map(Job::varied);
    let suites: Vec<Job> = match options.quick {
        true => Vec::new(),
        // Those in QEMU are the longest.
        false => varied.chain(plain.map(Ok)).collect::<Result<_>>()?,
    };
    if options.list {
        let names = STEPS.iter().map(|step| step.0).chain(SUITES.iter().map(|suite| suite.name));
        let names = names.map(str::to_owned).chain(VARIANTS.iter().map(Variant::name));
        println!("{}", names.collect::<Vec<_>>().join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    if steps.is_empty() && suites.is_empty() {
        bail!("no step or suite is called so; --list names them");
    }
    install::ensure(&[For::Vm, For::Luns, For::Files, For::Test])?;
    install::kernel(options.kernel.as_deref())?;
    for job in &suites {
        install::kernel(job.kernel(options))?;
    }
    let mut total = Checks::default();
    let mut lines = Vec::new();
    for (name, step) in steps {
        println!("== {name}");
        let start = Instant::now();
        let checks = step(options).unwrap_or_else(|error| {
            println!("FAIL {name}: {error:#}");
            Checks::of(format!("{name}: {error:#}"), false)
        });
        run::check_interrupt()?;
        lines.push(summary(name, &checks, start));
        total.add(checks);
    }
    if !suites.is_empty() {
        println!("== in the VM");
        let daemon = match &options.daemon {
            Some(command) => command.clone(),
            None => run::build_daemon(run::SOON)?.to_string_lossy().into_owned(),
        };
        for (line, checks) in run_suites(&suites, &daemon, options)? {
            lines.push(line);
            total.add(checks);
        }
    }
    println!("== summary\n{}", lines.join("\n"));
    Ok(total.conclude())
}

/// With `--vm`.
fn in_vm(options: &Options) -> Result<ExitCode> {
    install::ensure(&[For::Vm, For::Luns, For::Files, For::Test])?;
    Ok(differential::in_vm(&options.only, options.full)?.conclude())
}

fn summary(name: &str, checks: &Checks, start: Instant) -> String {
    let seconds = start.elapsed().as_secs();
    let (passed, failed) = (checks.passed, checks.failed.len());
    format!("   {name:<18} {passed:>4} passed {failed:>3} failed {seconds:>5} s")
}

/// A command as one check.
fn one(name: &str, command: &mut Command) -> Result<Checks> {
    Ok(Checks::of(name, run::status(command)?.success()))
}

/// Runs `cargo test`, shows what it says, and counts.
pub(crate) fn cargo_test(command: &mut Command) -> Result<Checks> {
    let mut text = String::new();
    let good = run::lines(command, &mut |line| {
        println!("{line}");
        text.push_str(line);
        text.push('\n');
    })?;
    let mut checks = of_cargo_test(&text);
    // What does not build has no tests that fail.
    if !good && checks.failed.is_empty() || checks == Checks::default() {
        checks.failed.push(run::describe(command));
    }
    Ok(checks)
}

/// Reads the lines "test NAME ... FAILED", and adds up those like "test result: ok. 3 passed; 0
/// failed; ...": what these count as failed and no line names, such as a test whose line another
/// program's output tore, has failed, too.
fn of_cargo_test(text: &str) -> Checks {
    let mut total = Checks::default();
    for line in text.lines() {
        if let Some(test) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            total.failed.push(test.to_owned());
            let head = format!("---- {test} stdout ----");
            let printed = text.lines().skip_while(|line| *line != head).skip(1);
            let printed =
                printed.take_while(|line| !line.starts_with("---- ") && *line != "failures:");
            let printed: Vec<&str> = printed.filter(|line| !line.is_empty()).collect();
            // What made it fail comes last.
            total.explain(printed[printed.len().saturating_sub(DETAILS)..].iter().copied());
        }
    }
    let mut failed = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let before = |what: &str| -> Option<usize> {
            let at = words.iter().position(|word| *word == what)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        total.passed += before("passed;").unwrap_or(0);
        failed += before("failed;").unwrap_or(0);
    }
    while total.failed.len() < failed {
        total.failed.push("a test whose name was not on a line of its own".to_owned());
    }
    total
}

/// Runs the suites, some at the same time; each line of theirs comes out behind the suite's name.
fn run_suites(suites: &[Job], daemon: &str, options: &Options) -> Result<Vec<(String, Checks)>> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(cpus.min(4)).clamp(1, suites.len());
    let uml = !vm::kvm_works()?;
    let queue: Mutex<VecDeque<&Job>> = Mutex::new(suites.iter().collect());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                    let Some(job) = next.filter(|_| !run::interrupted()) else { return };
                    let start = Instant::now();
                    let checks = run_suite(job, daemon, uml, options).unwrap_or_else(|error| {
                        println!("{}: FAIL {error:#}", job.name);
                        Checks::of(format!("{}: {error:#}", job.name), false)
                    });
                    if let Ok(mut results) = results.lock() {
                        results.push((summary(&job.name, &checks, start), checks));
                    }
                }
            });
        }
    });
    run::check_interrupt()?;
    Ok(results.into_inner().unwrap_or_default())
}

/// A suite that is to run, in its own way or another one.
struct Job {
    name: String,
    suite: &'static Suite,
    variant: Option<&'static Variant>,
}

impl Job {
    fn plain(suite: &'static Suite) -> Job {
        Job { name: suite.name.to_owned(), suite, variant: None }
    }

    fn varied(variant: &'static Variant) -> Result<Job> {
        let suite = SUITES.iter().find(|suite| suite.name == variant.suite);
        let suite = suite.with_context(|| format!("there is no suite {}", variant.suite))?;
        Ok(Job { name: variant.name(), suite, variant: Some(variant) })
    }

    /// The kernel's version, or how it begins, where it is not the distribution's usual one.
    fn kernel<'a>(&self, options: &'a Options) -> Option<&'a str> {
        self.variant.and_then(Variant::kernel).or(options.kernel.as_deref())
    }
}

fn run_suite(job: &Job, daemon: &str, uml: bool, options: &Options) -> Result<Checks> {
    let Job { name, suite, variant } = job;
    let script = run::root().join("tests/vm").join(suite.script);
    let args = if options.full { suite.full_args } else { suite.args };
    let own_plugins = CHOOSE_PLUGINS.contains(&suite.script) || options.daemon.is_some();
    let mut plugins = if own_plugins { String::new() } else { run::NO_PLUGINS.to_owned() };
    let mut vm = vm::Options::new([script.to_string_lossy().into_owned()]);
    vm.env = suite.env.iter().map(|s| (*s).to_owned()).collect();
    // Another daemon has its own handlers, of which nothing is expected.
    if let Some(handler) = variant.and_then(Variant::handler).filter(|_| options.daemon.is_none()) {
        plugins = format!(" --handler-path {}", handler.directory()?.display());
        vm.env.push(format!("HANDLER={}", handler.subtype));
    }
    // Its daemon is that of a package.
    if !args.contains(&OURS) {
        vm.script.push(format!("{daemon}{plugins}"));
    }
    for argument in args {
        let path = if *argument == OURS {
            Some(package::for_tests()?)
        } else if let Some(name) = argument.strip_prefix(PACKAGE) {
            Some(install::unpacked::package(name)?)
        } else {
            argument.strip_prefix(DEB).map(install::unpacked::deb).transpose()?
        };
        let path = path.map(|path| path.to_string_lossy().into_owned());
        vm.script.push(path.unwrap_or_else(|| (*argument).to_owned()));
    }
    vm.timeout = suite.timeout * if options.full { 4 } else { 1 };
    vm.kernel = job.kernel(options).map(str::to_owned);
    vm.pair = suite.kernel == Pair;
    vm.systemd = suite.kernel == Systemd;
    let uml = uml && vm.kernel.is_none() && !variant.is_some_and(Variant::in_qemu);
    vm.uml = vm.pair || uml && matches!(suite.kernel, Any | Systemd);
    vm.quiet = true;
    vm.mem = 1536;
    let mut tally = Tally::of(name);
    let mut text = Vec::new();
    let outcome = vm::boot(&vm, &mut |bytes| {
        text.extend_from_slice(bytes);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            println!("{name}: {}", line.trim_end());
            tally.line(line.trim_end());
        }
        Ok(())
    })?;
    let mut fail = |what: &str| {
        println!("{name}: FAIL {what}");
        tally.fail(what);
    };
    for line in outcome.trouble.iter().take(5) {
        fail(&format!("the kernel: {line}"));
    }
    if outcome.timed_out {
        fail(&format!("not at its end after {} s", vm.timeout));
    } else if outcome.status.is_none() {
        fail("the VM ended early");
        for line in &outcome.last_words {
            println!("{name}:   {line}");
        }
    }
    Ok(tally.end(outcome.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_test_binaries_are_added_and_what_failed_is_named() {
        let text = "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                    test b::c ... FAILED\ntest d ... what it printedFAILED\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored\n";
        let checks = of_cargo_test(text);
        assert_eq!((checks.passed, checks.failed.len()), (4, 2));
        assert_eq!(checks.failed[0], "b::c");
    }

    #[test]
    fn every_suite_has_its_script() {
        let dir = run::root().join("tests/vm");
        for suite in SUITES {
            assert!(dir.join(suite.script).is_file(), "{}", suite.script);
        }
    }
}
