// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to give commands to C and to take them back.
//!
//! The commands of one device: they come out of the ring and are C's until it completes them, in any
//! order and from any thread. All is behind one lock. What C says of a command is not trusted: its
//! pointer is looked up before anything is read through it, and the kernel's name for it is ours.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_int;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::iovec;
use smallvec::SmallVec;
use tcmu::configfs;
use tcmu::mailbox::CAP_OOOC;
use tcmu::{Command, Entry, Response, Ring};
use tcmu_abi::exports::sense;
use tcmu_abi::layout::{SENSE_LEN, tcmulib_cmd, tcmulib_handler};
use tcmu_abi::log::{self, Level};
use tcmu_abi::status::{self, Answer};
use tcmu_abi::{Memory, Owner};

/// GOOD, CHECK CONDITION, BUSY and TASK SET FULL (SAM-5 5.3.1).
const CHECK_CONDITION: u8 = 0x02;
const TASK_SET_FULL: u8 = 0x28;

/// A device's commands.
pub(crate) struct Queue {
    state: Mutex<State>,
    configfs: configfs::Device,
    handler: HandlerPointer,
    fd: RawFd,
    memory: Option<Memory>,
    out_of_order: bool,
}

/// The C program's handler; it stays as long as the context.
#[derive(Clone, Copy)]
pub(crate) struct HandlerPointer(pub(crate) *mut tcmulib_handler);

// SAFETY: it is only ever handed to C, which decides who uses it.
unsafe impl Send for HandlerPointer {}
// SAFETY: as above.
unsafe impl Sync for HandlerPointer {}

struct State {
    ring: Ring,
    /// By the address that C knows them by.
    commands: HashMap<usize, NonNull<InFlight>>,
    /// A broken ring was logged.
    broken: bool,
}

// SAFETY: the ring and its commands share the mapping by `Rc`s; all of these are in here, they are
// reached by the thread that holds the lock alone, and none leaves.
unsafe impl Send for State {}

// SAFETY: where the memory is mapped, which does not change.
unsafe impl Send for Queue {}
// SAFETY: all but the lock is constant.
unsafe impl Sync for Queue {}

/// A command that C has, with what its pointers point to.
#[repr(C)]
struct InFlight {
    /// C's pointer is the one to this.
    command: tcmulib_cmd,
    cdb: SmallVec<[u8; 16]>,
    iovecs: SmallVec<[iovec; 4]>,
    private: Vec<u128>,
    /// Keeps the data mapped.
    source: Command,
}

impl InFlight {
    /// Makes what C gets of a command, with memory of C's own.
    fn new(source: Command, private: Vec<u128>) -> NonNull<InFlight> {
        let command = tcmulib_cmd {
            cmd_id: source.id(),
            cdb: ptr::null_mut(),
            iovec: ptr::null_mut(),
            iov_cnt: 0,
            sense_buf: [0; SENSE_LEN],
            hm_private: ptr::null_mut(),
        };
        let cdb = SmallVec::from_slice(source.cdb());
        let iovecs = SmallVec::from_slice(source.data().iovecs());
        let in_flight = Box::new(InFlight { command, cdb, iovecs, private, source });
        let in_flight = NonNull::from(Box::leak(in_flight));
        let this = in_flight.as_ptr();
        // SAFETY: nobody else has it yet. The lists do not move or grow as long as it exists.
        unsafe {
            (*this).command.cdb = (*this).cdb.as_mut_ptr();
            (*this).command.iovec = (*this).iovecs.as_mut_ptr();
            (*this).command.iov_cnt = (*this).iovecs.len();
            if !(*this).private.is_empty() {
                (*this).command.hm_private = (*this).private.as_mut_ptr().cast();
            }
        }
        in_flight
    }
}

/// So many zeroed bytes, aligned for anything; `None` if there is no memory.
fn room(len: usize) -> Option<Vec<u128>> {
    let words = len.div_ceil(size_of::<u128>());
    let mut room = Vec::new();
    room.try_reserve_exact(words).ok()?;
    room.resize(words, 0);
    Some(room)
}

impl Queue {
    /// The commands of a ring.
    pub(crate) fn new(ring: Ring, configfs: configfs::Device, handler: HandlerPointer) -> Queue {
        Queue {
            configfs,
            handler,
            fd: ring.as_fd().as_raw_fd(),
            memory: ring.memory().map(|all| Memory { base: all.cast(), len: all.len() }),
            out_of_order: ring.flags() & CAP_OOOC != 0,
            state: Mutex::new(State { ring, commands: HashMap::new(), broken: false }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        self.configfs.path().display().to_string()
    }

    fn error(&self, text: &str) {
        log::log(Level::Error, None, "libtcmu", 0, &format!("{}: {text}", self.name()));
    }

    /// How many commands C has.
    pub(crate) fn in_flight(&self) -> usize {
        self.state().commands.len()
    }

    /// Takes the kernel's signal.
    pub(crate) fn start(&self) {
        if let Err(error) = self.state().ring.acknowledge() {
            self.error(&error.to_string());
        }
    }

    /// Tells the kernel of the completions.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.state().ring.kick() {
            self.error(&error.to_string());
        }
    }

    /// The next command, with so many bytes of C's own; null if there is none.
    pub(crate) fn next(&self, private_len: usize) -> *mut tcmulib_cmd {
        let mut state = self.state();
        while let Some(command) = self.read(&mut state) {
            let Some(private) = room(private_len) else {
                self.error(&format!("no memory for {private_len} bytes with a command"));
                self.complete_in(&mut state.ring, command.id(), &Response::BUSY);
                continue;
            };
            let in_flight = InFlight::new(command, private);
            let command = in_flight.as_ptr().cast::<tcmulib_cmd>();
            state.commands.insert(command.addr(), in_flight);
            return command;
        }
        ptr::null_mut()
    }

    /// The next command of the ring. One that is broken is started afresh as soon as no command is
    /// under way any more.
    fn read(&self, state: &mut State) -> Option<Command> {
        loop {
            match state.ring.next() {
                Ok(Some(Entry::Command(command))) => return Some(command),
                // The kernel has dealt with it; the commands that it is about end as any other.
                Ok(Some(Entry::Tmr(_))) => {}
                Ok(None) => return None,
                Err(error) => {
                    if !mem::replace(&mut state.broken, true) {
                        self.error(&format!("{error}; it is reset when its commands are done"));
                    }
                    if state.commands.is_empty() {
                        self.reset(state);
                    }
                    return None;
                }
            }
        }
    }

    /// Starts a broken ring afresh. The kernel signals again when there is a command.
    fn reset(&self, state: &mut State) {
        match state.ring.reset(&self.configfs) {
            Ok(()) => state.broken = false,
            Err(error) => self.error(&format!("the ring cannot be reset: {error}")),
        }
    }

    /// Completes a command of C's.
    pub(crate) fn complete(&self, command: *mut tcmulib_cmd, status: c_int) {
        if status == status::ASYNC_HANDLED {
            return;
        }
        let mut state = self.state();
        let Some(in_flight) = state.commands.remove(&command.addr()) else {
            drop(state);
            return self.error(&format!(
                "a command was completed that is not under way: {command:p}, status {status}"
            ));
        };
        // SAFETY: it was leaked by `InFlight::new`, and was taken from the table just now.
        let in_flight = unsafe { Box::from_raw(in_flight.as_ptr()) };
        let mut sense_buf = in_flight.command.sense_buf;
        let response = match status::answer(status) {
            Answer::Good => Response::GOOD,
            Answer::Busy => Response::BUSY,
            Answer::TaskSetFull => Response { status: TASK_SET_FULL, ..Response::GOOD },
            Answer::SenseBuffer => {
                Response { status: CHECK_CONDITION, sense: &sense_buf, read_len: None }
            }
            Answer::Sense { key, asc_ascq } => {
                // What was set of it, such as where data differ, belongs to the sense.
                sense::set(&mut sense_buf, key, asc_ascq);
                Response { status: CHECK_CONDITION, sense: &sense_buf, read_len: None }
            }
        };
        let id = in_flight.source.id();
        self.complete_in(&mut state.ring, id, &response);
    }

    fn complete_in(&self, ring: &mut Ring, id: u16, response: &Response<'_>) {
        if let Err(error) = ring.complete(id, response) {
            self.error(&error.to_string());
        }
    }
}

impl Owner for Queue {
    fn fd(&self) -> RawFd {
        self.fd
    }

    fn handler(&self) -> *mut tcmulib_handler {
        self.handler.0
    }

    fn memory(&self) -> Option<Memory> {
        self.memory
    }

    fn flush_ring(&self) {
        self.start();
        let mut state = self.state();
        while let Some(command) = self.read(&mut state) {
            self.complete_in(&mut state.ring, command.id(), &Response::BUSY);
        }
        drop(state);
        self.finish();
    }

    fn completes_out_of_order(&self) -> bool {
        self.out_of_order
    }
}

#[cfg(test)]
mod tests;
