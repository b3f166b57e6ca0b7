// SPDX-License-Identifier: Apache-2.0
//! Process 1: enters the root, starts the daemon, reaps what is orphaned, and keeps the view of devices
//! up to date until the daemon ends, or is to end. What the daemon has left then, for whatever reason, is taken down
//! here: swap space, mounts, and what was made of the disks.

use super::assemble::{assemble, missing_mapper};
use super::loops::{self, Loops};
use super::root::{DAEMON, Root};
use super::settle::{self, Settle};
use super::uevents::Uevents;
use super::view::{Disk, View};
use super::{Kernel, confine};
use crate::error::{Context, Error, Result};
use crate::loopdev::Control;
use crate::report::report;
use crate::sys::{self, Parent};
use io_engine::{Signals, unblock_all};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Beginnings of names of variables that the daemon gets from its starter.
const PASSED: &[&str] = &["GUESTFSD_", "RUST_"];
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/"),
    ("TERM", "linux"),
    ("LVM_SYSTEM_DIR", "/tmp/lvm"),
    // Nobody but libdevmapper makes nodes.
    ("DM_DISABLE_UDEV", "1"),
    (settle::VARIABLE, settle::SOCKET),
    loops::VARIABLE,
    // A device node in a guest's filesystem would be one of the host's devices.
    ("GUESTFSD_NODEV", "1"),
];

/// The variable that has the descriptor to which the daemon writes a zero byte once it serves.
const LAUNCHED: &str = "GUESTFSD_LAUNCHED";
/// Where the daemon mounts what clients ask for.
pub(crate) const SYSROOT: &str = "/sysroot";
/// How long processes may take to end that were killed.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);

/// What the daemon is started with.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The client, or what leads to it.
    pub channel: OwnedFd,
    /// Where it says that it serves the client.
    pub launched: Option<PipeWriter>,
    /// It is to say what it does.
    pub verbose: bool,
    /// Programs may use the network.
    pub network: bool,
    /// Whose it is.
    pub kernel: Kernel,
}

/// Runs a daemon to its end, with these disks; yields its exit status. Without them, where whoever
/// attaches them has given up, there is nothing to run. The daemon is killed on SIGTERM, and when the `parent` ends.
pub(crate) fn run(
    root: Root,
    disks: impl FnOnce() -> Result<Option<Vec<Disk>>>,
    daemon: Daemon,
    uevents: &Uevents,
    parent: Option<&Parent>,
) -> Result<i32> {
    let control = Control::open();
    root.enter()?;
    let settle = Settle::listen()?;
    let mut loops = Loops::listen(control)?;
    let Some(disks) = disks()? else { return Ok(1) };
    let mut view = View::new(disks, daemon.kernel)?;
    if daemon.kernel == Kernel::Hosts {
        confine::make()?;
        drop_capabilities()?;
    }
    unblock_all().on("signals")?;
    if assemble(&view.devices(), ENVIRONMENT, daemon.kernel) {
        view.sync()?;
    }
    if daemon.kernel == Kernel::Hosts
        && let Some(e) = missing_mapper(&view.devices())
    {
        report(&e);
    }
    let pid = start(daemon)?;
    let signals = Signals::block(&[libc::SIGCHLD, libc::SIGTERM]).on("signals")?;
    if let Some(parent) = parent {
        parent.let_go().on("process 1")?;
    }
    let ended = loop {
        // Before waiting: what has ended until now was not told.
        if let Some(status) = reap(pid) {
            break Ok(status);
        }
        let mut fds = vec![
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(uevents, PollFlags::IN),
            PollFd::new(&settle, PollFlags::IN),
        ];
        fds.extend(parent.map(Parent::poll_fd));
        fds.extend(loops.poll_fds());
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => break Err(e).on("poll"),
        }
        let told = std::iter::from_fn(|| signals.next()).any(|signal| signal == libc::SIGTERM);
        if told || parent.is_some_and(|p| p.has_ended().unwrap_or(true)) {
            break Ok(exit_status_of_signal(libc::SIGTERM));
        }
        let asking = settle.asking();
        let changed = uevents.any_block() || !asking.is_empty();
        if changed && let Err(e) = view.sync() {
            tracing::error!("devices: {e}");
        }
        if let Err(e) = loops.serve() {
            tracing::error!("loop devices: {e}");
        }
    };
    // Files of the guest that are attached hold its filesystems.
    drop(loops);
    clean_up(&view.disks());
    ended
}

/// Takes down what is left of the session, which no process of it uses then.
fn clean_up(disks: &[PathBuf]) {
    // Where there are none but this one, that is an error.
    sys::kill_all_others().ok();
    let deadline = Instant::now() + PATIENCE;
    while let Ok(ended) = wait(WaitOptions::NOHANG)
        && Instant::now() < deadline
    {
        if ended.is_none() {
            std::thread::sleep(TICK);
        }
    }
    let sysroot = Path::new(SYSROOT);
    teardown::switch_off(disks, Some(sysroot));
    teardown::detach_below(sysroot);
    for device in teardown::take_down(disks, |_| true) {
        tracing::error!("{device}");
    }
}

/// Permanently drops what neither the daemon nor its programs need and what affects the whole host: booting, loading modules, setting the clock, access to its ports, programs in its kernel.
fn drop_capabilities() -> Result<()> {
    let capabilities = [
        CapabilitySet::SYS_BOOT,
        CapabilitySet::SYS_MODULE,
        CapabilitySet::SYS_TIME,
        CapabilitySet::SYS_RAWIO,
        CapabilitySet::WAKE_ALARM,
        CapabilitySet::BLOCK_SUSPEND,
        CapabilitySet::PERFMON,
        CapabilitySet::BPF,
    ];
    for capability in capabilities {
        match remove_capability_from_bounding_set(capability) {
            // An older kernel does not have it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e).on("capabilities"),
        }
    }
    Ok(())
}

/// Starts the daemon. Its channel is closed here, so that its end is seen at the other one.
fn start(daemon: Daemon) -> Result<Pid> {
    let Daemon { channel, launched, verbose, network, kernel } = daemon;
    rustix::io::fcntl_setfd(&channel, rustix::io::FdFlags::empty()).on("the channel")?;
    let mut command = Command::new(DAEMON);
    command.arg("--channel").arg(format!("fd:{}", channel.as_raw_fd()));
    if verbose {
        command.arg("--verbose");
    }
    if network {
        command.arg("--network");
    }
    command.env_clear();
    command.envs(std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|n| PASSED.iter().any(|p| n.starts_with(p)))
    }));
    command.envs(ENVIRONMENT.iter().copied());
    if kernel == Kernel::Hosts {
        command.envs([confine::VARIABLE]);
    }
    if let Some(pipe) = &launched {
        rustix::io::fcntl_setfd(pipe, rustix::io::FdFlags::empty()).on("a pipe")?;
        command.env(LAUNCHED, pipe.as_raw_fd().to_string());
    }
    let child = command.spawn().map_err(|e| {
        let variable = crate::daemon::VARIABLE;
        let hint = format!("--guestfsd or {variable} says which one is used");
        Error::Missing(format!("the daemon cannot be started: {e}; {hint}"))
    })?;
    // It is process 1 that waits, for all processes alike.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| std::io::Error::other("no process ID")).on(DAEMON)
}

/// Reaps all that has ended; the exit status of this process, if it has.
fn reap(daemon: Pid) -> Option<i32> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == daemon => return Some(exit_status(status)),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// As a shell says it: 128 and the signal's number, where a signal ended it.
pub(crate) fn exit_status(status: WaitStatus) -> i32 {
    let signal = || status.terminating_signal().map(exit_status_of_signal);
    status.exit_status().or_else(signal).unwrap_or(1)
}

fn exit_status_of_signal(signal: i32) -> i32 {
    128 + signal
}
