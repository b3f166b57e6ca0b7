// SPDX-License-Identifier: Apache-2.0
//! The host's own kernel: the daemon in namespaces, with the client's disks as loop devices.
//!
//! This process attaches the disks and waits; its child is process 1 of the namespaces and starts the
//! daemon. The disks are attached while the child makes the root, and told to it when they are
//! there. However it ends, everything goes: the child ends with this process and all others with the
//! child, mounts go with their namespace, loop devices with their last user, what is exported through
//! FUSE with its last user. What is made of the disks (LUKS, LVM, md ...) is the kernel's and would stay: the
//! daemon takes it down, or else the child, or else this process.

use crate::error::{Context, Error, Result};
use crate::export::Export;
use crate::image::{Image, Kind};
use crate::launched;
use crate::loopdev::{Control, How, Loop};
use crate::machine::Kernel;
use crate::machine::init::{self, Daemon};
use crate::machine::root::Root;
use crate::machine::uevents::Uevents;
use crate::machine::view::Disk;
use crate::qemu::{Drive, Machine};
use crate::report::{Last, report, to_log};
use crate::sys::{self, ENDING, Fork, Parent};
use io_engine::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::fstatvfs;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use teardown::watched;

/// How long the daemon may go on with what it does when the client is gone, and the child to take down what is left.
const GRACE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(1);
/// Most bytes of the message that tells the child of its disks.
const MAX_MESSAGE: u64 = 1 << 20;

/// Runs a session to its end; yields the exit status.
pub(crate) fn run(machine: &Machine, daemon: &Path, channel: UnixStream) -> Result<i32> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Missing(
            "instant mode needs root: to others the kernel gives neither loop devices nor mounts of \
             ext4, xfs and the like, user namespaces or not; --uml needs no rights"
                .into(),
        ));
    }
    let signals = Signals::block(&[ENDING, &[libc::SIGCHLD]].concat()).on("signals")?;
    let images = Image::find_all(&machine.drives)?;
    // Before the namespaces: announcements are not for every one of them.
    let uevents = Uevents::listen()?;
    let watched: OwnedFd = channel.try_clone().on("the channel")?.into();
    let (told, tell) = io::pipe().on("pipe")?;
    let (said, say) = io::pipe().on("pipe")?;

    let daemon_options = Daemon {
        channel: channel.into(),
        launched: Some(say.try_clone().on("pipe")?),
        verbose: machine.verbose,
        network: machine.network,
        kernel: Kernel::Hosts,
    };
    let parent = Parent::this().on("this process")?;
    let child = match fork_into_pid_namespace()? {
        Fork::Child => {
            drop((tell, watched, said));
            let status = child(&parent, daemon, daemon_options, told, &uevents);
            let status = status.unwrap_or_else(|e| {
                to_log(&e);
                launched::say(&say, &e);
                1
            });
            #[allow(clippy::exit, reason = "nothing of the parent's is to be run here")]
            std::process::exit(status);
        }
        Fork::Parent(child) => child,
    };
    drop((told, daemon_options, uevents, say));
    let mut session = Session::default();
    session.child = Some(child);
    session.attach(machine, &images, tell)?;
    // From here on the daemon has the channel.
    let ended = session.wait(&signals, watched, &said);
    if let Ok(Ended::Itself(status)) = ended
        && let Some(e) =
            launched::failure(&said, daemon, || launched::daemon_never_served(daemon, status))
    {
        return session.end().and(Err(e));
    }
    if let Ok(Ended::Itself(status)) = ended
        && let Some(e) = launched::daemon_broke_off(daemon, status)
    {
        report(&e);
    }
    let ended = ended.and_then(|ended| session.end().map(|()| ended.status()));
    Ok(ended.unwrap_or_else(|e| {
        report(&e);
        1
    }))
}

/// Forks a child that is process 1 of a new namespace. Later children are not in it.
fn fork_into_pid_namespace() -> Result<Fork> {
    let own = File::open("/proc/self/ns/pid").on("/proc/self/ns/pid")?;
    sys::unshare(UnshareFlags::NEWPID).on("a PID namespace")?;
    let fork = sys::fork().on("fork")?;
    if let Fork::Parent(_) = fork {
        let kind = Some(LinkNameSpaceType::ProcessID);
        move_into_link_name_space(own.as_fd(), kind).on("the PID namespace")?;
    }
    Ok(fork)
}

/// Process 1.
fn child(
    parent: &Parent,
    daemon: &Path,
    options: Daemon,
    told: impl Read,
    uevents: &Uevents,
) -> Result<i32> {
    parent.take_along().on("process 1")?;
    rustix::process::setsid().on("setsid")?;
    let mut namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    namespaces.set(UnshareFlags::NEWNET, !options.network);
    sys::unshare(namespaces).on("namespaces")?;
    sys::set_host_name(c"(none)").on("the host name")?;
    if !options.network {
        sys::loopback_up().on("the loopback interface")?;
    }
    let root = Root::make(daemon, Kernel::Hosts)?;
    let disks = move || {
        let mut message = String::new();
        told.take(MAX_MESSAGE).read_to_string(&mut message).on("pipe")?;
        // Not whole, if our parent has failed or is gone: it has said why.
        let disks = message.strip_suffix("\n\n");
        Ok(disks.map(|d| d.lines().filter(|l| !l.is_empty()).map(disk_from_line).collect()))
    };
    init::run(root, disks, options, uevents, Some(parent))
}

fn disk_to_line(name: &str, drive: &Drive) -> String {
    let serial = drive.serial.as_deref().unwrap_or_default();
    format!("{name} {}\n", serial.replace(['\n', '\0'], "?"))
}

fn disk_from_line(line: &str) -> Disk {
    let (kernel, serial) = line.split_once(' ').unwrap_or((line, ""));
    Disk { kernel: kernel.to_owned(), serial: (!serial.is_empty()).then(|| serial.to_owned()) }
}

/// How a session has ended.
enum Ended {
    /// With the daemon, which had this exit status, while the client was there.
    Itself(i32),
    /// It was to end.
    Told(i32),
}

impl Ended {
    fn status(self) -> i32 {
        match self {
            Self::Itself(status) | Self::Told(status) => status,
        }
    }
}

/// What there is to be taken down.
#[derive(Default)]
struct Session {
    child: Option<Pid>,
    /// The mount namespace of the daemon, which files that are swapped to are in: it is there until this is closed, even
    /// if process 1 is killed.
    namespace: Option<File>,
    loops: Vec<Loop>,
    exports: Vec<Export>,
    /// Files that are written through loop devices on them, which do not tell why a write failed.
    files: Vec<(PathBuf, File)>,
}

impl Session {
    /// Makes the images loop devices and tells the child.
    fn attach(&mut self, machine: &Machine, images: &[Image], mut tell: impl Write) -> Result<()> {
        let control = Control::open()?;
        let mut message = String::new();
        for (drive, image) in machine.drives.iter().zip(images) {
            let (read_only, sector) = (image.read_only, drive.sector.unwrap_or(0));
            let attached = if image.kind == Kind::Raw {
                let file = image.open_locked()?;
                let how = How { read_only, sector, direct: false };
                let attached = control.attach(&file, &image.path, how)?;
                if !read_only {
                    self.files.push((image.path.clone(), file));
                }
                attached
            } else {
                let export = Export::start(image)?;
                let how = How { read_only, sector, direct: true };
                let attached = control.attach(export.file(), &image.path, how)?;
                self.exports.push(export);
                attached
            };
            message += &disk_to_line(&attached.name(), drive);
            self.loops.push(attached);
        }
        message += "\n";
        if message.len() == 1 {
            message += "\n";
        }
        tell.write_all(message.as_bytes()).on("pipe")
    }

    /// Waits until the daemon ends, or is to end.
    /// What is `said` is left to be read.
    fn wait(&mut self, signals: &Signals, channel: OwnedFd, said: &PipeReader) -> Result<Ended> {
        let mut channel = Some(channel);
        let mut unheard = Some(said);
        let mut deadline: Option<Instant> = None;
        loop {
            let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
            // The client's hanging up, which a busy daemon does not see.
            fds.extend(channel.as_ref().map(|c| PollFd::new(c, PollFlags::empty())));
            let is_channel = fds.len() > 1;
            // The daemon's serving, before which nothing is swapped to.
            fds.extend(unheard.map(|said| PollFd::new(said, PollFlags::IN)));
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|d| Timespec::try_from(d).ok());
            let ready = match poll(&mut fds, timeout.as_ref()) {
                Ok(n) => n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e).on("poll"),
            };
            let is_ready = |n: usize| fds.get(n).is_some_and(|fd| !fd.revents().is_empty());
            let (hung_up, heard) =
                (is_channel && is_ready(1), is_ready(1 + usize::from(is_channel)));
            if heard && let Some(child) = self.child {
                unheard = None;
                self.namespace = File::open(format!("/proc/{child}/ns/mnt")).ok();
            }
            if hung_up {
                channel = None;
                deadline = Some(Instant::now() + GRACE);
            }
            if ready == 0 && deadline.is_some() {
                tracing::warn!("the client is gone, and the daemon has not ended: it is killed");
                self.stop();
                return Ok(Ended::Told(1));
            }
            while let Some(signal) = signals.next() {
                if ENDING.contains(&signal) {
                    // The client has had all synced before it sends this.
                    self.stop();
                    return Ok(Ended::Told(0));
                }
            }
            let Some(child) = self.child else { return Ok(Ended::Told(0)) };
            if let Ok(Some((_, status))) = waitpid(Some(child), WaitOptions::NOHANG) {
                self.child = None;
                let status = init::exit_status(status);
                return Ok(match channel {
                    Some(_) => Ended::Itself(status),
                    None => Ended::Told(status),
                });
            }
        }
    }

    /// Has process 1 kill the daemon and take down what it leaves; kills it if that takes long.
    fn stop(&mut self) {
        let Some(child) = self.child else { return };
        kill_process(child, Signal::TERM).ok();
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            match waitpid(Some(child), WaitOptions::NOHANG) {
                Ok(None) => std::thread::sleep(TICK),
                _ => {
                    self.child = None;
                    return;
                }
            }
        }
        self.kill();
    }

    /// Kills process 1, and with it all that is in its namespace.
    fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            kill_process(child, Signal::KILL).ok();
            let what = "waiting for the session's processes, which were killed";
            watched(what, || waitpid(Some(child), WaitOptions::empty())).ok();
        }
    }
}

impl Session {
    /// Takes everything down. The error that is returned is the last one; others are reported.
    fn end(&mut self) -> Result<()> {
        self.kill();
        let mut last = Last::new();
        for (path, file) in self.files.drain(..) {
            if lacks_space(&file) {
                let why = "the host's filesystem is full: writes with an input/output error had no \
                           space, if it was full then";
                report(&Error::image(path, why));
            }
        }
        let block = Path::new("/sys/block");
        let disks: Vec<PathBuf> = self.loops.iter().map(|l| block.join(l.name())).collect();
        // Process 1 did that, unless it was killed.
        teardown::switch_off(&disks, None);
        if let Some(namespace) = self.namespace.take()
            && teardown::is_swapping()
        {
            last.add(switch_off_within(&namespace, &disks));
        }
        for device in teardown::take_down(&disks, |_| true) {
            report(&Error::Active(device.to_string()));
        }
        let left = Loop::detach(std::mem::take(&mut self.loops));
        for device in &left {
            writeln!(io::stderr(), "guestfs-novm: {device}").ok();
        }
        for export in self.exports.drain(..) {
            // A server whose device is still used goes on until it is not.
            if left.is_empty() {
                last.add(export.close());
            }
        }
        last.result()
    }
}

/// Has the kernel swap no more to files that are mounted in a namespace whose processes have ended.
fn switch_off_within(namespace: &File, disks: &[PathBuf]) -> Result<()> {
    match sys::fork().on("fork")? {
        Fork::Child => {
            let kind = Some(LinkNameSpaceType::Mount);
            let entered = move_into_link_name_space(namespace.as_fd(), kind);
            if entered.is_ok() {
                teardown::switch_off(disks, Some(Path::new(init::SYSROOT)));
            }
            #[allow(clippy::exit, reason = "nothing of the parent's is to be run here")]
            std::process::exit(i32::from(entered.is_err()));
        }
        Fork::Parent(child) => {
            let what = "swapping off what a session that was killed swapped to";
            let ended = watched(what, || waitpid(Some(child), WaitOptions::empty())).on(what)?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                _ => Err(Error::Active(format!("{what}: its mount namespace cannot be entered"))),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            report(&e);
        }
    }
}

/// Whether a file has holes, for which its filesystem has no space.
fn lacks_space(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    let has_holes = metadata.is_file() && metadata.blocks().saturating_mul(512) < metadata.len();
    has_holes && fstatvfs(file).is_ok_and(|filesystem| filesystem.f_bavail == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_told_in_a_line() {
        let told = |serial: &str| {
            let drive = Drive { serial: Some(serial.into()), ..Drive::default() };
            let line = disk_to_line("loop3", &drive);
            assert_eq!(line.matches('\n').count(), 1);
            disk_from_line(line.trim_end_matches('\n'))
        };
        assert_eq!(told("a b").serial.as_deref(), Some("a b"));
        assert_eq!(told("a\n/b").serial.as_deref(), Some("a?/b"));
        assert_eq!(told("").serial, None);
    }
}
