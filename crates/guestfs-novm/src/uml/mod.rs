// SPDX-License-Identifier: Apache-2.0
//! User-Mode Linux: a kernel of the guests' own, as a process of this user. Neither root nor KVM.
//!
//! Its root is the host's, through hostfs and read-only, on which [`guest`] makes the same root and the
//! same /dev as in namespaces; this program is its process 1. Disks are virtio disks that threads
//! here are, by vhost-user ([`crate::vhost`]); the channel is a virtio-serial port. All its processes
//! are in a PID namespace and die with it; its sockets are in a tmpfs that nobody else sees.

pub mod guest;
pub mod memory;
mod modules;

use crate::error::{Context, Error, Result};
use crate::image::Image;
use crate::last_words::{self, LastWords};
use crate::launched;
use crate::nbd::Address;
use crate::qemu::Machine;
use crate::report::{Last, report, to_log};
use crate::sys::{self, ENDING, Fork, Parent};
use crate::vhost;
use crate::vhost::block::Block;
use crate::vhost::console::Console;
use io_engine::{Signals, unblock_all};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::MemfdFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::UnshareFlags;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// The kernel, if the variable does not say another.
const KERNEL: &str = "linux.uml";
/// The variable that says which kernel, and that for its modules.
pub const KERNEL_VARIABLE: &str = "GUESTFS_NOVM_UML";
/// The variable for the directory of its modules, which has one of each version.
pub const MODULES_VARIABLE: &str = "GUESTFS_NOVM_UML_MODULES";
/// Where Debian has them.
const MODULES: &str = "/usr/lib/uml/modules";
/// Virtio device numbers.
const BLOCK: u32 = 2;
const CONSOLE: u32 = 3;
/// Longest command line of the kernel.
const MAX_COMMAND_LINE: usize = 2000;
/// Where the sockets may be: directories that nothing here is in.
const PLACES: &[&str] = &["/media", "/srv", "/mnt"];

/// The kernel of User-Mode Linux.
pub fn kernel() -> Result<PathBuf> {
    let missing = |what: String| {
        Error::Missing(format!("{what}; install User-Mode Linux (Debian: user-mode-linux)"))
    };
    if let Some(path) = std::env::var_os(KERNEL_VARIABLE).map(PathBuf::from) {
        return match path.is_file() {
            true => Ok(path),
            false => Err(missing(format!("{KERNEL_VARIABLE}={}: no file", path.display()))),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let found = std::env::split_paths(&path).map(|dir| dir.join(KERNEL)).find(|p| p.is_file());
    found.ok_or_else(|| missing(format!("{KERNEL} is not in PATH")))
}

/// The directory of its modules.
pub fn modules_dir() -> PathBuf {
    std::env::var_os(MODULES_VARIABLE).map_or_else(|| MODULES.into(), PathBuf::from)
}

/// Runs a session to its end; yields the exit status.
pub fn run(machine: &Machine, daemon: &Path, channel: UnixStream) -> Result<i32> {
    let kernel = kernel()?;
    let images = Image::find_all(&machine.drives)?;
    let signals = Signals::block(&[ENDING, &[libc::SIGCHLD]].concat()).on("signals")?;
    let own = std::env::current_exe().on("this program")?;
    let daemon = std::fs::canonicalize(daemon).on(daemon.display())?;
    // Descriptors, before anything is mounted over their paths.
    let modules = modules_dir();
    let mut used: Vec<&Path> = vec![&own, &daemon, &modules];
    for image in &images {
        used.push(match image.server.as_ref().map(|server| &server.address) {
            Some(Address::Unix(socket)) => socket,
            Some(Address::Tcp(..)) => continue,
            None => &image.path,
        });
    }
    let work = isolate(&used)?;
    let memory = memory::place(memory(machine))?;

    let (said, say) = io::pipe().on("pipe")?;
    let (heard, spoken) = io::pipe().on("pipe")?;
    let mut devices = Vec::new();
    let mut arguments = kernel_arguments(machine, &work.0, &own, &say);
    for n in 0..=images.len() {
        let path = work.0.join(n.to_string());
        let id = if n == 0 { CONSOLE } else { BLOCK };
        devices.push(UnixListener::bind(&path).on(path.display())?);
        arguments.push(format!("virtio_uml.device={}:{id}", path.display()));
    }
    arguments.extend(["--".into(), guest::OPTION.into()]);
    arguments.extend([daemon.display().to_string(), modules_dir().display().to_string()]);
    arguments.push(if machine.verbose { "verbose" } else { "quiet" }.into());
    if arguments.iter().map(|a| a.len() + 1).sum::<usize>() > MAX_COMMAND_LINE {
        return Err(Error::Usage(format!(
            "{} disks are too many for the command line of User-Mode Linux",
            images.len()
        )));
    }
    if arguments.iter().any(|a| a.contains(char::is_whitespace) && !a.starts_with("--")) {
        return Err(Error::Usage(
            "paths of guestfsd and of the modules for User-Mode Linux must have no spaces".into(),
        ));
    }
    let parent = Parent::this().on("this process")?;
    let child = match sys::fork().on("fork")? {
        Fork::Child => {
            drop((said, heard));
            let started = last_words::speak(&spoken)
                .and_then(|()| supervise(&parent, &kernel, &arguments, &memory, &say));
            let status = started.unwrap_or_else(|e| {
                to_log(&e);
                launched::say(&say, &e);
                1
            });
            #[allow(clippy::exit, reason = "nothing of the parent's is to be run here")]
            std::process::exit(status);
        }
        Fork::Parent(child) => child,
    };
    drop((say, spoken));
    let words = LastWords::of(heard)?;
    let mut session =
        Session { child: Some(child), threads: Vec::new(), sockets: Vec::new(), _work: work };
    let mut devices = devices.into_iter();
    let console = devices.next();
    for ((listener, image), drive) in devices.zip(images).zip(&machine.drives) {
        let socket = listener.local_addr().on("a socket")?;
        session.threads.push(disk(listener, image, drive.sector, drive.serial.clone())?);
        session.sockets.push(socket);
    }
    // From here on the daemon has the channel.
    let mut launched = Arc::default();
    if let Some(listener) = console {
        let console = Console::new(channel).on("the channel")?;
        launched = console.launched();
        session.sockets.push(listener.local_addr().on("a socket")?);
        let thread = std::thread::Builder::new().name("console".into());
        let thread = thread.spawn(move || {
            if let Err(e) = vhost::run(&listener, &console) {
                tracing::error!("the channel: {e}");
            }
            Ok(())
        });
        session.threads.push(thread.on("a thread")?);
    }
    let ended = session.wait(&signals);
    if let Ok(Some(status)) = ended {
        let launched = launched.load(Ordering::Relaxed);
        let silent = || kernel_ended(&kernel, status, &words);
        if !launched && let Some(e) = launched::failure(&said, &daemon, silent) {
            return session.end().and(Err(e));
        }
        if launched && let Some(e) = broken_off(status, &words, &said, &daemon) {
            report(&e);
        }
    }
    let ended = ended.and_then(|status| session.end().map(|()| status.unwrap_or(0)));
    Ok(ended.unwrap_or_else(|e| {
        report(&e);
        1
    }))
}

/// A kernel that has ended before its process 1 could say anything.
fn kernel_ended(kernel: &Path, status: i32, words: &LastWords) -> Error {
    Error::Missing(format!(
        "{} {} before it ran anything: it is no kernel of User-Mode Linux, or \
         one that does not run here; {KERNEL_VARIABLE} says which one is used, Debian's is in the \
         package user-mode-linux{}",
        kernel.display(),
        launched::how(status),
        words.told()
    ))
}

/// Why a session that had begun is over, if its client did not end it.
fn broken_off(status: i32, words: &LastWords, said: &PipeReader, daemon: &Path) -> Option<Error> {
    match status {
        0 => launched::broken_off(said, daemon),
        _ => Some(Error::Broken(format!(
            "User-Mode Linux {}{}",
            launched::how(status),
            words.told()
        ))),
    }
}

/// Memory of the machine, in MiB.
fn memory(machine: &Machine) -> u32 {
    machine.memory.clamp(256, 65536)
}

/// Arguments of the kernel, without its devices.
fn kernel_arguments(machine: &Machine, work: &Path, own: &Path, say: &impl AsRawFd) -> Vec<String> {
    let mut arguments = vec![
        format!("mem={}M", memory(machine)),
        "umid=u".into(),
        format!("uml_dir={}/", work.display()),
        "noreboot".into(),
        "con=null".into(),
        "con0=null,fd:1".into(),
        format!("con1=null,fd:{}", say.as_raw_fd()),
        "ssl=null".into(),
        "root=none".into(),
        "rootfstype=hostfs".into(),
        "ro".into(),
        "panic=1".into(),
        "console=tty0".into(),
        format!("init={}", own.display()),
    ];
    if !machine.verbose {
        arguments.push("quiet".into());
    }
    arguments
}

/// The directory of a session's sockets; removed at the end where it is not a tmpfs.
struct Work(PathBuf, bool);

impl Drop for Work {
    fn drop(&mut self) {
        if self.1 {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }
}

/// Enters namespaces in which the sockets are in a tmpfs of their own; makes a directory that is removed
/// where the kernel does not allow that.
fn isolate(used: &[&Path]) -> Result<Work> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let namespaces = UnshareFlags::NEWNS;
    let entered = if uid.is_root() {
        sys::unshare(namespaces)
    } else {
        sys::unshare(namespaces | UnshareFlags::NEWUSER).and_then(|()| {
            std::fs::write("/proc/self/setgroups", "deny")?;
            std::fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
            std::fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
        })
    };
    let mut places = PLACES.iter().map(Path::new);
    let place = places.find(|p| p.is_dir() && !used.iter().any(|u| u.starts_with(p)));
    if let (Ok(()), Some(place)) = (&entered, place) {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .on("a private mount namespace")?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("guestfs-novm", place, "tmpfs", flags, c"mode=700").on(place.display())?;
        return Ok(Work(place.to_owned(), false));
    }
    let dir = std::env::temp_dir().join(format!("guestfs-novm.{}", std::process::id()));
    std::fs::create_dir(&dir).on(dir.display())?;
    Ok(Work(dir, true))
}

/// Starts UML in a PID namespace and waits for it. Its parent is process 1 there, with which all of its
/// processes end, and which ends with this one.
fn supervise(
    parent: &Parent,
    kernel: &Path,
    arguments: &[String],
    memory: &Path,
    say: &PipeWriter,
) -> Result<i32> {
    parent.take_along().on("User-Mode Linux")?;
    rustix::process::setsid().on("setsid")?;
    if let Err(e) = sys::unshare(UnshareFlags::NEWPID) {
        tracing::warn!("a PID namespace: {e}: a crash of User-Mode Linux may leave processes");
        return start(kernel, arguments, memory, say);
    }
    let own = Parent::this().on("this process")?;
    match sys::fork().on("fork")? {
        Fork::Child => {
            own.take_along().on("User-Mode Linux")?;
            start(kernel, arguments, memory, say)
        }
        Fork::Parent(child) => {
            let status = waitpid(Some(child), WaitOptions::empty()).on("User-Mode Linux")?;
            Ok(status.map_or(1, |(_, status)| crate::machine::init::exit_status(status)))
        }
    }
}

/// Starts UML and waits for it.
fn start(kernel: &Path, arguments: &[String], memory: &Path, say: &PipeWriter) -> Result<i32> {
    unblock_all().on("signals")?;
    rustix::io::fcntl_setfd(say, rustix::io::FdFlags::empty()).on("a pipe")?;
    let shim = shim().on("a file in memory")?;
    let mut command = Command::new(kernel);
    command.args(arguments).env_clear();
    command.env("LD_PRELOAD", format!("/proc/self/fd/{}", shim.as_raw_fd()));
    command.env("TMPDIR", memory);
    command.stdin(std::process::Stdio::null()).process_group(0);
    let status = command.spawn().and_then(|mut child| child.wait()).map_err(|e| {
        let hint = format!("{KERNEL_VARIABLE} says which kernel is used");
        Error::Missing(format!("{}: {e}; {hint}", kernel.display()))
    })?;
    let signal = || status.signal().map_or(1, |signal| 128 + signal);
    Ok(status.code().unwrap_or_else(signal))
}

/// The library that is preloaded, as a file that is nowhere.
fn shim() -> io::Result<OwnedFd> {
    // Not closed by exec: it is opened by the dynamic linker, after it.
    let file = std::fs::File::from(rustix::fs::memfd_create("xstate.so", MemfdFlags::empty())?);
    (&file).write_all(uml_xstate::LIBRARY)?;
    Ok(file.into())
}

/// Starts the thread that is a disk, and waits until its image is open.
fn disk(
    listener: UnixListener,
    image: Image,
    sector: Option<u32>,
    serial: Option<String>,
) -> Result<JoinHandle<Result<()>>> {
    let (opened, is_open) = mpsc::channel();
    let thread = std::thread::Builder::new().name("disk".into());
    let thread = thread.spawn(move || {
        let block = match Block::open(&image, sector, serial.as_deref()) {
            Ok(block) => block,
            Err(e) => {
                opened.send(Err(e)).ok();
                return Ok(());
            }
        };
        opened.send(Ok(())).ok();
        let served = vhost::run(&listener, &block);
        block.close()?;
        served.on(image.path.display())
    });
    let thread = thread.on("a thread")?;
    is_open
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("its thread has ended")).on("opening an image"))?;
    Ok(thread)
}

/// What there is to be taken down.
struct Session {
    child: Option<Pid>,
    /// Of the disks and the channel.
    threads: Vec<JoinHandle<Result<()>>>,
    /// Where they wait for UML.
    sockets: Vec<SocketAddr>,
    _work: Work,
}

impl Session {
    /// Waits for UML's end; none if the session was to end before.
    fn wait(&mut self, signals: &Signals) -> Result<Option<i32>> {
        loop {
            match poll(&mut [PollFd::new(signals, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).on("poll"),
            }
            while let Some(signal) = signals.next() {
                if ENDING.contains(&signal) {
                    return Ok(None);
                }
            }
            let Some(child) = self.child else { return Ok(None) };
            if let Ok(Some((_, status))) = waitpid(Some(child), WaitOptions::NOHANG) {
                self.child = None;
                return Ok(Some(crate::machine::init::exit_status(status)));
            }
        }
    }
}

impl Session {
    /// Takes everything down. The error that is returned is the last one; others are reported.
    fn end(&mut self) -> Result<()> {
        if let Some(child) = self.child.take() {
            kill_process(child, Signal::KILL).ok();
            waitpid(Some(child), WaitOptions::empty()).ok();
        }
        // UML is gone, so its connections are. A disk to which it never connected is still waiting
        // for it: this is a front end that hangs up at once.
        for socket in self.sockets.drain(..) {
            UnixStream::connect_addr(&socket).ok();
        }
        let mut last = Last::new();
        // Images are flushed and closed.
        for thread in self.threads.drain(..) {
            last.add(thread.join().unwrap_or_else(|_| {
                Err(io::Error::other("its thread panicked")).on("a disk of User-Mode Linux")
            }));
        }
        last.result()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            report(&e);
        }
    }
}
