// SPDX-License-Identifier: Apache-2.0
//! The command ring of one device: commands and task management notices come out, responses go in.
//!
//! # How the kernel uses the ring
//! The kernel appends entries at `cmd_head` and signals the UIO descriptor. It takes completions
//! when we write to that descriptor (in the context of our `write(2)`): it walks the slots from
//! where it last stopped up to `cmd_tail`, by the lengths in their headers. It skips PAD
//! and TMR slots; for any other slot it looks up the `cmd_id` in it and completes that command with
//! the response in the slot. A `cmd_id` that it does not know means "ring is broken":
//! the device takes no completions until its ring is reset. A command that exceeded
//! `cmd_time_out` was already failed towards the initiator, but its id and memory are kept until
//! we complete it. So such a late completion does no harm, and is still required.
//!
//! # Completing out of order With [`CAP_OOOC`](crate::mailbox::CAP_OOOC), a completion goes to the
//! slot at the tail, whichever command that slot was for, with the header's `cmd_id` replaced. This
//! is safe for us because a command is copied out when it is read (CDB and iovecs; the data stay in
//! the data area), and because there are never more completions than commands read.
//!
//! It has a price: from then on the slots between tail and head no longer describe the commands
//! that are in flight. A successor after kill -9 that went on at `cmd_tail` would do some
//! commands again, answer them with ids that the kernel has forgotten, and break the ring. So a
//! device whose ring is not empty when it is opened has to be reset ([`Ring::reset`]): new commands
//! are blocked, the kernel ends those in flight with BUSY so that the initiators send them again,
//! head and tail become 0, the device is unblocked. A kernel without `action/reset_ring` cannot
//! do this: there the ring must stay in order (the default here), and a successor may go on at
//! `cmd_tail`, doing again what was in flight. In order, the tail is published with each
//! completion, not once per batch, to keep the moment short in which the slot at the tail is
//! already a response.
//!
//! # Memory
//! A [`Command`] keeps the memory mapped, and so the device open: it may outlive the [`Ring`].
//! After a reset the kernel reuses the data area, so [`Ring::reset`] refuses while commands of
//! this process still exist; a process that died has let go of its memory when the device can be
//! opened again, since the kernel waits for its I/O (io_uring included) before it unmaps.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;

#[cfg(not(loom))]
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::{Errno, read, retry_on_intr, write};
use smallvec::SmallVec;

#[cfg(not(loom))]
use crate::UioDevice;
use crate::mailbox::{
    self, ALIGN, COMMAND_MIN_LEN, CommandResponse, EntryHeader, HEADER_LEN, MAILBOX_LEN, Mailbox,
    OP_CMD, OP_PAD, OP_TMR, SENSE_LEN, TMR_IDS_OFFSET, TmrRequest,
};
use crate::mapping::Mapping;
use crate::{Error, configfs};

mod entry;
pub use entry::{Command, Entry, Response, Tmr, TmrKind};

/// The ring of one device. There is one per device, in one thread.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    map: Rc<Mapping>,
    flags: u16,
    /// Where the ring is in the memory, and how long.
    cmdr_off: usize,
    size: u32,
    /// `cmd_head` as last seen; entries up to it are there.
    head: u32,
    /// The next entry to read. Tail, fetch, head: in this order around the ring.
    fetch: u32,
    /// The first slot that is not completed.
    tail: u32,
    /// The tail at the last kick.
    kicked: u32,
    /// The slots from `tail` to `fetch`; the first, if any, is a command's.
    slots: VecDeque<Slot>,
    /// Their length together.
    taken: u32,
    in_flight: IdSet,
    out_of_order: bool,
    /// In order: responses that wait for earlier ones.
    held: HashMap<u16, Held>,
    leftovers: bool,
    broken: Option<String>,
}

/// One or more neighbouring entries that were read and not yet completed.
#[derive(Debug)]
struct Slot {
    len: u32,
    /// `None`: PAD, TMR and the like, which are skipped.
    id: Option<u16>,
}

#[derive(Debug)]
struct Held {
    status: u8,
    read_len: Option<u32>,
    sense: SmallVec<[u8; 32]>,
}

impl Ring {
    /// Opens the device, and takes it: a second opener gets [`Error::Busy`]. The ring starts in
    /// order; see [`Ring::set_out_of_order`].
    ///
    /// The descriptor does not report what was there before it was opened: call [`Ring::next`]
    /// until it has nothing before the first wait.
    #[cfg(not(loom))]
    pub fn open(device: &UioDevice) -> Result<Self, Error> {
        let path = &device.path;
        // The kernel allows one opener of the device; the lock also holds off those who
        // would open another node of it, and stand-ins for the device.
        let fd = open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
            .map_err(|errno| match errno {
                Errno::BUSY => Error::Busy(path.clone()),
                errno => Error::io("open", path)(errno.into()),
            })?;
        flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => Error::Busy(path.clone()),
            errno => Error::io("lock", path)(errno.into()),
        })?;
        let map = Mapping::new(&fd, device.size)?;
        Self::from_parts(fd, map)
    }

    /// A ring in `map` whose other side is signalled by writing four bytes to `fd`, which is
    /// nonblocking, and signals us by making it readable.
    pub fn from_parts(fd: OwnedFd, map: Mapping) -> Result<Self, Error> {
        let mailbox: Mailbox =
            map.get(0).ok_or_else(|| Error::Mailbox("the memory is too short".into()))?;
        let version = mailbox.version.get();
        if version != mailbox::VERSION {
            return Err(Error::Mailbox(format!(
                "version {version}; this program speaks version {}",
                mailbox::VERSION
            )));
        }
        let (offset, size) = (mailbox.cmdr_off.get(), mailbox.cmdr_size.get());
        let cmdr_off = offset as usize;
        let in_memory = cmdr_off.checked_add(size as usize).is_some_and(|end| end <= map.len());
        let aligned = offset.is_multiple_of(ALIGN) && size.is_multiple_of(ALIGN);
        if !in_memory || !aligned || cmdr_off < MAILBOX_LEN || (size as usize) < COMMAND_MIN_LEN {
            return Err(Error::Mailbox(format!(
                "a ring of {size} bytes at {offset} in {} bytes of memory",
                map.len()
            )));
        }
        let mut ring = Ring {
            fd,
            map: Rc::new(map),
            flags: mailbox.flags.get(),
            cmdr_off,
            size,
            head: 0,
            fetch: 0,
            tail: 0,
            kicked: 0,
            slots: VecDeque::new(),
            taken: 0,
            in_flight: IdSet::default(),
            out_of_order: false,
            held: HashMap::new(),
            leftovers: false,
            broken: None,
        };
        ring.rewind();
        Ok(ring)
    }

    /// Takes head and tail from the mailbox, with nothing in flight.
    fn rewind(&mut self) {
        self.slots.clear();
        self.taken = 0;
        self.held.clear();
        self.in_flight = IdSet::default();
        self.broken = None;
        let tail = self.map.tail();
        (self.head, self.fetch, self.tail, self.kicked) = (tail, tail, tail, tail);
        self.leftovers = self.map.head() != tail;
        if !self.is_position(tail) {
            self.broken = Some(format!("cmd_tail is {tail} in a ring of {} bytes", self.size));
        }
    }

    fn is_position(&self, offset: u32) -> bool {
        offset < self.size && offset.is_multiple_of(ALIGN)
    }

    /// The mailbox's flags, `mailbox::CAP_*`.
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// The memory of the device, as long as this ring or a command of it exists.
    pub fn memory(&self) -> Option<NonNull<[u8]>> {
        let len = self.map.len();
        Some(NonNull::slice_from_raw_parts(self.map.piece(0, len)?, len))
    }

    /// Whether there were entries when the ring was opened: commands that a predecessor left in
    /// flight, or that came while nobody served the device.
    pub fn has_leftovers(&self) -> bool {
        self.leftovers
    }

    /// How many commands were read and not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len
    }

    /// Asks for completion out of order (or in order), which needs `CAP_OOOC`; returns what is in
    /// effect. Only ask for it if the ring can be reset ([`configfs::Device::can_reset_ring`]): see
    /// the module's text. Changes nothing while entries are in flight.
    pub fn set_out_of_order(&mut self, wanted: bool) -> bool {
        if self.slots.is_empty() {
            self.out_of_order = wanted && self.flags & mailbox::CAP_OOOC != 0;
        }
        self.out_of_order
    }

    /// The next entry, if there is one. Entries that are malformed are answered here, with a
    /// warning, and not seen by the caller: call [`Ring::kick`] even when there was nothing.
    ///
    /// An error means that the ring cannot be read further; commands in flight may still be
    /// completed. It stays so until [`Ring::reset`].
    #[allow(clippy::should_implement_trait, reason = "an iterator would borrow the ring")]
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(reason) = &self.broken {
                return Err(Error::Broken(reason.clone()));
            }
            if self.fetch == self.head {
                let head = self.map.head();
                if !self.is_position(head) {
                    let size = self.size;
                    return Err(self
                        .declare_broken(format!("cmd_head is {head} in a ring of {size} bytes")));
                }
                if head == self.fetch {
                    return Ok(None);
                }
                self.head = head;
            }
            if let Some(entry) = self.read_entry()? {
                return Ok(Some(entry));
            }
        }
    }

    fn declare_broken(&mut self, reason: String) -> Error {
        self.broken = Some(reason.clone());
        Error::Broken(reason)
    }

    /// Reads the entry at `fetch`, which is not `head`; `None` if there is nothing to do for it.
    fn read_entry(&mut self) -> Result<Option<Entry>, Error> {
        let at = self.cmdr_off + self.fetch as usize;
        let end = if self.head > self.fetch { self.head } else { self.size };
        let room = end - self.fetch;
        let Some(header) = self.map.get::<EntryHeader>(at) else {
            return Err(self.declare_broken("an entry lies outside of the memory".into()));
        };
        let (op, len) = mailbox::split_len_op(header.len_op.get());
        if len == 0 || len > room {
            let fetch = self.fetch;
            return Err(self.declare_broken(format!(
                "the entry at {fetch} is {len} bytes long; there are {room}"
            )));
        }
        // A full ring would look empty, so the head never catches up with the tail.
        if u64::from(self.taken) + u64::from(len) >= u64::from(self.size) {
            let tail = self.tail;
            return Err(self.declare_broken(format!("cmd_head has overrun cmd_tail {tail}")));
        }
        let id = header.cmd_id.get();
        if op == OP_CMD {
            // Every command's slot has to hold a response, be it another command's.
            if (len as usize) < COMMAND_MIN_LEN {
                return Err(self.declare_broken(format!(
                    "command {id} has {len} bytes: no room for a response"
                )));
            }
            if !self.in_flight.insert(id) {
                return Err(self.declare_broken(format!("command {id} came twice")));
            }
            self.pass(len, Some(id));
            return match entry::read_command(&self.map, self.data_off(), at, len as usize, id) {
                Ok(command) => Ok(Some(Entry::Command(command))),
                Err(reason) => {
                    tracing::warn!("command {id} is malformed and fails: {reason}");
                    self.complete(id, &Response::INTERNAL_FAILURE)?;
                    Ok(None)
                }
            };
        }
        let mut found = None;
        match op {
            OP_PAD => {}
            OP_TMR => match self.read_tmr(at, len as usize) {
                Some(tmr) => found = Some(Entry::Tmr(tmr)),
                None => tracing::warn!("a malformed task management entry is skipped"),
            },
            _ => {
                tracing::warn!("an entry of the unknown operation {op} is skipped");
                let marked =
                    EntryHeader { uflags: header.uflags | mailbox::UFLAG_UNKNOWN_OP, ..header };
                self.put(at, &marked)?;
            }
        }
        self.pass(len, None);
        self.retire();
        Ok(found)
    }

    fn data_off(&self) -> usize {
        self.cmdr_off + self.size as usize
    }

    fn read_tmr(&self, at: usize, len: usize) -> Option<Tmr> {
        let request: TmrRequest =
            self.map.get(at + HEADER_LEN).filter(|_| len >= TMR_IDS_OFFSET)?;
        let count = request.cmd_cnt.get() as usize;
        if count > (len - TMR_IDS_OFFSET) / size_of::<u16>() {
            return None;
        }
        let ids = (0..count)
            .map(|n| self.map.get::<u16>(at + TMR_IDS_OFFSET + n * size_of::<u16>()))
            .collect::<Option<_>>()?;
        Some(Tmr { kind: TmrKind::from(request.tmr_type), ids })
    }

    /// Moves `fetch` over an entry and remembers its slot.
    fn pass(&mut self, len: u32, id: Option<u16>) {
        self.fetch = self.after(self.fetch, len);
        self.taken += len;
        match self.slots.back_mut() {
            // One slot for neighbours keeps the list short whatever the ring is filled with.
            Some(last) if id.is_none() && last.id.is_none() => last.len += len,
            _ => self.slots.push_back(Slot { len, id }),
        }
    }

    /// `offset` moved on by `len`; both are at most the ring's size.
    fn after(&self, offset: u32, len: u32) -> u32 {
        let end = u64::from(offset) + u64::from(len);
        let end = if end >= u64::from(self.size) { end - u64::from(self.size) } else { end };
        u32::try_from(end).unwrap_or(0)
    }

    /// Moves the tail over slots at it that need no completion.
    fn retire(&mut self) {
        while let Some(&Slot { len, id: None }) = self.slots.front() {
            self.slots.pop_front();
            self.free(len);
        }
    }

    /// Moves the tail over a slot.
    fn free(&mut self, len: u32) {
        self.tail = self.after(self.tail, len);
        self.taken -= len;
    }

    /// Answers a command. The kernel learns of it with [`Ring::kick`].
    pub fn complete(&mut self, id: u16, response: &Response<'_>) -> Result<(), Error> {
        if !self.in_flight.remove(id) {
            return Err(Error::UnknownCommand(id));
        }
        if self.out_of_order {
            return self.respond(id, response);
        }
        if self.slots.front().is_none_or(|slot| slot.id != Some(id)) {
            let sense = response.sense.iter().take(SENSE_LEN).copied().collect();
            let Response { status, read_len, .. } = *response;
            self.held.insert(id, Held { status, read_len, sense });
            return Ok(());
        }
        self.respond(id, response)?;
        while let Some(Slot { id: Some(id), .. }) = self.slots.front() {
            let id = *id;
            let Some(Held { status, read_len, sense }) = self.held.remove(&id) else { break };
            self.respond(id, &Response { status, read_len, sense: &sense })?;
        }
        Ok(())
    }

    /// Writes a response in the slot at the tail.
    fn respond(&mut self, id: u16, response: &Response<'_>) -> Result<(), Error> {
        let at = self.cmdr_off + self.tail as usize;
        let Some(Slot { len, id: Some(_) }) = self.slots.pop_front() else {
            return Err(
                self.declare_broken(format!("there is no slot to complete command {id} in"))
            );
        };
        let read_len = response.read_len.filter(|_| self.flags & mailbox::CAP_READ_LEN != 0);
        let uflags = if read_len.is_some() { mailbox::UFLAG_READ_LEN } else { 0 };
        let [low, high] = id.to_ne_bytes();
        self.put(at + 4, &[low, high, 0, uflags])?;
        let mut answer = CommandResponse {
            status: response.status,
            padding: [0; 3],
            read_len: read_len.unwrap_or(0).into(),
            sense: [0; SENSE_LEN],
        };
        for (to, from) in answer.sense.iter_mut().zip(response.sense) {
            *to = *from;
        }
        self.put(at + HEADER_LEN, &answer)?;
        self.free(len);
        self.retire();
        if !self.out_of_order {
            self.map.set_tail(self.tail);
        }
        Ok(())
    }

    fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        at: usize,
        value: &T,
    ) -> Result<(), Error> {
        let outside = || Error::Broken("a slot lies outside of the memory".into());
        self.map.put(at, value).ok_or_else(outside)
    }

    /// Publishes the completions and tells the kernel, if there are any since the last time. Once
    /// per batch: it is a system call, in which the kernel completes the commands. An error (EIO)
    /// means that the device is gone.
    pub fn kick(&mut self) -> Result<(), Error> {
        if self.tail == self.kicked {
            return Ok(());
        }
        self.map.set_tail(self.tail);
        match retry_on_intr(|| write(&self.fd, &[0; 4])) {
            // A stand-in's queue of signals is full: it has not looked at earlier ones yet.
            Ok(_) | Err(Errno::AGAIN) => {
                self.kicked = self.tail;
                Ok(())
            }
            Err(errno) => Err(Error::channel("signal the kernel")(errno)),
        }
    }

    /// Takes the signal that made the descriptor readable, so that the next wait waits. To be
    /// called before [`Ring::next`], so that no signal is lost. An error (EIO) means that the
    /// device is gone.
    pub fn acknowledge(&self) -> Result<(), Error> {
        match retry_on_intr(|| read(&self.fd, &mut [0; 4])) {
            Ok(0) => Err(Error::channel("wait for the kernel")(io::ErrorKind::UnexpectedEof)),
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Error::channel("wait for the kernel")(errno)),
        }
    }

    /// Starts the ring afresh: the kernel ends all commands in it with BUSY, so that initiators
    /// send them again. For a ring with leftovers, or a broken one. Every [`Command`] of this ring
    /// has to be gone (their I/O may still write to memory that gets a new use), otherwise
    /// [`Error::CommandsInFlight`]. New commands wait in the kernel meanwhile; should unblocking
    /// fail, the error says so, and they wait until somebody writes 0 to `action/block_dev`.
    pub fn reset(&mut self, device: &configfs::Device) -> Result<(), Error> {
        let users = Rc::strong_count(&self.map) - 1;
        if users > 0 {
            return Err(Error::CommandsInFlight(users));
        }
        device.block()?;
        let reset = device.reset_ring(configfs::ResetRing::Retry);
        if reset.is_ok() {
            self.rewind();
        }
        let unblocked = device.unblock();
        reset.and(unblocked)
    }
}

impl AsFd for Ring {
    /// Readable when there may be entries; poll it, then [`Ring::acknowledge`]. Also in error when
    /// the device is gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A set of command ids: a bit each, grown on demand to 8 KiB at most.
#[derive(Debug, Default)]
struct IdSet {
    words: Vec<u64>,
    len: usize,
}

impl IdSet {
    /// False if it was there.
    fn insert(&mut self, id: u16) -> bool {
        let word = usize::from(id) / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.toggle(id, false);
        self.len += usize::from(fresh);
        fresh
    }

    /// False if it was not there.
    fn remove(&mut self, id: u16) -> bool {
        let found = self.toggle(id, true);
        self.len -= usize::from(found);
        found
    }

    /// Flips the bit if it is as `set` says; whether it was.
    fn toggle(&mut self, id: u16, set: bool) -> bool {
        let bit = 1u64 << (id % 64);
        match self.words.get_mut(usize::from(id) / 64) {
            Some(word) if (*word & bit != 0) == set => {
                *word ^= bit;
                true
            }
            _ => false,
        }
    }
}
