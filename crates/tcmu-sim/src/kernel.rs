// SPDX-License-Identifier: Apache-2.0
//! The kernel's side of one ring.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tcmu::mailbox::{
    self, COMMAND_MIN_LEN, CommandRequest, CommandResponse, EntryHeader, HEADER_LEN, IOVECS_OFFSET,
    Iovec, MAILBOX_LEN, Mailbox, OP_CMD, OP_PAD, OP_TMR, SENSE_LEN, TMR_IDS_OFFSET, TmrRequest,
};
use tcmu::mapping::Mapping;
use tcmu::{Response, Ring};

/// What the shared memory is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of the ring in bytes; a multiple of 8.
    pub ring_size: u32,
    /// Blocks of the data area.
    pub blocks: usize,
    /// Their length in bytes; the kernel's are 4096.
    pub block_size: usize,
    /// `mailbox::CAP_*`.
    pub flags: u16,
    /// Whether the blocks of a command are apart from each other (else they follow each other
    /// where there is room, as in a kernel that was just started).
    pub scatter: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ring_size: (64 << 10) - 128,
            blocks: 256,
            block_size: 4096,
            flags: mailbox::CAP_OOOC | mailbox::CAP_READ_LEN | mailbox::CAP_TMR,
            scatter: true,
        }
    }
}

/// Errors of the stand-in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{0}: {1}")]
    System(&'static str, Errno),
    /// The memory cannot be mapped or used.
    #[error(transparent)]
    Tcmu(#[from] tcmu::Error),
    /// There is no room in the ring or in the data area until commands are completed.
    #[error("no room for the command")]
    Full,
    /// What the kernel says, before it takes no more completions until the ring is reset.
    #[error("cmd_id {0} not found, ring is broken")]
    Broken(u16),
    /// The tail is not where a slot begins; the kernel would run on over what lies there.
    #[error("cmd_tail {0} is not at a slot")]
    Tail(u32),
}

fn system(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::System(what, errno)
}

/// The data of a command.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// None.
    None,
    /// To the device.
    Out(&'a [u8]),
    /// From the device: this many bytes.
    In(usize),
}

/// A command that the daemon has completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which.
    pub id: u16,
    /// SAM-5 5.3.1.
    pub status: u8,
    /// Sense data.
    pub sense: [u8; SENSE_LEN],
    /// What the initiator gets of [`Data::In`].
    pub data: Vec<u8>,
    /// Whether the daemon did not know the entry's operation.
    pub unknown_op: bool,
}

/// What the daemon's side is made of; may be sent to its thread.
#[derive(Debug)]
pub struct Parts {
    fd: OwnedFd,
    map: Mapping,
}

impl Parts {
    /// The daemon's ring.
    pub fn ring(self) -> Result<Ring, tcmu::Error> {
        Ring::from_parts(self.fd, self.map)
    }
}

#[derive(Debug)]
struct Sent {
    blocks: Vec<usize>,
    data_in: usize,
}

/// The kernel's side of one ring.
#[derive(Debug)]
pub struct Kernel {
    map: Mapping,
    fd: OwnedFd,
    memory: OwnedFd,
    options: Options,
    head: u32,
    /// Up to where completions were taken.
    cleaned: u32,
    sent: BTreeMap<u16, Sent>,
    free_blocks: Vec<usize>,
    broken: Option<u16>,
}

const CMDR_OFF: u32 = 128;
const _: () = assert!(CMDR_OFF as usize == MAILBOX_LEN);

impl Kernel {
    /// A device with an empty ring, and what its daemon needs.
    pub fn new(options: &Options) -> Result<(Self, Parts), Error> {
        let len = Self::data_off(options) + options.blocks * options.block_size;
        let memory = memfd_create("tcmu-sim", MemfdFlags::CLOEXEC).map_err(system("memfd"))?;
        ftruncate(&memory, len as u64).map_err(system("ftruncate"))?;
        let map = Mapping::new(&memory, len)?;
        let mailbox = Mailbox {
            version: mailbox::VERSION.into(),
            flags: options.flags.into(),
            cmdr_off: CMDR_OFF.into(),
            cmdr_size: options.ring_size.into(),
            cmd_head: 0.into(),
            padding: [0; 48],
            cmd_tail: 0.into(),
        };
        map.put(0, &mailbox).ok_or(Error::Full)?;
        let (fd, parts) = Self::attach(&memory, len)?;
        // Taken from the end: every other block first, if they are to be scattered.
        let mut free_blocks: Vec<usize> = (0..options.blocks).rev().collect();
        if options.scatter {
            free_blocks.sort_by_key(|block| (block % 2 == 0, usize::MAX - block));
        }
        let kernel = Kernel {
            map,
            fd,
            memory,
            options: *options,
            head: 0,
            cleaned: 0,
            sent: BTreeMap::new(),
            free_blocks,
            broken: None,
        };
        Ok((kernel, parts))
    }

    fn attach(memory: &OwnedFd, len: usize) -> Result<(OwnedFd, Parts), Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(system("socketpair"))?;
        Ok((ours, Parts { fd: theirs, map: Mapping::new(memory, len)? }))
    }

    /// Another daemon opens the device, after the first one has died.
    pub fn reopen(&mut self) -> Result<Parts, Error> {
        let (fd, parts) = Self::attach(&self.memory, self.map.len())?;
        self.fd = fd;
        Ok(parts)
    }

    fn data_off(options: &Options) -> usize {
        (CMDR_OFF + options.ring_size) as usize
    }

    /// Where the next entry will be, in the ring.
    pub fn head(&self) -> u32 {
        self.head
    }

    /// How many commands are not completed.
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// The shared memory, to make mischief.
    pub fn memory(&self) -> &Mapping {
        &self.map
    }

    /// Where the ring is in the memory.
    pub fn ring_offset(&self) -> usize {
        CMDR_OFF as usize
    }

    /// Sends a command. Returns its id, the lowest that is free.
    pub fn send(&mut self, cdb: &[u8], data: Data<'_>) -> Result<u16, Error> {
        let (len, data_in) = match data {
            Data::None => (0, 0),
            Data::Out(bytes) => (bytes.len(), 0),
            Data::In(len) => (len, len),
        };
        let count = len.div_ceil(self.options.block_size);
        if count > self.free_blocks.len() {
            return Err(Error::Full);
        }
        let blocks = self.free_blocks.split_off(self.free_blocks.len() - count);
        let blocks: Vec<usize> = blocks.into_iter().rev().collect();
        if let Data::Out(bytes) = data {
            for (chunk, block) in bytes.chunks(self.options.block_size).zip(&blocks) {
                let _ = self.map.write(self.block_at(*block), chunk);
            }
        }
        let id = (1..=u16::MAX).find(|id| !self.sent.contains_key(id)).ok_or(Error::Full)?;
        let iovecs = self.iovecs(&blocks, len);
        match self.send_command(id, cdb, &iovecs) {
            Ok(()) => {
                self.sent.insert(id, Sent { blocks, data_in });
                self.notify();
                Ok(id)
            }
            Err(error) => {
                self.free_blocks.extend(blocks.iter().rev());
                Err(error)
            }
        }
    }

    /// Neighbouring blocks make one iovec, as in the kernel.
    fn iovecs(&self, blocks: &[usize], mut len: usize) -> Vec<Iovec> {
        let mut iovecs: Vec<Iovec> = Vec::new();
        for &block in blocks {
            let (base, part) = (self.block_at(block), len.min(self.options.block_size));
            len -= part;
            match iovecs.last_mut() {
                Some(last) if last.base + last.len == base => last.len += part,
                _ => iovecs.push(Iovec { base, len: part }),
            }
        }
        iovecs
    }

    fn block_at(&self, block: usize) -> usize {
        Self::data_off(&self.options) + block * self.options.block_size
    }

    fn send_command(&mut self, id: u16, cdb: &[u8], iovecs: &[Iovec]) -> Result<(), Error> {
        let base = (IOVECS_OFFSET + std::mem::size_of_val(iovecs)).max(COMMAND_MIN_LEN);
        let len = base + cdb.len().next_multiple_of(8);
        let at = self.reserve(len)?;
        let count = u32::try_from(iovecs.len()).map_err(|_| Error::Full)?;
        let request = CommandRequest {
            iov_cnt: count.into(),
            iov_bidi_cnt: 0.into(),
            iov_dif_cnt: 0.into(),
            padding: 0.into(),
            cdb_off: ((at + base) as u64).into(),
            reserved: [0.into(); 2],
        };
        let mut entry = vec![0; len];
        let mut put = |offset: usize, bytes: &[u8]| {
            entry[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(HEADER_LEN, as_bytes(&request));
        for (n, iovec) in iovecs.iter().enumerate() {
            put(IOVECS_OFFSET + n * size_of::<Iovec>(), as_bytes(iovec));
        }
        put(base, cdb);
        self.put_entry(OP_CMD, id, entry)
    }

    /// Tells of a task management function.
    pub fn send_tmr(&mut self, tmr_type: u8, ids: &[u16]) -> Result<(), Error> {
        let len = (TMR_IDS_OFFSET + size_of_val(ids)).next_multiple_of(8);
        self.reserve(len)?;
        let request = TmrRequest {
            tmr_type,
            padding: [0; 3],
            cmd_cnt: u32::try_from(ids.len()).map_err(|_| Error::Full)?.into(),
            reserved: [0.into(); 2],
        };
        let mut entry = vec![0; HEADER_LEN];
        entry.extend_from_slice(as_bytes(&request));
        entry.extend(ids.iter().flat_map(|id| id.to_ne_bytes()));
        entry.resize(len, 0);
        self.put_entry(OP_TMR, 0, entry)?;
        self.notify();
        Ok(())
    }

    /// Sends bytes as they are, as an entry that the kernel would not send. With `id`, the kernel
    /// expects a completion for it.
    pub fn send_raw(&mut self, entry: &[u8], id: Option<u16>) -> Result<(), Error> {
        let at = self.reserve(entry.len().next_multiple_of(8))?;
        self.map.write(at, entry).ok_or(Error::Full)?;
        let len = u32::try_from(entry.len().next_multiple_of(8)).map_err(|_| Error::Full)?;
        self.set_head((self.head + len) % self.options.ring_size);
        if let Some(id) = id {
            self.sent.insert(id, Sent { blocks: Vec::new(), data_in: 0 });
        }
        self.notify();
        Ok(())
    }

    /// Moves the head, to anywhere.
    pub fn set_head(&mut self, head: u32) {
        self.head = head;
        self.map.set_head(head);
    }

    /// Makes room for `len` contiguous bytes at the head, with a PAD if the ring's end is too
    /// near; returns where in the memory. The ring is never full to the brim: that would look
    /// empty.
    fn reserve(&mut self, len: usize) -> Result<usize, Error> {
        let size = self.options.ring_size;
        let free = ((self.cleaned + size - self.head - 8) % size) as usize;
        let to_end = (size - self.head) as usize;
        let pad = if to_end < len { to_end } else { 0 };
        if pad + len > free {
            return Err(Error::Full);
        }
        if pad > 0 {
            self.put_entry(OP_PAD, 0, vec![0; pad])?;
        }
        Ok((CMDR_OFF + self.head) as usize)
    }

    fn put_entry(&mut self, op: u32, id: u16, mut entry: Vec<u8>) -> Result<(), Error> {
        let len = u32::try_from(entry.len()).map_err(|_| Error::Full)?;
        let header =
            EntryHeader { len_op: (len | op).into(), cmd_id: id.into(), kflags: 0, uflags: 0 };
        entry[..HEADER_LEN].copy_from_slice(as_bytes(&header));
        self.map.write((CMDR_OFF + self.head) as usize, &entry).ok_or(Error::Full)?;
        self.set_head((self.head + len) % self.options.ring_size);
        Ok(())
    }

    /// Signals the daemon.
    pub fn notify(&self) {
        // Full: it has enough signals to wake up. Gone: nobody listens.
        let _ = write(&self.fd, &1u32.to_ne_bytes());
    }

    /// Waits for the daemon's signal; false after the time is over.
    pub fn wait(&self, time: Duration) -> Result<bool, Error> {
        let time = Timespec::try_from(time).map_err(|_| Error::System("poll", Errno::INVAL))?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&time)).map_err(system("poll"))? > 0)
    }

    /// How many signals the daemon has sent since this was last asked.
    pub fn take_kicks(&self) -> usize {
        let mut kicks = 0;
        while read(&self.fd, &mut [0; 8]).is_ok_and(|len| len == 4) {
            kicks += 1;
        }
        kicks
    }

    /// Takes the completions up to the tail, as the kernel does when it is signalled.
    pub fn take_completions(&mut self) -> Result<Vec<Completion>, Error> {
        self.take_kicks();
        let mut completions = Vec::new();
        if let Some(id) = self.broken {
            return Err(Error::Broken(id));
        }
        let tail = self.map.tail();
        while self.cleaned != tail {
            let at = (CMDR_OFF + self.cleaned) as usize;
            let header: EntryHeader = self.map.get(at).ok_or(Error::Tail(tail))?;
            let (op, len) = mailbox::split_len_op(header.len_op.get());
            let left = (tail + self.options.ring_size - self.cleaned) % self.options.ring_size;
            if len == 0 || len > left || !tail.is_multiple_of(8) {
                return Err(Error::Tail(tail));
            }
            if !matches!(op, OP_PAD | OP_TMR) {
                let id = header.cmd_id.get();
                let Some(sent) = self.sent.remove(&id) else {
                    self.broken = Some(id);
                    return Err(Error::Broken(id));
                };
                completions.push(self.completion(id, &header, at, sent)?);
            }
            self.cleaned = (self.cleaned + len) % self.options.ring_size;
        }
        Ok(completions)
    }

    fn completion(
        &mut self,
        id: u16,
        header: &EntryHeader,
        at: usize,
        sent: Sent,
    ) -> Result<Completion, Error> {
        let response: CommandResponse =
            self.map.get(at + HEADER_LEN).ok_or(Error::Broken(header.cmd_id.get()))?;
        let mut data = vec![0; sent.data_in];
        for (chunk, block) in data.chunks_mut(self.options.block_size).zip(&sent.blocks) {
            let _ = self.map.read(self.block_at(*block), chunk);
        }
        let read_len = response.read_len.get() as usize;
        let partial = header.uflags & mailbox::UFLAG_READ_LEN != 0 && read_len != 0;
        match response.status {
            _ if partial => data.truncate(read_len),
            0 => {}
            _ => data.clear(),
        }
        self.free_blocks.extend(sent.blocks.iter().rev());
        Ok(Completion {
            id,
            status: response.status,
            sense: response.sense,
            data,
            unknown_op: header.uflags & mailbox::UFLAG_UNKNOWN_OP != 0,
        })
    }

    /// Resets the ring: what is in flight ends with BUSY.
    pub fn reset_ring(&mut self) -> Vec<Completion> {
        let mut ended = Vec::new();
        for (id, sent) in std::mem::take(&mut self.sent) {
            self.free_blocks.extend(sent.blocks.iter().rev());
            ended.push(Completion {
                id,
                status: Response::BUSY.status,
                sense: [0; SENSE_LEN],
                data: Vec::new(),
                unknown_op: false,
            });
        }
        self.broken = None;
        self.cleaned = 0;
        self.map.set_tail(0);
        self.set_head(0);
        ended
    }
}

fn as_bytes<T: zerocopy::IntoBytes + zerocopy::Immutable>(value: &T) -> &[u8] {
    value.as_bytes()
}
