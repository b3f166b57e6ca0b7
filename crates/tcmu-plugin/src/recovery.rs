// SPDX-License-Identifier: Apache-2.0
//! What a handler has asked for when its storage is lost: the device is closed and opened again,
//! with growing pauses, on a thread of its own. Commands get BUSY meanwhile, and their initiators
//! send them again.
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::calls::{Calls, Gate};
use crate::device::Shared;
use crate::isolation::remote::NO_PROCESS;
use crate::place::Place;
use crate::pool::spawn;

/// Between two attempts: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The same while there is no process to open it in.
const PROCESS_PAUSE: Duration = Duration::from_millis(50);

/// What a handler tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Another host has the lock.
    LockLost,
    /// The storage cannot be reached.
    ConnectionLost,
    /// The storage has not answered a command in time.
    CommandTimedOut,
    /// The process that the handler was in has ended. No handler tells of that.
    ProcessEnded,
}

/// What handlers tell of, by their numbers, and how they are called.
pub(crate) const CAUSES: [(Cause, &std::ffi::CStr); 3] = [
    (Cause::LockLost, c"lock lost"),
    (Cause::ConnectionLost, c"connection lost"),
    (Cause::CommandTimedOut, c"command timed out"),
];

struct State {
    /// The handler has the device open.
    open: bool,
    /// A thread is at it.
    under_way: bool,
    /// The process has ended since the thread's last attempt has begun.
    outdated: bool,
}

/// What is known of the recovery of one device.
pub(crate) struct Recovery {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Recovery {
    fn default() -> Self {
        let state = State { open: true, under_way: false, outdated: false };
        Recovery { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Recovery {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no recovery is under way, the gate being closed; whether the handler has the
    /// device open.
    pub(crate) fn end(&self) -> bool {
        let state = self.state();
        let state = self.changed.wait_while(state, |state| state.under_way);
        state.unwrap_or_else(PoisonError::into_inner).open
    }

    /// An attempt begins.
    fn attempt(&self) {
        self.state().outdated = false;
    }

    /// Ends it, and lets commands go to the handler again, unless the attempt that has succeeded is
    /// outdated.
    fn finish(&self, open: bool, calls: &Calls) -> bool {
        let mut state = self.state();
        if open && state.outdated {
            return false;
        }
        *state = State { open, under_way: false, outdated: false };
        // Before another recovery can begin.
        calls.set_gate(Gate::Open);
        drop(state);
        self.changed.notify_all();
        true
    }
}

/// Acts on what a handler tells of. It returns at once: the handler may be in the middle of
/// something.
pub(crate) fn begin(shared: &Arc<Shared>, cause: Cause) {
    let counter = match cause {
        Cause::LockLost => Some(&shared.known.lock_lost_cnt),
        Cause::ConnectionLost => Some(&shared.known.conn_lost_cnt),
        Cause::CommandTimedOut => Some(&shared.known.cmd_timed_out_cnt),
        Cause::ProcessEnded => None,
    };
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
    if let Place::Hosted(relay) = &shared.place {
        return relay.lost(cause);
    }
    let name = &shared.name;
    let text = CAUSES.iter().find(|(known, _)| *known == cause).map(|(_, text)| text);
    let text = text.and_then(|text| text.to_str().ok()).unwrap_or_default();
    if cause == Cause::CommandTimedOut {
        tracing::error!("{name}: the handler says: {text}");
        return report(shared);
    }
    {
        let mut state = shared.recovery.state();
        state.outdated |= cause == Cause::ProcessEnded;
        if state.under_way || shared.calls.set_gate(Gate::Suspended) == Gate::Closed {
            return;
        }
        state.under_way = true;
    }
    // Of its process, there is a line already.
    if cause != Cause::ProcessEnded {
        tracing::error!(
            "{name}: the handler says: {text}. It is opened again; commands get BUSY until then"
        );
    }
    shared.lock.lost();
    let theirs = shared.clone();
    if let Err(error) = spawn("recovery", move || run(&theirs)) {
        tracing::error!("{name}: it is not opened again: cannot start a thread: {error}");
        shared.recovery.attempt();
        shared.recovery.finish(true, &shared.calls);
    }
}

/// Lets the handler tell others of what has happened.
fn report(shared: &Arc<Shared>) {
    let hold = shared.handler.reports_events().then(|| shared.calls.hold()).flatten();
    let Some(hold) = hold else { return };
    let theirs = shared.clone();
    let reported = spawn("report", move || {
        let _hold = hold;
        let result = theirs.report_event();
        if result != 0 {
            tracing::warn!("{}: report_event: {result}", theirs.name);
        }
    });
    if let Err(error) = reported {
        tracing::error!("{}: report_event: cannot start a thread: {error}", shared.name);
    }
}

fn run(shared: &Arc<Shared>) {
    shared.calls.wait_idle();
    shared.close(false);
    let (mut pause, mut last) = (PAUSE, None);
    loop {
        if shared.calls.is_closed() {
            shared.recovery.finish(false, &shared.calls);
            return;
        }
        shared.recovery.attempt();
        let wait = match shared.open(true) {
            Ok(()) => {
                shared.lock.look(shared);
                if shared.recovery.finish(true, &shared.calls) {
                    break;
                }
                shared.close(false);
                continue;
            }
            Err(NO_PROCESS) if matches!(shared.place, Place::Away(_)) => PROCESS_PAUSE,
            Err(errno) => {
                if last != Some(errno) {
                    let error = io::Error::from_raw_os_error(errno);
                    tracing::error!("{}: opening it again: {error}; trying on", shared.name);
                    last = Some(errno);
                }
                let wait = pause;
                pause = (pause * 2).min(MAX_PAUSE);
                wait
            }
        };
        shared.calls.wait_closed(wait);
    }
    tracing::info!("{}: is open again", shared.name);
    report(shared);
}
