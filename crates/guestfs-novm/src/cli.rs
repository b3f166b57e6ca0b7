// SPDX-License-Identifier: Apache-2.0
//! The command line: as a user types it, and as libguestfs writes it to start QEMU.
//!
//! Options of QEMU have one dash, ours two.

use crate::error::{Context, Error, Result};
use crate::machine::{mdadm, settle};
use crate::mode::Mode;
use crate::probe::Probe;
use crate::qemu::{self, Machine};
use crate::report::{self, report};
use crate::sys::ENDING;
use crate::{client, daemon, instant, refusal, requirements, uml};
use clap::Parser;
use io_engine::Signals;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use tracing_subscriber::filter::LevelFilter;

/// Runs guestfsd for unmodified libguestfs clients, with no virtual machine.
///
/// libguestfs starts this program in place of QEMU. It serves raw and qcow2 images, files and
/// block devices of this host, and disks of NBD servers; qcow, vmdk, vhdx, vpc and vdi images can be
/// read. A client is run with it by `guestfs-novm -- CLIENT...`, or in a shell after
/// `eval "$(guestfs-novm --print-env)"`.
///
/// Where the format of an image is not given, it is looked for, as QEMU does; and what a guest's
/// program writes never makes a raw image look like one of another format. Give the format where you
/// know it (--format=raw): a raw image is faster then, and the guest may write what it likes.
///
/// To QEMU a file that xz, zstd or gzip has compressed is a raw image, and a client would write
/// to what was downloaded. Here it is refused for writing unless its format is given as raw. With
/// --ro the client sees the image that is in it, if its name ends in .xz, .zst or .gz (of the format
/// libguestfs tells nothing then).
#[derive(Debug, Parser)]
#[command(name = "guestfs-novm", version, arg_required_else_help = true, after_long_help = TRUST)]
pub struct Options {
    /// Use this host's kernel, in namespaces; the default for root, and only for root
    #[arg(long, conflicts_with = "uml")]
    pub instant: bool,

    /// Boot User-Mode Linux, a kernel that is a process of this user; the default for all others
    #[arg(long)]
    pub uml: bool,

    /// The daemon [default: guestfsd beside this program, or installed]
    #[arg(long, value_name = "PATH")]
    pub guestfsd: Option<PathBuf>,

    /// Print what a client needs in its environment, for a shell to eval
    #[arg(long, conflicts_with_all = ["check", "client"])]
    pub print_env: bool,

    /// Say what is missing on this host, and what for; status 1 if there can be no session
    #[arg(long)]
    pub check: bool,

    /// A libguestfs client to be run in that environment, with its arguments
    #[arg(last = true, value_name = "CLIENT")]
    pub client: Vec<OsString>,
}

/// What is to be known before a mode is chosen.
pub const TRUST: &str = "\
Which mode to trust:
  --instant  The host's own kernel parses the guest's filesystems and
             partitions: a guest that is hostile can attack it. So can it
             attack the daemon and the host's programs that read its disks
             (mount, fsck, parted): they run as root of the host, kept in by
             namespaces alone, and one that is taken over has the host.
             Programs of the guest (the calls command, sh and others) run as
             root without the rights to mount, to load modules, to trace or to
             use the host's devices. Of devices they see the session's own
             disks; all that they can write to is mounted nodev; /proc, /sys
             and /dev are read-only to them. With the network switched on they
             have the host's network, services on localhost and abstract
             sockets included. The daemon sees the host's programs and /etc,
             read-only, and no other file of it; nodes in /dev are those of
             disks and loop devices that this session attached, for as long as
             they are attached. Only root can use it: to other users the kernel
             gives neither loop devices nor mounts of disk filesystems, user
             namespaces or not. What the host's kernel lacks is missing: often
             LVM, LUKS, RAID, or FAT.
  --uml      A kernel that is a process of this user, without any rights,
             parses the guest's filesystems. A guest that takes it over has
             what this user has on the host: reading its files, writing its
             own. Slower: a second or so to launch, and system calls cost more.
  a VM       What libguestfs does without this program: the safest, for guests
             that are hostile.

In --instant mode a btrfs cannot be mounted while another with the same UUID
is, in any session or on the host, before Linux 6.7; of other filesystems,
clones can be used at the same time. Where the host's kernel has dm and md,
arrays and volumes of the guest are set up at the start and taken down at the
end; a volume group stays inactive, and the client is told, while the kernel has
volumes of another one with the same name or UUID: of the host, or of another
session. On a host with LVM, keep it from activating guests' volume groups: in
lvm.conf, global_filter = [ \"r|^/dev/loop|\" ].";

/// The program.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    match std::path::Path::new(&name).file_name().and_then(|n| n.to_str()) {
        Some("udevadm") => return finish(settle::wait().on(settle::SOCKET).map(|()| 0)),
        Some("mdadm") => return finish(mdadm::run(&args)),
        _ => {}
    }
    if args.first().is_some_and(|a| a == uml::guest::OPTION) {
        return finish(Ok(uml::guest::main(&args[1..])));
    }
    let first = args.first().map(|a| a.to_string_lossy()).unwrap_or_default();
    if first.starts_with('-') && !first.starts_with("--") && first.len() > 2 {
        return finish(hypervisor(&args));
    }
    match Options::try_parse() {
        Ok(options) => finish(user(options)),
        Err(message) => {
            // Help and version, too, come this way.
            message.print().ok();
            if message.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

fn finish(result: Result<i32>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(e) => {
            report(&e);
            ExitCode::FAILURE
        }
    }
}

/// What libguestfs starts.
fn hypervisor(args: &[OsString]) -> Result<i32> {
    if let Some(probe) = Probe::find(args) {
        probe.answer(io::stdin().lock(), io::stdout().lock()).on("standard output")?;
        return Ok(0);
    }
    let machine = Machine::parse(args);
    let verbose = machine.as_ref().is_ok_and(|m| m.verbose);
    if !verbose {
        report::to_parent_too();
    }
    let level = if verbose { LevelFilter::INFO } else { LevelFilter::WARN };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .without_time()
        // It would panic where standard error is closed, as it is once a client has died.
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .finish();
    tracing::subscriber::set_global_default(subscriber).ok();
    let path = qemu::channel(args)?;
    let channel = UnixStream::connect(&path).on(path.display())?;
    if machine.as_ref().is_ok_and(|m| m.rescue) {
        let reason = Error::Usage(
            "virt-rescue needs a VM, and this program starts none: use guestfish, whose commands sh and \
             command run programs of the guest, or run virt-rescue without guestfs-novm"
                .into(),
        );
        let signals = Signals::block(ENDING).on("signals")?;
        refusal::refuse_on_console(&channel, &signals, &reason).on("the channel")?;
        return Ok(0);
    }
    match machine.and_then(|machine| start(&machine, &channel)) {
        Err(reason) => {
            report::to_log(&reason);
            // It is shared with whatever had it before.
            channel.set_nonblocking(false).on("the channel")?;
            let signals = Signals::block(ENDING).on("signals")?;
            refusal::refuse(&channel, &signals, &reason).on("the channel")?;
            Ok(0)
        }
        ended => ended,
    }
}

/// Runs a session to its end. Errors are those before the daemon has begun to serve.
fn start(machine: &Machine, channel: &UnixStream) -> Result<i32> {
    let daemon = daemon::find(None)?;
    let channel = channel.try_clone().on("the channel")?;
    match Mode::from_environment()? {
        Mode::Instant => instant::run(machine, &daemon, channel),
        Mode::Uml => uml::run(machine, &daemon, channel),
    }
}

/// What a user starts.
fn user(options: Options) -> Result<i32> {
    let mode = match (options.instant, options.uml) {
        (true, _) => Some(Mode::Instant),
        (_, true) => Some(Mode::Uml),
        _ => None,
    };
    if options.check {
        if options.guestfsd.is_some() {
            daemon::find(options.guestfsd.as_deref())?;
        }
        let mode = mode.map_or_else(Mode::from_environment, Ok)?;
        let possible = requirements::check(mode, &mut io::stdout()).on("standard output")?;
        return Ok(i32::from(!possible));
    }
    daemon::find(options.guestfsd.as_deref())?;
    let variables = client::environment(mode, options.guestfsd.as_deref())?;
    if options.print_env {
        io::stdout().write_all(&client::shell(&variables)).on("standard output")?;
    }
    let Some((program, arguments)) = options.client.split_first() else { return Ok(0) };
    let mut command = Command::new(program);
    // An attach method or a backend's setting of another session would not fit.
    command.args(arguments).envs(variables).env_remove("LIBGUESTFS_BACKEND_SETTINGS");
    Err(command.exec()).on(program.display())
}
