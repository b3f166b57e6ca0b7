// SPDX-License-Identifier: Apache-2.0
//! A VM with the host's own files, in which a script runs as root: QEMU with the host's own kernel, or
//! User-Mode Linux.
//!
//! The guest's root is the host's root file system, read-only with a tmpfs overlay on it:
//! every file and package of the host is inside under the same path, there is no image to build,
//! and what is written inside is gone afterwards. `/scratch` is a fresh ext4 (the
//! overlay knows neither O_DIRECT nor FALLOC_FL_ZERO_RANGE), `/share` a directory of the host's.
//! The script's output comes out as it is, its exit status in a control directory.

mod accel;
mod control;
pub(crate) mod cpio;
pub(crate) mod kernel;
mod machine;
mod options;
mod pair;
mod qemu;
mod trouble;
mod uml;

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub(crate) use kernel::static_busybox;
pub(crate) use options::Options;

use crate::install::{self, For};
use crate::run::{self, Kept};
use accel::Accel;
use control::ERRORS;
use machine::Machine;
use pair::Pair;

/// How long a VM may take to power off.
const POWER_OFF: Duration = Duration::from_secs(60);

/// Whether the processor carries out a guest's instructions here.
pub(crate) fn kvm_works() -> Result<bool> {
    Ok(accel::best(&kernel::boot_files(None)?) == Accel::Kvm)
}

/// How a VM ended.
pub(crate) struct Outcome {
    /// The script's exit status; `None`: it did not come to its end.
    pub(crate) status: Option<u8>,
    pub(crate) timed_out: bool,
    /// Lines of the kernel's log that tell of trouble.
    pub(crate) trouble: Vec<String>,
    /// The last lines that the VM's process and the guest's console said.
    pub(crate) last_words: Vec<String>,
}

/// The subcommand.
pub(crate) fn main(options: Options) -> Result<ExitCode> {
    install::ensure(&[For::Vm])?;
    install::kernel(options.kernel.as_deref())?;
    let mut stdout = std::io::stdout();
    let outcome = boot(&options, &mut |bytes| {
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    })?;
    for line in outcome.trouble.iter().take(10) {
        eprintln!("vm: kernel: {line}");
    }
    if let Some(status) = outcome.status {
        return Ok(ExitCode::from(status));
    }
    for line in &outcome.last_words {
        eprintln!("vm: {line}");
    }
    if outcome.timed_out {
        eprintln!("vm: time-out after {} s", options.timeout);
        return Ok(ExitCode::from(124));
    }
    eprintln!("vm: the guest did not come to its end");
    Ok(ExitCode::from(125))
}

/// Boots the VM and runs the script; its output goes to `sink` as it comes.
pub(crate) fn boot(
    options: &Options,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Outcome> {
    let mut machine = Machine::of(options)?;
    let dir = tempfile::Builder::new().prefix("lunette-vm.").tempdir()?;
    control::write(dir.path(), options)?;
    let end = Instant::now() + Duration::from_secs(options.timeout);
    let (mut pair, mut guest) = start(options, &machine, dir.path())?;
    // A boot that hangs is tried once more, by software if it was KVM that hung.
    if !guest.wait_for_boot(options, end)? {
        guest.process.kill();
        machine.without_kvm();
        eprintln!("vm: not booted in time; trying once more: {}", machine.describe(options));
        drop(pair.take());
        (pair, guest) = start(options, &machine, dir.path())?;
        guest.wait_for_boot(options, end)?;
    }
    let ended = guest.relay(end, sink);
    let status = guest.process.0.try_wait()?;
    guest.process.kill();
    drop(pair);
    let mut outcome = outcome(dir.path(), ended.as_ref().is_ok_and(|ended| !ended));
    if let Some(logs) = &options.logs {
        std::fs::create_dir_all(logs)?;
        for name in ["console", "dmesg", ERRORS] {
            if dir.path().join(name).exists() {
                std::fs::copy(dir.path().join(name), logs.join(name))?;
            }
        }
    }
    ended?;
    if let Some(status) = status {
        outcome.last_words.push(format!("the VM's process ended: {status}"));
    }
    Ok(outcome)
}

/// Starts the VM, after its peer where it is to have one.
fn start(options: &Options, machine: &Machine, dir: &Path) -> Result<(Option<Pair>, Guest)> {
    let mut pair = options.pair.then(|| Pair::start(options, machine, dir)).transpose()?;
    let stdin = pair.as_mut().map_or_else(Stdio::piped, Pair::card);
    let guest = Guest::start(options, machine, dir, stdin)?;
    Ok((pair, guest))
}

/// A VM that runs.
struct Guest {
    process: Kept,
    output: mpsc::Receiver<Vec<u8>>,
    boot_seconds: PathBuf,
    status: PathBuf,
    what: String,
}

impl Guest {
    /// `stdin`: an end of file on it would disconnect QEMU's output port, so it is a pipe, which stays
    /// open, silent, for as long as `process` lives; of one of a pair it is the network.
    fn start(options: &Options, machine: &Machine, dir: &Path, stdin: Stdio) -> Result<Guest> {
        let mut command = machine.command(options, dir)?;
        let mut process = Kept(
            command
                .stdin(stdin)
                .stdout(Stdio::piped())
                .stderr(File::create(dir.join(ERRORS))?)
                .spawn()
                .with_context(|| format!("cannot start {}", run::describe(&command)))?,
        );
        let mut stdout = process.0.stdout.take().context("no pipe")?;
        let (sender, output) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let what = machine.describe(options);
        let [boot_seconds, status] = ["boot-seconds", "rc"].map(|name| dir.join(name));
        Ok(Guest { process, output, boot_seconds, status, what })
    }

    /// Waits until the guest is about to start the script; false: it hangs.
    fn wait_for_boot(&mut self, options: &Options, end: Instant) -> Result<bool> {
        let start = Instant::now();
        let limit = Duration::from_secs(if options.icount { 300 } else { 120 });
        let progress = !options.quiet && std::io::stderr().is_terminal();
        let show = |text: &str| {
            if progress {
                eprint!("\r\x1b[K{text}");
            }
        };
        loop {
            run::check_interrupt()?;
            if self.boot_seconds.exists()
                || self.process.wait(Duration::from_millis(100))?.is_some()
            {
                show("");
                return Ok(true);
            }
            if start.elapsed() > limit || Instant::now() > end {
                show("");
                return Ok(false);
            }
            show(&format!("booting {} ... {} s", self.what, start.elapsed().as_secs()));
        }
    }

    /// Hands on the output until the VM ends; false: it did not end in time. One whose script has
    /// ended and that does not power off, such as one that waits for a disk, has ended all the same.
    fn relay(&mut self, end: Instant, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let mut script_ended: Option<Instant> = None;
        loop {
            run::check_interrupt()?;
            match self.output.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => sink(&bytes)?,
                Err(RecvTimeoutError::Timeout) => {
                    if script_ended.is_some_and(|ended| ended.elapsed() > POWER_OFF) {
                        return Ok(true);
                    }
                    if script_ended.is_none() && self.status.exists() {
                        script_ended = Some(Instant::now());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(self.process.wait(Duration::from_secs(10))?.is_some());
                }
            }
            if Instant::now() > end {
                return Ok(false);
            }
        }
    }
}

fn outcome(dir: &Path, timed_out: bool) -> Outcome {
    let text = |name: &str| {
        let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (console, errors) = (text("console"), text(ERRORS));
    let mut last_words: Vec<String> = Vec::new();
    for (name, text) in [("errors", &errors), ("console", &console)] {
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        last_words.extend(tail.iter().map(|line| format!("{name}: {line}")));
    }
    Outcome {
        status: text("rc").trim().parse().ok(),
        timed_out,
        trouble: trouble::lines(&format!("{console}\n{errors}\n{}", text("dmesg"))),
        last_words,
    }
}
