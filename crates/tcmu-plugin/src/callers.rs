// SPDX-License-Identifier: Apache-2.0
//! Who calls the handler of a device for a command: the device's own thread, or one of those that
//! the handler asks for.
//!
//! A handler that asks for no threads does not block, and is called on the device's own. One that
//! asks for several gets them, so that it can wait for several commands at once. One that asks for
//! a single thread has its calls one after the other in any case. Where such a call does not wait
//! (the page cache has the data), handing it over and its end back costs more than the call itself:
//! two switches from thread to thread. So the device's own thread makes it as long as the handler is
//! fast ([`Pace`]: a call that waits for more than 2 ms keeps it from that for a second), and while the
//! handler's thread has nothing to do: there are never two calls at once. It is not done with
//!
//! - commands that wait by their nature, such as flushes;
//! - devices whose commands have a time-out (`tcmur_cmd_time_out`): who notices that a call hangs is
//!   the device's own thread.
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_engine::Pace;

use crate::calls::Calls;
use crate::handler::{Handler, Pointer};
use crate::memory::Arguments;
use crate::operation::Operation;
use crate::pool::Pool;

/// READ and WRITE of 6, 10, 12 and 16 bytes.
const TRANSFERS: [u8; 8] = [0x08, 0x0a, 0x28, 0x2a, 0xa8, 0xaa, 0x88, 0x8a];

/// A call: what the handler gets of a command, and what it is to do.
type Job = (Arguments, Operation);

/// Calls the handler of one device, for the device's own thread.
pub(crate) struct Callers {
    handler: Arc<Handler>,
    calls: Arc<Calls>,
    device: Pointer,
    /// `None`: the handler asks for no threads.
    pool: Option<Pool<Job>>,
    /// Whether the device's own thread may call a handler that asks for one.
    own: Cell<bool>,
    pace: Pace,
}

impl Callers {
    /// Those of a device of this name: so many threads beside the device's own.
    pub(crate) fn new(
        name: &str,
        threads: usize,
        (handler, calls, device): (&Arc<Handler>, &Arc<Calls>, Pointer),
    ) -> io::Result<Callers> {
        let pool = match threads {
            0 => None,
            threads => Some(workers(name, threads, (handler, calls, device))?),
        };
        let (handler, calls) = (handler.clone(), calls.clone());
        let (own, pace) = (Cell::new(threads == 1), Pace::default());
        Ok(Callers { handler, calls, device, pool, own, pace })
    }

    /// Takes the time-out of commands.
    pub(crate) fn set_time_out(&self, time_out: Option<Duration>) {
        self.own.set(self.handler.threads() == 1 && time_out.is_none());
    }

    /// Has the handler called for a command with this CDB, which is under way.
    pub(crate) fn call(&self, cdb: &[u8], arguments: Arguments, operation: Operation) {
        let call = || self.calls.run(&self.handler, self.device, arguments, operation);
        let Some(pool) = &self.pool else { return call() };
        let quick = || self.own.get() && is_transfer(cdb, operation) && pool.is_idle();
        match quick().then(|| self.pace.begin()).flatten() {
            Some(begun) => {
                call();
                self.pace.end(begun);
            }
            None => pool.push((arguments, operation)),
        }
    }
}

/// Whether a call moves data, and does nothing else that takes time.
fn is_transfer(cdb: &[u8], operation: Operation) -> bool {
    match operation {
        Operation::Read { .. } | Operation::Write { .. } => true,
        Operation::HandleCommand => cdb.first().is_some_and(|opcode| TRANSFERS.contains(opcode)),
        Operation::Flush
        | Operation::Unmap { .. }
        | Operation::WriteSame { .. }
        | Operation::CompareAndWrite { .. } => false,
    }
}

/// The threads that a handler asks for.
fn workers(
    name: &str,
    threads: usize,
    (handler, calls, device): (&Arc<Handler>, &Arc<Calls>, Pointer),
) -> io::Result<Pool<Job>> {
    let name: String = name.chars().rev().take(15).collect();
    let name: String = name.chars().rev().collect();
    Pool::new(&name, threads, || {
        let (handler, calls) = (handler.clone(), calls.clone());
        move |(arguments, operation)| {
            // The whole of it, not its field: that is not to be sent.
            let device = device;
            calls.run(&handler, device, arguments, operation);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_told_from_what_waits_for_storage_by_its_nature() {
        for (cdb, operation, quick) in [
            (&[0x28, 0][..], Operation::Read { offset: 0 }, true),
            (&[0x8a], Operation::Write { offset: 0 }, true),
            (&[0x88], Operation::HandleCommand, true),
            (&[0x35], Operation::HandleCommand, false),
            (&[], Operation::HandleCommand, false),
            (&[0x2a], Operation::Flush, false),
            (&[0x42], Operation::Unmap { offset: 0, len: 1 }, false),
        ] {
            assert_eq!(is_transfer(cdb, operation), quick, "{cdb:x?} {operation:?}");
        }
    }
}
