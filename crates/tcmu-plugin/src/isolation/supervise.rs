// SPDX-License-Identifier: Apache-2.0
//! In the daemon: the thread that starts the process of a plugin, listens to it, and starts the next
//! one when it has ended. The thread lives as long as processes are wanted: the kernel kills a
//! process when the thread that has started it ends.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tcmu_abi::layout::SENSE_LEN;

use super::host::{Host, Running, State, Waiting, log_settings, signal};
use super::remote::process_ended;
use super::socket::Socket;
use super::wire::{FromPlugin, MAX_MESSAGE, Snapshot, ToPlugin, decode};
use crate::device::Shared;
use crate::loader::Refusal;
use crate::place::Place;
use crate::recovery::{self, CAUSES};
use crate::status::Status;

/// More handlers of one plugin are beyond reason.
const MAX_HANDLERS: usize = 64;
/// Sizes of blocks, in bytes.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=1 << 20;

/// What the process calls itself. Not as the daemon, for who sends signals by name.
pub(super) const NAME: &str = "tcmu-plugin";
/// How long a handler has to end a command of which it was told that it has taken too long.
const LAST_TIME: Duration = Duration::from_secs(1);
/// Between two looks at what takes too long.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long a process may go on without a connection: one that ends closes it first.
const CLOSED_TIME: Duration = Duration::from_secs(5);
/// How long a process that is killed may take to end, before that is logged; and again.
const DYING_TIME: Duration = Duration::from_secs(15);
/// Messages that are taken between two looks.
const BATCH: usize = 256;
/// A process that has ended sooner has the next one wait: at first so long, and then longer.
const SOUND: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Runs processes, until none is wanted any more.
pub(super) fn run(host: &Arc<Host>) {
    let mut pause = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let how = match start(host) {
            Ok((child, running)) => serve(host, child, &running, begun),
            Err(error) => format!("cannot be started: {error}"),
        };
        if !host.down(&how) {
            break;
        }
        let sound = begun.elapsed() > SOUND;
        pause = if sound { Duration::ZERO } else { (pause * 2).clamp(PAUSE, MAX_PAUSE) };
        if !host.pause(pause) {
            break;
        }
    }
    host.over();
}

fn start(host: &Host) -> io::Result<(Child, Running)> {
    let (socket, theirs) = Socket::pair()?;
    let isolation = host.isolation();
    let mut command = Command::new(&isolation.program);
    command.args(&isolation.arguments).arg(host.file());
    // In a group of its own: a Ctrl-C is the daemon's affair.
    command.arg0(NAME).stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0);
    if !isolation.output {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let mut child = command.spawn()?;
    match connect(host, &child, socket) {
        Ok(running) => {
            host.up(running.clone());
            Ok((child, running))
        }
        Err(error) => {
            // None is left that nobody listens to.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Tells a process what it is for.
fn connect(host: &Host, child: &Child, socket: Socket) -> io::Result<Running> {
    let pidfd = Arc::new(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?);
    let lock: Vec<_> = host.isolation().lock.iter().map(|lock| lock.as_fd()).collect();
    socket.send(&host.load_message(), &lock, false)?;
    let (number, pid, socket) = (host.next_process(), child.id(), Arc::new(socket));
    Ok(Running { number, pid, pidfd, socket })
}

/// Listens to a process until it has ended; how it did.
fn serve(host: &Host, mut child: Child, running: &Running, begun: Instant) -> String {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut looked = begun;
    // Since when it says nothing any more.
    let mut closed: Option<Instant> = None;
    loop {
        let mut wanted = [
            PollFd::new(&*running.pidfd, PollFlags::IN),
            PollFd::new(&*running.socket, PollFlags::IN),
        ];
        let count = if closed.is_none() { 2 } else { 1 };
        // Interrupted or not, there is a look at everything.
        let _ = poll(wanted.get_mut(..count).unwrap_or_default(), Some(&TICK));
        // First: what it has said before its end counts.
        let may_have_ended = wanted.first().is_some_and(|pidfd| !pidfd.revents().is_empty());
        let ended = if may_have_ended { child.try_wait() } else { Ok(None) };
        let mut left = if matches!(ended, Ok(None)) { BATCH } else { usize::MAX };
        while closed.is_none() && left > 0 {
            left -= 1;
            match listen(host, running, &mut buffer) {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => {
                    closed = Some(Instant::now());
                    if let (Some(why), Ok(None)) = (why, &ended) {
                        host.kill(why);
                    }
                }
            }
        }
        match ended {
            Ok(Some(status)) => return how(running.pid, status),
            Ok(None) => {}
            Err(error) => tracing::error!("process {}: {error}", running.pid),
        }
        if looked.elapsed() >= Duration::from_secs(1) {
            looked = Instant::now();
            if closed.is_some_and(|since| since.elapsed() > CLOSED_TIME) {
                host.kill("it has closed its connection");
            }
            host.look(begun);
        }
    }
}

/// Takes one message, if there is one; as an error, that there will be no more, and why the process
/// is not to go on if it is its fault.
fn listen(host: &Host, running: &Running, buffer: &mut [u8]) -> Result<bool, Option<&'static str>> {
    match running.socket.receive_now(buffer) {
        Ok(None) => Ok(false),
        // The end is about to follow.
        Ok(Some(0)) => Err(None),
        Ok(Some(len)) => match buffer.get(..len).and_then(decode) {
            Some(message) => {
                host.take(running.number, message);
                Ok(true)
            }
            None => Err(Some("its process sends what is no message")),
        },
        Err(_) => Err(Some("its process sends messages that are too long")),
    }
}

/// How a process ended, in words.
fn how(pid: u32, status: ExitStatus) -> String {
    format!("{pid} has ended ({status})")
}

impl Host {
    /// What a process is told first.
    fn load_message(&self) -> ToPlugin {
        let (level, directory) = log_settings();
        let (built_in, taken) = (self.built_in.clone(), self.taken.clone());
        ToPlugin::Load { daemon: std::process::id(), built_in, taken, level, directory }
    }

    /// A number for a process.
    fn next_process(&self) -> u64 {
        let mut state = self.state();
        state.processes += 1;
        state.processes
    }

    /// A process runs.
    fn up(&self, running: Running) {
        let mut state = self.state();
        let pid = running.pid;
        (state.running, state.loaded, state.killed) = (Some(running), false, None);
        state.arriving.clear();
        drop(state);
        tracing::debug!("{}: its process is {pid}", self.file().display());
    }

    /// Has the process killed, and says why.
    fn kill(&self, why: &str) {
        let mut state = self.state();
        let Some(running) = state.running.clone() else { return };
        signal(&running);
        if state.killed.is_none() {
            state.killed = Some((why.into(), Instant::now()));
            drop(state);
            let (file, pid) = (self.file().display(), running.pid);
            tracing::error!("{file}: {why}; its process, {pid}, is killed");
        }
    }

    /// Kills the process if something takes too long. Called about once a second.
    fn look(&self, begun: Instant) {
        let now = Instant::now();
        let (loading, late_call) = {
            let mut state = self.state();
            if let Some((_, since)) = &mut state.killed {
                let stays = now.duration_since(*since) > DYING_TIME;
                if stays {
                    *since = now;
                }
                drop(state);
                if stays {
                    tracing::error!(
                        "{}: its process was killed and has not ended: the storage does not let it \
                         go. Its devices wait",
                        self.file().display()
                    );
                }
                return;
            }
            let late =
                |call: &Waiting| call.reply.is_none() && call.until.is_some_and(|t| t <= now);
            (!state.loaded, state.calls.values().any(late))
        };
        let load_time = self.isolation().load_time;
        if loading && now.duration_since(begun) > load_time {
            return self.kill(&format!("it is not loaded after {} s", load_time.as_secs()));
        }
        if late_call {
            return self.kill("a function of it does not return");
        }
        for shared in self.all() {
            let Place::Away(remote) = &shared.place else { continue };
            let limit = remote.time_out();
            let (found, stays) = shared.calls.overdue(limit, LAST_TIME);
            found.into_iter().for_each(|id| self.tell_overdue(remote.id(), id));
            if stays {
                let (name, limit) = (&shared.name, limit.as_secs());
                return self.kill(&format!("{name}: a command is not answered after {limit} s"));
            }
        }
    }

    /// Lets a handler see that a command has taken too long.
    fn tell_overdue(&self, device: u32, id: u16) {
        let socket = self.state().running.as_ref().map(|running| running.socket.clone());
        let told = socket.map(|socket| socket.send(&ToPlugin::Overdue { device, id }, &[], false));
        if let Some(Err(error)) = told {
            let file = self.file().display();
            tracing::warn!("{file}: it is not told that a command takes too long: {error}");
        }
    }

    /// Takes what the process says.
    fn take(&self, process: u64, message: FromPlugin) {
        match message {
            FromPlugin::Handler { facts } => {
                let mut state = self.state();
                if !state.loaded && state.arriving.len() < MAX_HANDLERS {
                    state.arriving.push(facts);
                }
            }
            FromPlugin::Refused { built_in, text } => {
                let mut state = self.state();
                if state.known.is_none() && state.refused.len() < MAX_HANDLERS {
                    let refusal = if built_in { Refusal::BuiltIn } else { Refusal::Told };
                    state.refused.push(refusal(text));
                }
            }
            FromPlugin::Loaded {} => self.take_loaded(),
            FromPlugin::Reply { number, reply } => {
                if let Some(waiting) = self.state().calls.get_mut(&number)
                    && waiting.process == process
                {
                    waiting.reply = Some(reply);
                }
                self.changed.notify_all();
            }
            FromPlugin::Line { level, device, function, line, text } => {
                let shared = device.and_then(|device| self.find(device));
                let device = shared.as_ref().map(|shared| &*shared.abi);
                let level = tcmu_abi::log::Level::from_number(level.into());
                tcmu_abi::log::log(level, device, &function, line, &text);
            }
            FromPlugin::Own { level, text } => match level {
                0 | 1 => tracing::error!("{text}"),
                2 => tracing::warn!("{text}"),
                3 => tracing::info!("{text}"),
                4 => tracing::debug!("{text}"),
                _ => tracing::trace!("{text}"),
            },
            FromPlugin::Completed { device, key, status, sense } => {
                let sense = sense.and_then(|sense| <[u8; SENSE_LEN]>::try_from(sense).ok());
                if let (Some(shared), Ok(key)) = (self.device(device), usize::try_from(key)) {
                    shared.calls.complete_with(key, Status(status), sense.map(Box::new));
                }
            }
            FromPlugin::Properties { device, snapshot } => {
                if let Some(shared) = self.device(device) {
                    take_properties(&shared, &snapshot);
                }
            }
            FromPlugin::Resized { device, size } => {
                if let Some(shared) = self.device(device) {
                    shared.resized(size);
                }
            }
            FromPlugin::Lost { device, event } => {
                let cause = CAUSES.get(usize::from(event));
                if let (Some(shared), Some((cause, _))) = (self.device(device), cause) {
                    recovery::begin(&shared, *cause);
                }
            }
        }
    }

    /// A device that the process names.
    fn device(&self, id: u32) -> Option<Arc<Shared>> {
        let found = self.find(id);
        if found.is_none() {
            tracing::error!(
                "{}: its process names a device that it does not have",
                self.file().display()
            );
        }
        found
    }

    fn take_loaded(&self) {
        let mut state = self.state();
        let arriving = std::mem::take(&mut state.arriving);
        let same = state.known.as_ref().is_none_or(|known| *known == arriving);
        if same {
            state.known = Some(arriving);
            state.loaded = true;
        }
        drop(state);
        match same {
            true => self.changed.notify_all(),
            false => self.kill("it registers other handlers than before"),
        }
    }

    /// The process has ended, or could not be started. Whether there is to be another one.
    fn down(&self, how: &str) -> bool {
        let (wanted, told) = {
            let mut state = self.state();
            let killed = state.killed.take().map(|(why, _)| why);
            state.last = match &killed {
                Some(why) => format!("was killed: {why}"),
                None => how.into(),
            };
            (state.running, state.loaded) = (None, false);
            state.calls.retain(|_, waiting| waiting.reply.is_some());
            (state.known.is_some() && !state.ended, killed.is_none())
        };
        self.changed.notify_all();
        let devices = self.all();
        if wanted {
            let names: Vec<&str> = devices.iter().map(|shared| shared.name.as_str()).collect();
            let (file, how) = (self.file().display(), if told { how } else { "was killed" });
            tracing::error!(
                "{file}: its process {how}. The next one opens its devices again ({}); commands get \
                 BUSY until then",
                if names.is_empty() { "none".into() } else { names.join(", ") }
            );
        }
        for shared in devices {
            if let Place::Away(remote) = &shared.place {
                process_ended(&shared, remote);
                if shared.calls.is_closed() {
                    // Nobody has to close it any more.
                    self.remove(remote.id());
                }
            }
        }
        wanted
    }

    /// Waits before the next process is started; false: there is to be none.
    fn pause(&self, time: Duration) -> bool {
        let wait = |state: &mut State| !state.ended;
        let waited = self.changed.wait_timeout_while(self.state(), time, wait);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.ended
    }

    /// There will be no process any more.
    fn over(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }
}

/// Takes properties that a handler has set, if they make sense.
fn take_properties(shared: &Shared, snapshot: &Snapshot) {
    let block_size = snapshot.block_size;
    if !(BLOCK_SIZES.contains(&block_size) && block_size.is_power_of_two()) {
        tracing::error!("{}: its handler wants blocks of {block_size} bytes; ignored", shared.name);
        return;
    }
    snapshot.apply(shared.abi.properties());
}
