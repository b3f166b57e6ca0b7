// SPDX-License-Identifier: Apache-2.0
//! The commands of one device that its handler has. Each is completed once, by the pointer that
//! names it: what is not here is refused, whoever names it.
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tcmu_abi::layout::SENSE_LEN;

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

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) status: Status,
    /// What came with the status, where the handler is in another process.
    pub(crate) sense: Option<Box<[u8; SENSE_LEN]>>,
}

/// Who is told of a command's end.
enum Ending {
    /// A future of this process.
    Answer(Answer<Completion>),
    /// Whoever has the command executed here.
    Report(Box<dyn FnOnce(Status) + Send>),
}

struct Entry {
    to: Recipient,
    ending: Ending,
}

/// Who has a command.
enum Recipient {
    /// A handler in this process, which got this.
    Here(Arguments),
    /// One in another process.
    Away {
        /// Of the command, in the ring.
        id: u16,
        since: Instant,
        /// When it was found overdue.
        overdue: Option<Instant>,
        #[allow(dead_code, reason = "memory that the handler has until the command's end")]
        memory: Arc<dyn Any + Send + Sync>,
    },
}

impl Entry {
    fn arguments(&self) -> Option<Arguments> {
        match self.to {
            Recipient::Here(arguments) => Some(arguments),
            Recipient::Away { .. } => None,
        }
    }

    fn end(self, status: Status, sense: Option<Box<[u8; SENSE_LEN]>>) {
        match self.ending {
            Ending::Answer(answer) => answer.give(Completion { status, sense }),
            Ending::Report(report) => report(status),
        }
    }
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
    pub(crate) fn enter(&self, arguments: Arguments) -> Result<Answer<Completion>, Status> {
        let answer = Answer::default();
        let ending = Ending::Answer(answer.clone());
        self.insert(arguments.key(), Entry { to: Recipient::Here(arguments), ending })?;
        Ok(answer)
    }

    /// The same for a command with this id of a handler in another process, which has this memory.
    pub(crate) fn enter_away(
        &self,
        (key, id): (usize, u16),
        memory: Arc<dyn Any + Send + Sync>,
    ) -> Result<Answer<Completion>, Status> {
        let answer = Answer::default();
        let ending = Ending::Answer(answer.clone());
        let to = Recipient::Away { id, since: Instant::now(), overdue: None, memory };
        self.insert(key, Entry { to, ending })?;
        Ok(answer)
    }

    /// The same for a command of another process, which is told of its end.
    pub(crate) fn enter_for(
        &self,
        arguments: Arguments,
        report: Box<dyn FnOnce(Status) + Send>,
    ) -> Result<(), Status> {
        let ending = Ending::Report(report);
        self.insert(arguments.key(), Entry { to: Recipient::Here(arguments), ending })
    }

    fn insert(&self, key: usize, entry: Entry) -> Result<(), Status> {
        let mut state = self.lock();
        if state.gate != Gate::Open {
            return Err(Status::BUSY);
        }
        state.under_way.insert(key, entry);
        Ok(())
    }

    /// Completes a command; one that is not under way is logged.
    pub(crate) fn complete(&self, key: usize, status: Status) {
        self.complete_with(key, status, None);
    }

    /// The same, with what is in the command's sense buffer.
    pub(crate) fn complete_with(
        &self,
        key: usize,
        status: Status,
        sense: Option<Box<[u8; SENSE_LEN]>>,
    ) {
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
        entry.end(status, sense);
    }

    /// Completes all commands: the handler does not have them any more.
    pub(crate) fn end_all(&self, status: Status) {
        let all = std::mem::take(&mut self.lock().under_way);
        self.changed.notify_all();
        all.into_values().for_each(|entry| entry.end(status, None));
    }

    /// Commands that have been with a handler in another process for longer than `limit`: the ids of
    /// those that are found now, and whether one that was found `grace` ago is still there.
    pub(crate) fn overdue(&self, limit: Duration, grace: Duration) -> (Vec<u16>, bool) {
        let (mut found, mut stays) = (Vec::new(), false);
        for entry in self.lock().under_way.values_mut() {
            let Recipient::Away { id, since, overdue, .. } = &mut entry.to else { continue };
            match overdue {
                Some(when) => stays |= when.elapsed() >= grace,
                None if since.elapsed() > limit => {
                    *overdue = Some(Instant::now());
                    found.push(*id);
                }
                None => {}
            }
        }
        (found, stays)
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
        self.lock().under_way.get(&key).and_then(Entry::arguments)
    }

    /// Lets the handler see that the command with this id in the ring, if it has it, has taken too
    /// long.
    pub(crate) fn time_out(&self, id: u16) {
        // Under the lock, so that it is not completed meanwhile.
        let state = self.lock();
        let all = state.under_way.values().filter_map(Entry::arguments);
        all.filter(|arguments| arguments.id == id).for_each(Arguments::time_out);
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
