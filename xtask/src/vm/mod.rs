// SPDX-License-Identifier: Apache-2.0
//! A VM with the host's own kernel and files, in which a script runs as root.
//!
//! The guest's root is the host's root file system, read-only over 9p with a tmpfs overlay on it:
//! every file and package of the host is inside under the same path, there is no image to build,
//! and what is written inside is gone afterwards. `/scratch` is a fresh ext4 on virtio-blk (the
//! overlay knows neither O_DIRECT nor FALLOC_FL_ZERO_RANGE), `/share` a directory of the host's.
//! The script's output comes out on a virtio port, its exit status in a control directory.

mod accel;
pub(crate) mod cpio;
pub(crate) mod kernel;
mod trouble;

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use accel::Accel;
pub(crate) use kernel::static_busybox;

use crate::install::{self, For};
use crate::run::{self, Kept};

const STAGE2: &str = include_str!("guest/stage2");
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr \
    audit=0 apparmor=0 no_timer_check random.trust_cpu=on cryptomgr.notests \
    rcupdate.rcu_expedited=1 hung_task_panic=0";

/// Options of `cargo xtask vm`, and what the other subcommands set.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// CPUs of the guest
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) cpus: u32,
    /// Memory of the guest
    #[arg(long, default_value_t = 2048, value_name = "MB")]
    pub(crate) mem: u32,
    /// Size of /scratch, a fresh sparse ext4
    #[arg(long, default_value_t = 4096, value_name = "MB")]
    pub(crate) scratch: u64,
    /// For boot and script together
    #[arg(long, default_value_t = 300, value_name = "S")]
    pub(crate) timeout: u64,
    /// The guest's clock counts its instructions, 2 ns each; one CPU. Repeats on a busy host
    #[arg(long)]
    pub(crate) icount: bool,
    /// QEMU's CPU model; default: host with KVM, else max
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// Software emulation, even where KVM works
    #[arg(long)]
    pub(crate) tcg: bool,
    /// Mount this directory of the host's, writable, at /share
    #[arg(long, value_name = "DIR")]
    pub(crate) share: Option<PathBuf>,
    /// For the script's environment, which is otherwise empty; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Keep the guest's console and kernel log there
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,
    /// Version of the kernel, or how it begins, such as 6.12; default: the distribution's
    #[arg(long, value_name = "VERSION")]
    pub(crate) kernel: Option<String>,
    /// Say nothing about the boot
    #[arg(long)]
    pub(crate) quiet: bool,
    /// The script and its arguments; runs as root in the current directory
    #[arg(last = true, required = true, value_name = "SCRIPT [ARGS]")]
    pub(crate) script: Vec<String>,
}

impl Options {
    /// The defaults, for a script.
    pub(crate) fn new(script: impl IntoIterator<Item = String>) -> Options {
        Options {
            cpus: 2,
            mem: 2048,
            scratch: 4096,
            timeout: 300,
            icount: false,
            cpu: None,
            tcg: false,
            share: None,
            env: Vec::new(),
            logs: None,
            kernel: None,
            quiet: false,
            script: script.into_iter().collect(),
        }
    }
}

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
    /// The last lines that QEMU and the guest's console said.
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
    let files = kernel::boot_files(options.kernel.as_deref())?;
    let mut accel = match (options.icount, options.tcg) {
        (true, _) => Accel::Icount,
        (_, true) => Accel::Tcg,
        _ => accel::best(&files),
    };
    let dir = tempfile::Builder::new().prefix("lunette-vm.").tempdir()?;
    write_control(dir.path(), options)?;
    let end = Instant::now() + Duration::from_secs(options.timeout);
    let mut guest = Guest::start(options, &files, accel, dir.path())?;
    // A boot that hangs is tried once more, by software if it was KVM that hung.
    if !guest.wait_for_boot(options, end)? {
        guest.qemu.kill();
        accel = if accel == Accel::Kvm { Accel::Tcg } else { accel };
        eprintln!("vm: not booted in time; trying once more with {}", accel.describe());
        guest = Guest::start(options, &files, accel, dir.path())?;
        guest.wait_for_boot(options, end)?;
    }
    let ended = guest.relay(end, sink);
    let qemu_status = guest.qemu.0.try_wait()?;
    guest.qemu.kill();
    let mut outcome = outcome(dir.path(), ended.as_ref().is_ok_and(|ended| !ended));
    if let Some(logs) = &options.logs {
        std::fs::create_dir_all(logs)?;
        for name in ["console", "dmesg", "qemu.err"] {
            if dir.path().join(name).exists() {
                std::fs::copy(dir.path().join(name), logs.join(name))?;
            }
        }
    }
    ended?;
    if let Some(status) = qemu_status {
        outcome.last_words.push(format!("QEMU ended: {status}"));
    }
    Ok(outcome)
}

/// What the guest finds in its control directory.
fn write_control(dir: &Path, options: &Options) -> Result<()> {
    let (script, args) = options.script.split_first().context("no script")?;
    let script = std::fs::canonicalize(script).with_context(|| format!("no script {script}"))?;
    let mut command = String::new();
    for variable in &options.env {
        let Some((name, value)) = variable.split_once('=') else {
            bail!("--env {variable}: NAME=VALUE is wanted");
        };
        command += &format!("export {name}={}\n", run::quote(value));
    }
    let here = std::env::current_dir()?;
    command += &format!("cd {}\nexec", run::quote(&here.to_string_lossy()));
    if script.metadata()?.permissions().mode() & 0o111 == 0 {
        command += " /bin/bash";
    }
    for word in [script.to_string_lossy().into_owned()].iter().chain(args) {
        command += &format!(" {}", run::quote(word));
    }
    std::fs::write(dir.join("cmd"), command + "\n")?;
    std::fs::write(dir.join("stage2"), STAGE2)?;
    if let Some(share) = &options.share {
        std::fs::create_dir_all(share)?;
        std::fs::write(dir.join("share"), "")?;
    }
    let scratch = dir.join("scratch.img");
    File::create(&scratch)?.set_len(options.scratch << 20)?;
    let mut mkfs = run::command("mkfs.ext4");
    run::run(mkfs.args(["-q", "-F", "-m0", "-E", "nodiscard"]).arg(scratch))
}

/// A running QEMU.
struct Guest {
    qemu: Kept,
    output: mpsc::Receiver<Vec<u8>>,
    boot_seconds: PathBuf,
    what: String,
}

impl Guest {
    fn start(options: &Options, files: &kernel::Boot, accel: Accel, dir: &Path) -> Result<Guest> {
        let mut command = qemu(options, files, accel, dir)?;
        // An end of file on stdin would disconnect the output port: the pipe stays open, silent,
        // for as long as `qemu` lives.
        let mut qemu = Kept(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(File::create(dir.join("qemu.err"))?)
                .spawn()
                .context("cannot start qemu-system-x86_64")?,
        );
        let mut stdout = qemu.0.stdout.take().context("no pipe")?;
        let (sender, output) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let cpus = if accel == Accel::Icount { 1 } else { options.cpus };
        let plural = if cpus == 1 { "" } else { "s" };
        let what = format!("Linux {}, {cpus} CPU{plural}, {}", files.release, accel.describe());
        Ok(Guest { qemu, output, boot_seconds: dir.join("boot-seconds"), what })
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
            if self.boot_seconds.exists() || self.qemu.wait(Duration::from_millis(100))?.is_some() {
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

    /// Hands on the output until QEMU ends; false: it did not end in time.
    fn relay(&mut self, end: Instant, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        loop {
            run::check_interrupt()?;
            match self.output.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => sink(&bytes)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(self.qemu.wait(Duration::from_secs(10))?.is_some());
                }
            }
            if Instant::now() > end {
                return Ok(false);
            }
        }
    }
}

fn qemu(options: &Options, files: &kernel::Boot, accel: Accel, dir: &Path) -> Result<Command> {
    // A comma in a value of QEMU's options is doubled.
    let value = |path: &Path| path.to_string_lossy().replace(',', ",,");
    let dir_value = value(dir);
    let mut command = Kept::command("qemu-system-x86_64");
    let (how, default_cpu, arguments) = match accel {
        Accel::Kvm => ("kvm", "host", ""),
        Accel::Tcg => ("tcg,thread=multi", "max", "tsc=reliable"),
        Accel::Icount => ("tcg,thread=single", "max", "tsc=reliable"),
    };
    command
        .args(["-accel", how, "-M", "q35"])
        .args(["-cpu", options.cpu.as_deref().unwrap_or(default_cpu)])
        .args(["-m", &options.mem.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(&files.kernel)
        .arg("-initrd")
        .arg(&files.initramfs)
        .args(["-append", format!("{KERNEL_ARGUMENTS} {arguments}").trim_end()])
        .args(["-chardev", &format!("file,id=con,path={dir_value}/console")])
        .args(["-serial", "chardev:con", "-device", "virtio-serial-pci"])
        .args(["-chardev", "stdio,id=out,signal=off"])
        .args(["-device", "virtserialport,chardev=out,name=vm.out"])
        .arg("-drive")
        .arg(format!(
            "if=none,id=scratch,format=raw,cache=unsafe,discard=unmap,file={dir_value}/scratch.img"
        ))
        .args(["-device", "virtio-blk-pci,drive=scratch"]);
    if accel == Accel::Icount {
        // With more than one CPU this kernel stops in early boot.
        command.args(["-smp", "1", "-icount", "shift=1,sleep=off", "-rtc", "clock=vm"]);
    } else {
        command.args(["-smp", &options.cpus.to_string()]);
    }
    let mut mount = |tag: &str, path: &Path, extra: &str| {
        let security = "security_model=none,multidevs=remap";
        command.arg("-fsdev");
        command.arg(format!("local,id={tag},path={},{security}{extra}", value(path)));
        command.args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
    };
    mount("root", Path::new("/"), ",readonly=on");
    mount("ctl", dir, "");
    if let Some(share) = &options.share {
        mount("share", &std::fs::canonicalize(share)?, "");
    }
    Ok(command)
}

fn outcome(dir: &Path, timed_out: bool) -> Outcome {
    let text = |name: &str| {
        let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (console, errors) = (text("console"), text("qemu.err"));
    let mut last_words: Vec<String> = Vec::new();
    for (name, text) in [("qemu", &errors), ("console", &console)] {
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        last_words.extend(tail.iter().map(|line| format!("{name}: {line}")));
    }
    Outcome {
        status: text("rc").trim().parse().ok(),
        timed_out,
        trouble: trouble::lines(&format!("{console}\n{}", text("dmesg"))),
        last_words,
    }
}
