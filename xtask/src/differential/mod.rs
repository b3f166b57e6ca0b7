// SPDX-License-Identifier: Apache-2.0
//! The scripts of `tests/guestfs`, run by the unmodified guestfish against the distribution's daemon
//! and ours, with no VM: what the calls return and print is compared line by line ([`session`]), and
//! what is right to differ is noted with the reason ([`notes`]). Every procedure that a script can call
//! is called by one ([`coverage`]).
//!
//! The first lines of a script say what it needs: `# disks: SIZE...` (or `ldm:N`, a disk of Windows), and `# filesystems: TYPE...` if it is
//! to run once for each type, in the place of the word FSTYPE. In the notes, `NAME@TYPE` is such a run.

mod coverage;
mod dynamic_disk;
mod notes;
mod session;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::test::Checks;
use crate::{appliance, run, vm};
use notes::Notes;
use session::Daemon;

/// Set to have what differs now, with no VM, noted under the reasons that are noted already.
const UPDATE: &str = "UPDATE_DIFFERS";

/// One script, on one type of filesystem if it is for several.
struct Script {
    file: PathBuf,
    /// What it is called in what is printed, and in the name of its notes.
    name: String,
    /// As guestfish is to read it.
    text: String,
    /// Sizes of its disks.
    disks: Vec<String>,
    /// In User-Mode Linux, because this machine's kernel lacks the filesystem or a module.
    uml: bool,
    /// Only with --full, because it takes long there and others do the same.
    full_only: bool,
}

/// Scripts that also run in a VM by default: filesystems of all kinds, partitions, inspection; each costs
/// two boots.
const IN_VM: [&str; 6] = ["ext", "filesystems", "inspect", "parts", "vfat", "xfs"];

/// Runs on a filesystem that are made in User-Mode Linux without --full, too.
const UML_BY_DEFAULT: &[&str] = &["archives@vfat", "directories@vfat"];

/// Runs the scripts with no VM: those whose names contain one of `only`, or if there is none all of
/// them, but for runs in User-Mode Linux that take long, which need `full`.
pub(crate) fn main(only: &[&str], full: bool) -> Result<Checks> {
    let stock = stock()?;
    run::run(&mut run::cargo(["build", "-p", "guestfsd", "-p", "guestfs-novm"]))?;
    let built = run::target_dir()?.join("debug");
    let mut scripts = scripts(&run::root().join("tests/guestfs"))?;
    let mut checks = Checks::default();
    let missing = coverage::missing(scripts.iter().map(|script| script.text.as_str()));
    let complaints = missing.join("\n");
    checks.add(Checks::explained("guestfs: every procedure is called by a script", &complaints));
    scripts.retain(|script| match only {
        [] => full || !script.full_only,
        _ => only.iter().any(|part| script.name.contains(part)),
    });
    if scripts.is_empty() {
        bail!("no script of tests/guestfs is called so");
    }
    let ours = Daemon::NoVm(built.clone(), built.join("guestfsd"));
    checks.add(compare_all(scripts, &Daemon::NoVm(built, stock), &ours)?);
    Ok(checks)
}

/// Runs scripts in VMs, with an appliance of our own: those whose names contain one of `only`, or if
/// there is none, some or all.
pub(crate) fn in_vm(only: &[String], all: bool) -> Result<Checks> {
    let stock = stock()?;
    let daemon = run::Build::start(run::SOON, &["guestfsd"])?.finish()?.join("guestfsd");
    let mut scripts = scripts(&run::root().join("tests/guestfs"))?;
    scripts.retain(|script| match only {
        [] => all || IN_VM.iter().any(|name| script.file.file_stem() == Some(name.as_ref())),
        _ => only.iter().any(|part| script.name.contains(part.as_str())),
    });
    if scripts.is_empty() {
        bail!("no script of tests/guestfs is called so");
    }
    let kvm = vm::kvm_works()?;
    let appliances = [tempfile::tempdir()?, tempfile::tempdir()?];
    let mut daemons = Vec::new();
    for (dir, daemon) in appliances.iter().zip([&stock, &daemon]) {
        // What the distribution's daemon is linked to, and starts, is in both.
        appliance::make(dir.path(), daemon, &["guestfsd", "uuid-runtime"])?;
        daemons.push(Daemon::Vm(dir.path().to_owned(), kvm));
    }
    compare_all(scripts, &daemons[0], &daemons[1])
}

fn stock() -> Result<PathBuf> {
    run::find_program("guestfsd")
        .context("the distribution's guestfsd is missing: apt-get install guestfsd")
}

/// Runs scripts against both daemons, some at a time.
fn compare_all(scripts: Vec<Script>, stock: &Daemon, ours: &Daemon) -> Result<Checks> {
    let queue: Mutex<VecDeque<Script>> = Mutex::new(scripts.into());
    let results = Mutex::new(Checks::default());
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(script) = queue.lock().ok().and_then(|mut queue| queue.pop_front())
                    && !run::interrupted()
                {
                    let start = Instant::now();
                    let complaints = compare(&script, stock, ours)
                        .unwrap_or_else(|error| format!("{error:#}\n"));
                    let good = complaints.is_empty();
                    let lines = complaints.lines().map(|l| format!("guestfs:   {l}\n"));
                    let word = if good { "ok" } else { "FAIL" };
                    let seconds = start.elapsed().as_secs();
                    let name = &script.name;
                    println!("{}guestfs: {word} {name} ({seconds} s)", lines.collect::<String>());
                    if let Ok(mut results) = results.lock() {
                        results.add(Checks::explained(format!("guestfs: {name}"), &complaints));
                    }
                }
            });
        }
    });
    run::check_interrupt()?;
    Ok(results.into_inner().unwrap_or_default())
}

/// All scripts, those that take long first.
fn scripts(dir: &Path) -> Result<Vec<Script>> {
    let mut scripts = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
        let file = entry?.path();
        if file.extension().is_some_and(|e| e == "fish") {
            scripts.extend(runs(&file)?);
        }
    }
    if scripts.is_empty() {
        bail!("{} has no scripts", dir.display());
    }
    scripts.sort_by(|a, b| (!a.uml, &a.name).cmp(&(!b.uml, &b.name)));
    Ok(scripts)
}

/// The runs of one script.
fn runs(file: &Path) -> Result<Vec<Script>> {
    let text = fs::read_to_string(file)?;
    let words = |key: &str| -> Option<Vec<String>> {
        let value = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(value.split_whitespace().map(str::to_owned).collect())
    };
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let disks = words("# disks: ")
        .with_context(|| format!("{} has no line `# disks: SIZE...`", file.display()))?;
    let modules = words("# modules: ").unwrap_or_default();
    let uml = !modules.iter().all(|name| Path::new("/sys/module").join(name).exists());
    let Some(types) = words("# filesystems: ") else {
        let text = lenient(&text);
        return Ok(vec![Script {
            file: file.to_owned(),
            name,
            text,
            disks,
            uml,
            full_only: false,
        }]);
    };
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let runs = types.iter().map(|fstype| {
        let name = format!("{name}@{fstype}");
        let is_known = known.split_whitespace().any(|word| word == fstype);
        Script {
            file: file.to_owned(),
            text: lenient(&text).replace("FSTYPE", fstype),
            disks: disks.clone(),
            uml: uml || !is_known,
            full_only: !is_known && !UML_BY_DEFAULT.contains(&name.as_str()),
            name,
        }
    });
    Ok(runs.collect())
}

/// The same script, in which every call may fail: what matters is that both daemons' do.
fn lenient(text: &str) -> String {
    let mut until: Option<String> = None;
    let line = |line: &str| {
        let inside = until.is_some();
        match &until {
            Some(end) if end == line => until = None,
            Some(_) => {}
            None => until = line.split_once("<<").map(|(_, rest)| heredoc_end(rest)),
        }
        let plain = inside || line.is_empty() || line == "run" || line.starts_with(['-', '#']);
        format!("{}{line}\n", if plain { "" } else { "-" })
    };
    text.lines().map(line).collect()
}

/// What ends the text that follows `<<` in a script.
fn heredoc_end(rest: &str) -> String {
    rest.split(' ').next().unwrap_or_default().to_owned()
}

/// What is wrong with what both daemons do, line by line; nothing if nothing is.
fn compare(script: &Script, stock: &Daemon, ours: &Daemon) -> Result<String> {
    let (theirs, mine) = (session::answers(script, stock)?, session::answers(script, ours)?);
    let complaints = complaints(script, stock, ours, [&theirs.calls, &mine.calls])?;
    if complaints.is_empty() {
        return Ok(complaints);
    }
    // What the distribution's daemon does not do every time is no measure.
    let again = session::answers(script, stock)?;
    if again.calls != theirs.calls {
        let name = &script.name;
        println!("guestfs: {name}: {stock} did something else the second time, which counts.");
        return self::complaints(script, stock, ours, [&again.calls, &mine.calls]);
    }
    let errors = |daemon: &Daemon, errors: &str| match errors {
        "" => String::new(),
        errors => format!("errors with {daemon}:\n{errors}"),
    };
    Ok(complaints + &errors(stock, &theirs.errors) + &errors(ours, &mine.errors))
}

/// The differences of answers, theirs and ours, that are not noted, and notes that do not hold any more.
fn complaints(
    script: &Script,
    stock: &Daemon,
    ours: &Daemon,
    answers: [&String; 2],
) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let printed = [dir.path().join("stock"), dir.path().join("ours")];
    for (file, answers) in printed.iter().zip(answers) {
        fs::write(file, answers)?;
    }
    let mut diff = Command::new("diff");
    diff.args(["-a", "-U0"]).args(&printed);
    let output = diff.output().context("diff")?;
    let differences: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .skip(2)
        .filter(|line| line.starts_with(['-', '+']))
        .map(str::to_owned)
        .collect();
    let file = script.file.with_file_name(format!("{}.differs", script.name));
    let in_vm = matches!(ours, Daemon::Vm(..));
    let notes = Notes::parse(&fs::read_to_string(&file).unwrap_or_default());
    if std::env::var_os(UPDATE).is_some() && !in_vm {
        match notes.updated(&differences) {
            text if text.is_empty() => fs::remove_file(&file).ok(),
            text => Some(fs::write(&file, text)?),
        };
        return Ok(String::new());
    }
    let complaints = notes.that_hold(in_vm).complaints(&differences);
    if complaints.is_empty() {
        return Ok(complaints);
    }
    let head = format!("- {stock}, + {ours}; notes: {}\n", file.display());
    Ok(head + &complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_procedure_that_a_script_can_call_is_called_by_one() {
        let scripts = scripts(&run::root().join("tests/guestfs")).unwrap();
        let missing = coverage::missing(scripts.iter().map(|script| script.text.as_str()));
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn every_difference_that_is_noted_has_its_reason_and_its_script() {
        let dir = run::root().join("tests/guestfs");
        let names: Vec<String> = scripts(&dir).unwrap().into_iter().map(|s| s.name).collect();
        for entry in fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|e| e == "differs") {
                let notes = Notes::parse(&fs::read_to_string(&file).unwrap());
                assert_eq!(notes.without_reason(), [""; 0], "{}", file.display());
                let name = file.file_stem().unwrap().to_str().unwrap();
                assert!(names.iter().any(|n| n == name), "{} has no script", file.display());
            }
        }
    }

    #[test]
    fn in_a_lenient_script_every_call_may_fail() {
        let text = lenient("# disks: 1M\nrun\nmkdir /x\n-rm /x\n\nupload -<<END /x\ntext\nEND\n");
        let wanted = "# disks: 1M\nrun\n-mkdir /x\n-rm /x\n\n-upload -<<END /x\ntext\nEND\n";
        assert_eq!(text, wanted);
    }
}
