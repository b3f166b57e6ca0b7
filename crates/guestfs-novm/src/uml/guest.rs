// SPDX-License-Identifier: Apache-2.0
//! Process 1 of User-Mode Linux: the same root and devices as in namespaces, then the daemon.

use super::modules;
use crate::error::{Context, Error, Result};
use crate::launched;
use crate::machine::Kernel;
use crate::machine::init::{self, Daemon};
use crate::machine::root::Root;
use crate::machine::uevents::Uevents;
use crate::machine::view::Disk;
use crate::report::report;
use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The option that says that this is process 1 of User-Mode Linux.
pub const OPTION: &str = "--uml-guest";
/// Modules that are needed for disks and channel.
const NEEDED: &[&str] = &["virtio_blk", "virtio_console"];
/// Modules whose devices are in /dev.
const WANTED: &[&str] = &["loop", "fuse", "dm-mod"];
/// What leads to the host's [`launched`].
const HOST: &str = "/dev/tty1";
/// The channel.
const PORTS: &str = "/sys/class/virtio-ports";
const PATIENCE: Duration = Duration::from_secs(10);

/// What process 1 does; its end is the end of the machine.
pub fn main(args: &[OsString]) -> i32 {
    let mut host = None;
    let ended = run(args, &mut host);
    if let Err(e) = &ended {
        report(e);
    }
    if let Some(host) = host {
        match ended {
            Ok(status) => launched::say_ended(host, status),
            Err(e) => launched::say(host, e),
        }
    }
    rustix::fs::sync();
    // A machine without process 1 panics, which ends it, too.
    reboot(RebootCommand::PowerOff).ok();
    1
}

/// Runs the daemon to its end; yields its exit status. `host` becomes what leads to the host, once that is there.
fn run(args: &[OsString], host: &mut Option<fs::File>) -> Result<i32> {
    let [daemon, modules, verbosity, ..] = args else {
        return Err(Error::Usage(format!("{OPTION} is for process 1 of User-Mode Linux")));
    };
    let (daemon, modules) = (PathBuf::from(daemon), PathBuf::from(modules));
    let none = MountFlags::empty();
    mount("proc", "/proc", "proc", none, None).on("/proc")?;
    mount("sysfs", "/sys", "sysfs", none, None).on("/sys")?;
    match mount("devtmpfs", "/dev", "devtmpfs", none, None) {
        // The kernel has done so itself.
        Ok(()) | Err(rustix::io::Errno::BUSY) => {}
        Err(e) => return Err(e).on("/dev"),
    }
    // The daemon's /dev does not have it.
    *host = Some(fs::File::options().write(true).open(HOST).on(HOST)?);
    let version = rustix::system::uname().release().to_string_lossy().into_owned();
    let own_modules = modules.join(&version);
    for name in NEEDED {
        modules::load(&own_modules, name)?;
    }
    for name in WANTED {
        if let Err(e) = modules::load(&own_modules, name) {
            tracing::warn!("{e}");
        }
    }
    let channel = port()?;
    let uevents = Uevents::listen()?;
    sys::loopback_up().on("the loopback interface")?;
    let root = Root::make(&daemon, Kernel::Own)?;
    root.show_at(&modules, "usr/lib/modules")?;
    let verbose = verbosity == "verbose";
    let daemon = Daemon { channel, launched: None, verbose, network: false, kernel: Kernel::Own };
    init::run(root, disks, daemon, &uevents, None)
}

/// Opens the channel's port, once it is there.
fn port() -> Result<rustix::fd::OwnedFd> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let named = fs::read_dir(PORTS).into_iter().flatten().flatten().find(|entry| {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            name.trim() == "org.libguestfs.channel.0"
        });
        if let Some(entry) = named {
            let path = Path::new("/dev").join(entry.file_name());
            let opened = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            if opened.is_ok() || Instant::now() > deadline {
                return opened.on(path.display());
            }
        }
        if Instant::now() > deadline {
            return Err(Error::Missing(format!("{PORTS}: the channel has not appeared")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The client's disks, in the order of their virtio devices.
fn disks() -> Result<Option<Vec<Disk>>> {
    let dir = "/sys/class/block";
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).on(dir)?.flatten() {
        let kernel = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if !kernel.starts_with("vd") || path.join("partition").exists() {
            continue;
        }
        let device = fs::canonicalize(path.join("device")).on(path.display())?;
        let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number: u32 = name.trim_start_matches("virtio").parse().unwrap_or(u32::MAX);
        let serial = fs::read_to_string(path.join("serial")).unwrap_or_default();
        let serial = Some(serial.trim_end_matches(['\n', '\0']).to_owned());
        found.push((number, Disk { kernel, serial: serial.filter(|s| !s.is_empty()) }));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(Some(found.into_iter().map(|(_, disk)| disk).collect()))
}
