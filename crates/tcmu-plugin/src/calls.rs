// SPDX-License-Identifier: Apache-2.0
//! The commands of one device that its handler has. Each is completed once, by the pointer that
//! names it: what is not here is refused, whoever names it.
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::answer::Answer;
use crate::handler::{Handler, Pointer};
use crate::memory::Arguments;
use crate::operation::Operation;
use crate::status::Status;

/// Whether commands may go to the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They may.
    Open,
    /// Not for the moment: the device is being opened again.
    Suspended,
    /// Not any more.
    Closed,
}

struct Entry {
    arguments: Arguments,
    answer: Answer<Status>,
}

struct State {
    under_way: BTreeMap<usize, Entry>,
    /// Calls of the handler that are no commands.
    holds: usize,
    gate: Gate,
    /// Threads that wait for `changed`. To wake nobody is a system call, too.
    waiting: usize,
}

impl State {
    fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.holds == 0
    }
}

/// The commands under way.
pub(crate) struct Calls {
    /// Of the device, for messages.
    name: String,
    state: Mutex<State>,
    /// A command was completed, or the gate has changed.
    changed: Condvar,
}

impl Calls {
    pub(crate) fn new(name: &str) -> Calls {
        let state = State { under_way: BTreeMap::new(), holds: 0, gate: Gate::Closed, waiting: 0 };
        let state = Mutex::new(state);
        Calls { name: name.into(), state, changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a command, which from now on can be completed.
    ///
    /// # Errors
    /// The status with which it ends at once, if it may not go to the handler.
    pub(crate) fn enter(&self, arguments: Arguments) -> Result<Answer<Status>, Status> {
        let mut state = self.lock();
        if state.gate != Gate::Open {
            return Err(Status::BUSY);
        }
        let answer = Answer::default();
        let entry = Entry { arguments, answer: answer.clone() };
        state.under_way.insert(arguments.key(), entry);
        Ok(answer)
    }

    /// Completes a command; whether there was one.
    pub(crate) fn complete(&self, key: usize, status: Status) {
        let mut state = self.lock();
        let Some(entry) = state.under_way.remove(&key) else {
            drop(state);
            tracing::error!(
                "{}: the handler has completed a command with {status} that is not under way: it \
                 did so twice, or named none of its commands. Ignored; report it to the plugin's \
                 author",
                self.name
            );
            return;
        };
        let awaited = state.waiting > 0 && state.is_idle();
        drop(state);
        if awaited {
            self.changed.notify_all();
        }
        entry.answer.give(status);
    }

    /// Keeps the device open for a call that is no command; `None`: it is not open.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Hold> {
        let mut state = self.lock();
        (state.gate == Gate::Open).then(|| {
            state.holds += 1;
            Hold(self.clone())
        })
    }

    /// What the handler got of a command under way.
    pub(crate) fn arguments(&self, key: usize) -> Option<Arguments> {
        self.lock().under_way.get(&key).map(|entry| entry.arguments)
    }

    /// Sets the gate, unless it is closed; how it was.
    pub(crate) fn set_gate(&self, gate: Gate) -> Gate {
        let mut state = self.lock();
        let before = state.gate;
        if before != Gate::Closed {
            state.gate = gate;
        }
        drop(state);
        self.changed.notify_all();
        before
    }

    /// Opens the gate of a device that is open now.
    pub(crate) fn begin(&self) {
        self.lock().gate = Gate::Open;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().gate == Gate::Closed
    }

    /// Waits until no call of the handler is under way.
    pub(crate) fn wait_idle(&self) {
        let mut state = self.lock();
        state.waiting += 1;
        let waited = self.changed.wait_while(state, |state| !state.is_idle());
        waited.unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }

    /// Waits until the gate is closed, for so long at most; whether it is.
    pub(crate) fn wait_closed(&self, time: Duration) -> bool {
        let state = self.lock();
        let open = |state: &mut State| state.gate != Gate::Closed;
        let result = self.changed.wait_timeout_while(state, time, open);
        let (state, _) = result.unwrap_or_else(PoisonError::into_inner);
        state.gate == Gate::Closed
    }

    /// Has the handler execute a command on this thread. Where it does not complete it later, this
    /// does.
    pub(crate) fn run(
        &self,
        handler: &Handler,
        device: Pointer,
        arguments: Arguments,
        operation: Operation,
    ) {
        let status = handler.invoke(device, arguments, operation);
        // Without threads, functions other than `handle_cmd` only begin what they return 0 for.
        let later = match operation {
            Operation::HandleCommand => status == Status::ASYNC_HANDLED,
            _ if handler.threads() == 0 => matches!(status, Status::OK | Status::ASYNC_HANDLED),
            _ => status == Status::ASYNC_HANDLED,
        };
        if !later {
            self.complete(arguments.key(), status);
        }
    }
}

/// Keeps a device open.
pub(crate) struct Hold(Arc<Calls>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock().holds -= 1;
        self.0.changed.notify_all();
    }
}
