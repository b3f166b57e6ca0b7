// SPDX-License-Identifier: Apache-2.0
//! In the daemon: the process of a plugin, one after the other. Who calls a function of the plugin
//! does it here; what starts the process, listens to it and notices its end is in `supervise`.
//!
//! What the process says is not trusted: numbers that it names are looked up, texts have bounds, and
//! a message that is none has the process killed.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};

use super::socket::Socket;
use super::supervise;
use super::wire::{Call, Facts, Reply, ToPlugin};
use crate::device::Shared;
use crate::loader::Refusal;
use crate::pool::spawn;

/// After this a call that has not returned has the process killed.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(60);
/// How long the end of a process takes at most, in good order.
const END_TIME: Duration = Duration::from_secs(5);
/// How long the check of a configuration string waits for a process, if there is none.
const CHECK_WAIT: Duration = Duration::from_secs(10);

/// How processes of plugins are started: a program that calls [`super::process::run`] with its last
/// argument, the plugin's file.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The program.
    pub program: PathBuf,
    /// Its arguments before the file.
    pub arguments: Vec<OsString>,
    /// What each process holds open while it runs: who locks this file waits for their end.
    pub lock: Option<Arc<File>>,
    /// After this a plugin that is still being loaded is not used.
    pub load_time: Duration,
    /// Whether what plugins write to standard output and error goes where this program's does.
    pub output: bool,
}

impl Isolation {
    /// By this program, with these arguments; nothing is locked, a plugin has half a minute to load,
    /// and its output is seen.
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Isolation {
        let (program, load_time) = (program.into(), Duration::from_secs(30));
        Isolation { program, arguments, lock: None, load_time, output: true }
    }
}

/// There is no process, or it has ended before it answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// The process that there is.
#[derive(Clone)]
pub(super) struct Running {
    /// Of all processes of this plugin.
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) socket: Arc<Socket>,
}

/// A call that has not returned.
pub(super) struct Waiting {
    pub(super) process: u64,
    pub(super) until: Option<Instant>,
    pub(super) reply: Option<Reply>,
}

/// What is known of the process.
#[derive(Default)]
pub(super) struct State {
    pub(super) running: Option<Running>,
    pub(super) processes: u64,
    /// The process has loaded the plugin.
    pub(super) loaded: bool,
    /// What it has registered so far.
    pub(super) arriving: Vec<Facts>,
    /// What the first one has registered.
    pub(super) known: Option<Vec<Facts>>,
    /// What of it the first one does not use.
    pub(super) refused: Vec<Refusal>,
    pub(super) calls: BTreeMap<u64, Waiting>,
    pub(super) last_call: u64,
    /// Why the process is killed, and since when, or when that was said last.
    pub(super) killed: Option<(String, Instant)>,
    /// No further process is wanted.
    pub(super) ended: bool,
    /// There will be none.
    pub(super) over: bool,
    /// How the last process ended, for whom it was the first.
    pub(super) last: String,
}

/// The processes of one plugin.
pub(crate) struct Host {
    file: PathBuf,
    isolation: Isolation,
    pub(super) built_in: Vec<String>,
    pub(super) taken: Vec<String>,
    state: Mutex<State>,
    pub(super) changed: Condvar,
    devices: Mutex<BTreeMap<u32, Weak<Shared>>>,
    last_device: AtomicU32,
}

/// A plugin's process, and what it says of the plugin.
pub(crate) struct Started {
    pub(crate) host: Arc<Host>,
    pub(crate) handlers: Vec<Facts>,
    /// What of it is not used.
    pub(crate) refused: Vec<Refusal>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.file.display())
    }
}

impl Host {
    /// Starts the process of a plugin; what it registers, and what of it is not used. Subtypes that
    /// are built in or taken are not for it.
    pub(crate) fn start(
        file: &Path,
        isolation: Isolation,
        built_in: Vec<String>,
        taken: Vec<String>,
    ) -> Result<Started, Refusal> {
        let host = Arc::new(Host {
            file: file.into(),
            isolation,
            built_in,
            taken,
            state: Mutex::default(),
            changed: Condvar::new(),
            devices: Mutex::default(),
            last_device: AtomicU32::new(0),
        });
        let theirs = host.clone();
        let refused = |why: String| Refusal::Process(why);
        spawn("plugin", move || supervise::run(&theirs))
            .map_err(|error| refused(format!("cannot be started: {error}")))?;
        let state = host.state();
        let wait = |state: &mut State| state.known.is_none() && !state.over;
        let waited = host.changed.wait_while(state, wait);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        match state.known.clone() {
            Some(handlers) => {
                let refused = std::mem::take(&mut state.refused);
                drop(state);
                Ok(Started { host, handlers, refused })
            }
            None => Err(refused(state.last.clone())),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<u32, Weak<Shared>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// A number for a device.
    pub(crate) fn next_device(&self) -> u32 {
        self.last_device.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Lets the process name a device.
    pub(crate) fn add(&self, id: u32, shared: &Arc<Shared>) {
        self.devices().insert(id, Arc::downgrade(shared));
    }

    pub(crate) fn remove(&self, id: u32) {
        self.devices().remove(&id);
    }

    pub(super) fn find(&self, id: u32) -> Option<Arc<Shared>> {
        self.devices().get(&id).and_then(Weak::upgrade)
    }

    /// All devices.
    pub(super) fn all(&self) -> Vec<Arc<Shared>> {
        self.devices().values().filter_map(Weak::upgrade).collect()
    }

    /// The number of the process, if there is one that has loaded the plugin.
    pub(crate) fn process(&self) -> Option<u64> {
        let state = self.state();
        state.running.as_ref().filter(|_| state.loaded).map(|running| running.number)
    }

    /// The same, after a while if need be.
    pub(crate) fn wait_loaded(&self, time: Duration) -> Option<u64> {
        let wait = |state: &mut State| !(state.loaded || state.over || state.ended);
        let waited = self.changed.wait_timeout_while(self.state(), time, wait);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.process()
    }

    /// Has a process call a function, and waits for what it returns. After `limit` the process is
    /// killed.
    pub(crate) fn call(
        &self,
        process: u64,
        call: Call,
        fds: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> Result<Reply, Gone> {
        let (number, socket) = {
            let mut state = self.state();
            let running = state.running.as_ref().filter(|running| running.number == process);
            let socket = running.ok_or(Gone)?.socket.clone();
            state.last_call += 1;
            let number = state.last_call;
            let until = limit.map(|limit| Instant::now() + limit);
            state.calls.insert(number, Waiting { process, until, reply: None });
            (number, socket)
        };
        if socket.send(&ToPlugin::Call { number, call }, fds, false).is_err() {
            self.state().calls.remove(&number);
            return Err(Gone);
        }
        let wait = |state: &mut State| {
            let here = state.running.as_ref().is_some_and(|running| running.number == process);
            here && state.calls.get(&number).is_some_and(|waiting| waiting.reply.is_none())
        };
        let state = self.changed.wait_while(self.state(), wait);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.calls.remove(&number).and_then(|waiting| waiting.reply).ok_or(Gone)
    }

    /// Whether a configuration string would do for a handler, or why not.
    pub(crate) fn check_config(&self, handler: u16, config: &str) -> Result<(), String> {
        let call = Call::CheckConfig { handler, config: config.into() };
        let process = self.wait_loaded(CHECK_WAIT).ok_or(Gone);
        match process.and_then(|process| self.call(process, call, &[], Some(CALL_TIME))) {
            Ok(Reply { result: 0, .. }) => Ok(()),
            Ok(reply) => Err(reply.text),
            Err(Gone) => Err(format!("the process of {} has ended", self.file.display())),
        }
    }

    /// Tells the process how much is logged, and where plugins' own files go.
    pub(crate) fn log_changed(&self) {
        let socket = self.state().running.as_ref().map(|running| running.socket.clone());
        let Some(socket) = socket else { return };
        let (level, directory) = log_settings();
        if let Err(error) = socket.send(&ToPlugin::Log { level, directory }, &[], false) {
            tracing::warn!("{}: it is not told of the log: {error}", self.file.display());
        }
    }

    /// Tells a handler that the directory of log files is another one; false: it could not follow.
    pub(crate) fn update_log_dir(&self, handler: u16) -> bool {
        let call = Call::UpdateLogDir { handler };
        let process = self.process().ok_or(Gone);
        // The next process begins with the new directory.
        process
            .and_then(|process| self.call(process, call, &[], Some(CALL_TIME)))
            .is_ok_and(|r| r.result == 0)
    }

    /// Ends the process, in good order unless devices are open.
    pub(crate) fn end(&self) {
        let process = self.process();
        self.state().ended = true;
        self.changed.notify_all();
        if !self.all().is_empty() {
            tracing::warn!(
                "{}: it is not told of the end: it has not closed its devices",
                self.file.display()
            );
        } else if let Some(process) = process {
            let _ = self.call(process, Call::Destroy {}, &[], Some(END_TIME));
        }
        let state = self.state();
        if let Some(running) = &state.running {
            signal(running);
        }
        let wait = |state: &mut State| !state.over;
        let waited = self.changed.wait_timeout_while(state, END_TIME, wait);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// How much is logged, and where.
pub(super) fn log_settings() -> (u8, String) {
    let directory = tcmu_abi::log::directory().to_string_lossy().into_owned();
    (tcmu_abi::log::level() as u8, directory)
}

/// Kills a process. One that has ended is not there to be killed.
pub(super) fn signal(running: &Running) {
    if let Err(error) = pidfd_send_signal(&running.pidfd, Signal::KILL) {
        tracing::debug!("process {} is not killed: {error}", running.pid);
    }
}
