//! Virtio devices for User-Mode Linux, by the vhost-user protocol: UML connects to a socket, hands over
//! its memory and its rings, and a thread here is the device.
//!
//! What comes from UML is what a guest's kernel wrote: every address, index and length is checked
//! ([`memory`], [`queue`]), and one that is wrong ends the device.

pub mod block;
pub mod console;
pub mod memory;
pub mod queue;

use memory::{Memory, Region};
use queue::Queue;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};

/// Requests of the front end.
mod request {
    pub(super) const GET_FEATURES: u32 = 1;
    pub(super) const SET_MEM_TABLE: u32 = 5;
    pub(super) const SET_VRING_NUM: u32 = 8;
    pub(super) const SET_VRING_ADDR: u32 = 9;
    pub(super) const SET_VRING_BASE: u32 = 10;
    pub(super) const GET_VRING_BASE: u32 = 11;
    pub(super) const SET_VRING_KICK: u32 = 12;
    pub(super) const SET_VRING_CALL: u32 = 13;
    pub(super) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(super) const SET_BACKEND_REQ_FD: u32 = 21;
    pub(super) const GET_CONFIG: u32 = 24;
}

/// VIRTIO_F_VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 30;
/// CONFIG; and BACKEND_REQ, without which UML sets up no interrupt.
const PROTOCOL_FEATURES: u64 = 1 << 9 | 1 << 5;
/// Flags of a message: version 1; it is a reply; a reply is wanted.
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;
/// Longest body of a message.
const MAX_BODY: usize = 4096;
/// Most descriptors with a message.
const MAX_FDS: usize = 8;

/// What a device does.
pub trait Device {
    /// Features beyond those of every device.
    fn features(&self) -> u64;
    /// How many rings it has.
    fn queues(&self) -> usize;
    /// Its configuration space.
    fn config(&self) -> Vec<u8>;
    /// What else it waits for.
    fn wants(&self, memory: &Memory, queues: &[Queue]) -> (Option<BorrowedFd<'_>>, PollFlags);
    /// Serves a ring that was kicked, or (none) what else it waits for, which is ready like this.
    fn serve(
        &mut self,
        memory: &Memory,
        queues: &mut [Queue],
        kicked: Option<usize>,
        ready: PollFlags,
    ) -> io::Result<()>;
}

/// Waits for UML and is its device until it hangs up.
pub fn run(listener: &UnixListener, device: &mut dyn Device) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let mut queues: Vec<Queue> =
        std::iter::repeat_with(Queue::default).take(device.queues()).collect();
    let mut front = FrontEnd { stream, memory: Memory::default(), backend_requests: None };
    loop {
        let (other, flags) = device.wants(&front.memory, &queues);
        let mut fds = vec![PollFd::new(&front.stream, PollFlags::IN)];
        let kicks: Vec<usize> = (0..queues.len()).filter(|i| queues[*i].kick.is_some()).collect();
        for i in &kicks {
            if let Some(kick) = &queues[*i].kick {
                fds.push(PollFd::new(kick, PollFlags::IN));
            }
        }
        if let Some(other) = &other {
            fds.push(PollFd::new(other, flags));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if !ready[0].is_empty() && !front.message(device, &mut queues)? {
            return Ok(());
        }
        for (i, ready) in kicks.iter().zip(&ready[1..]) {
            if ready.is_empty() {
                continue;
            }
            if let Some(kick) = &queues[*i].kick {
                // An eventfd, or a pipe: emptied either way.
                rustix::io::read(kick, &mut [0; 64]).ok();
            }
            device.serve(&front.memory, &mut queues, Some(*i), PollFlags::empty())?;
        }
        let other = ready.get(1 + kicks.len()).copied().unwrap_or(PollFlags::empty());
        if !other.is_empty() {
            device.serve(&front.memory, &mut queues, None, other)?;
        }
    }
}

/// The connection to UML.
struct FrontEnd {
    stream: UnixStream,
    memory: Memory,
    /// Kept open, for UML looks at its other end; nothing is sent.
    backend_requests: Option<OwnedFd>,
}

impl FrontEnd {
    /// Answers one message; false at the end of the connection.
    fn message(&mut self, device: &dyn Device, queues: &mut [Queue]) -> io::Result<bool> {
        let mut head = [0; 12];
        let Some(mut fds) = self.receive(&mut head)? else { return Ok(false) };
        let [request, flags, len] = [0, 4, 8].map(|at| word(&head, at));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_BODY {
            return Err(invalid("a message of vhost-user is too long"));
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        let reply = self.answer(request, &body, &mut fds, device, queues)?;
        let reply = match reply {
            None if flags & NEED_REPLY != 0 => Some(0u64.to_le_bytes().to_vec()),
            reply => reply,
        };
        if let Some(reply) = reply {
            let len = u32::try_from(reply.len()).map_err(io::Error::other)?;
            let mut message = [request, VERSION | REPLY, len].map(u32::to_le_bytes).concat();
            message.extend_from_slice(&reply);
            self.stream.write_all(&message)?;
        }
        Ok(true)
    }

    fn answer(
        &mut self,
        request: u32,
        body: &[u8],
        fds: &mut Vec<OwnedFd>,
        device: &dyn Device,
        queues: &mut [Queue],
    ) -> io::Result<Option<Vec<u8>>> {
        let number = |n: u64| Some(n.to_le_bytes().to_vec());
        let mut first = || if fds.is_empty() { None } else { Some(fds.remove(0)) };
        Ok(match request {
            request::GET_FEATURES => number(FEATURES | device.features()),
            request::GET_PROTOCOL_FEATURES => number(PROTOCOL_FEATURES),
            request::SET_MEM_TABLE => {
                let regions = usize::try_from(word(body, 0)).unwrap_or(usize::MAX);
                if regions > fds.len() || regions > MAX_FDS {
                    return Err(invalid("a region of memory has no descriptor"));
                }
                let mut mapped = Vec::new();
                for (i, fd) in fds.drain(..regions).enumerate() {
                    let at = |field: usize| long(body, 8 + 32 * i + 8 * field);
                    mapped.push(Region::map(fd, at(0), at(1), at(2), at(3))?);
                }
                self.memory = Memory::new(mapped);
                None
            }
            request::SET_VRING_NUM => {
                ring(queues, word(body, 0))?.set_size(word(body, 4))?;
                None
            }
            request::SET_VRING_BASE => {
                ring(queues, word(body, 0))?.set_base(word(body, 4));
                None
            }
            request::GET_VRING_BASE => {
                let index = word(body, 0);
                let base = ring(queues, index)?.base();
                Some([index.to_le_bytes(), base.to_le_bytes()].concat())
            }
            request::SET_VRING_ADDR => {
                let queue = ring(queues, word(body, 0))?;
                queue.set_addresses(long(body, 8), long(body, 16), long(body, 24));
                None
            }
            request::SET_VRING_KICK => {
                ring(queues, word(body, 0))?.kick = first();
                None
            }
            request::SET_VRING_CALL => {
                ring(queues, word(body, 0))?.call = first();
                None
            }
            request::SET_BACKEND_REQ_FD => {
                self.backend_requests = first();
                None
            }
            request::GET_CONFIG => {
                let (offset, len) = (word(body, 0), word(body, 4));
                let mut config = device.config();
                config.resize(MAX_BODY, 0);
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let to = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
                let part =
                    config.get(from..to).ok_or_else(|| invalid("outside of the configuration"))?;
                Some([&body[..12], part].concat())
            }
            // Owner, features, errors, enabling: there is nothing to do.
            _ => None,
        })
    }

    /// Fills the buffer and takes the descriptors that come with its first byte; none at the end.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Vec<OwnedFd>>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
        if got.bytes == 0 {
            return Ok(None);
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        self.stream.read_exact(&mut buffer[got.bytes..])?;
        Ok(Some(fds))
    }
}

/// The ring of this number.
fn ring(queues: &mut [Queue], number: u32) -> io::Result<&mut Queue> {
    let index = usize::try_from(number & 0xFF).unwrap_or(usize::MAX);
    queues.get_mut(index).ok_or_else(|| invalid("there is no such ring"))
}

pub(crate) fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A 32-bit number; what is missing is zero.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
