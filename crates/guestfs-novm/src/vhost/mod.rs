// SPDX-License-Identifier: Apache-2.0
//! Virtio devices for User-Mode Linux, by the vhost-user protocol: UML connects to a socket and
//! hands over its memory and its rings, and a thread here is the device.
//!
//! What comes from UML is what a guest's kernel wrote. Memory and rings are those of the crates of
//! rust-vmm ([`ring`]), which check every address, index and length. The protocol is here: that of
//! the crate `vhost` refuses UML, whose SET_MEM_TABLE has room for two regions whatever their number.

pub mod block;
pub mod console;
pub mod ring;

use ring::{Memory, Ring};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

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
    /// How many rings it has.
    fn queues(&self) -> usize;
    /// Features beyond those of every device.
    fn features(&self) -> u64;
    /// Its configuration space.
    fn config(&self) -> Vec<u8>;
    /// What else it waits for now.
    fn wants(&self, rings: &[Ring]) -> Option<(BorrowedFd<'_>, PollFlags)>;
    /// Serves its rings: one was kicked, or what else it waits for is ready.
    ///
    /// # Errors
    /// Those that end the device.
    fn serve(&self, rings: &[Ring]) -> io::Result<()>;
}

/// Waits for UML and is its device until it hangs up.
///
/// # Errors
/// What ended the device before.
pub fn run(listener: &UnixListener, device: &dyn Device) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let memory = Memory::new(GuestMemoryMmap::new());
    let new = || Ring::new(memory.clone());
    let mut rings =
        std::iter::repeat_with(new).take(device.queues()).collect::<io::Result<Vec<_>>>()?;
    let mut front = FrontEnd { stream, memory, regions: Vec::new(), backend_requests: None };
    loop {
        let other = device.wants(&rings);
        let mut fds = vec![PollFd::new(&front.stream, PollFlags::IN)];
        fds.extend(
            rings.iter().filter_map(Ring::kick).map(|kick| PollFd::new(kick, PollFlags::IN)),
        );
        if let Some((other, flags)) = &other {
            fds.push(PollFd::new(other, *flags));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let message = !fds[0].revents().is_empty();
        let ready = fds[1..].iter().any(|fd| !fd.revents().is_empty());
        for (kick, fd) in rings.iter().filter_map(Ring::kick).zip(&fds[1..]) {
            if !fd.revents().is_empty() {
                // An eventfd, or a pipe: emptied either way.
                rustix::io::read(kick, &mut [0; 64]).ok();
            }
        }
        drop(fds);
        if message && !front.message(device, &mut rings)? {
            return Ok(());
        }
        if ready {
            device.serve(&rings)?;
        }
    }
}

/// A part of memory under the address that the front end has for it, which is how rings are named.
struct Region {
    user: u64,
    guest: u64,
    len: u64,
}

/// The connection to UML.
struct FrontEnd {
    stream: UnixStream,
    memory: Memory,
    regions: Vec<Region>,
    /// Kept open, for UML looks at its other end; nothing is sent.
    backend_requests: Option<OwnedFd>,
}

impl FrontEnd {
    /// Answers one message; false at the end of the connection.
    fn message(&mut self, device: &dyn Device, rings: &mut [Ring]) -> io::Result<bool> {
        let mut head = [0; 12];
        let Some(mut fds) = self.receive(&mut head)? else { return Ok(false) };
        let [request, flags, len] = [0, 4, 8].map(|at| word(&head, at));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_BODY {
            return Err(invalid("a message of vhost-user is too long"));
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        let reply = self.answer(request, &body, &mut fds, device, rings)?;
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
        rings: &mut [Ring],
    ) -> io::Result<Option<Vec<u8>>> {
        let number = |n: u64| Some(n.to_le_bytes().to_vec());
        let mut first = || if fds.is_empty() { None } else { Some(fds.remove(0)) };
        Ok(match request {
            request::GET_FEATURES => number(FEATURES | device.features()),
            request::GET_PROTOCOL_FEATURES => number(PROTOCOL_FEATURES),
            request::SET_MEM_TABLE => {
                self.set_memory(body, fds)?;
                None
            }
            request::SET_VRING_NUM => {
                ring(rings, word(body, 0))?.set_size(word(body, 4))?;
                None
            }
            request::SET_VRING_BASE => {
                ring(rings, word(body, 0))?.set_base(word(body, 4));
                None
            }
            request::GET_VRING_BASE => {
                let index = word(body, 0);
                let base = ring(rings, index)?.stop();
                Some([index.to_le_bytes(), u32::from(base).to_le_bytes()].concat())
            }
            request::SET_VRING_ADDR => {
                let [descriptors, used, available] =
                    [8, 16, 24].map(|at| self.guest_address(long(body, at)));
                let ring = ring(rings, word(body, 0))?;
                ring.set_addresses(descriptors?, available?, used?)?;
                None
            }
            request::SET_VRING_KICK => {
                ring(rings, word(body, 0))?.set_kick(first());
                None
            }
            request::SET_VRING_CALL => {
                ring(rings, word(body, 0))?.set_call(first());
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
                let head = body.get(..12).ok_or_else(|| invalid("a message is too short"))?;
                Some([head, part].concat())
            }
            // Owner, features, errors, enabling: there is nothing to do.
            _ => None,
        })
    }

    /// Maps the guest's memory: a number of regions, then of each its address for the guest, its
    /// length, its address for the front end, and where it is in its file.
    fn set_memory(&mut self, body: &[u8], fds: &mut Vec<OwnedFd>) -> io::Result<()> {
        let count = usize::try_from(word(body, 0)).unwrap_or(usize::MAX);
        if count > fds.len() || count > MAX_FDS {
            return Err(invalid("a region of memory has no descriptor"));
        }
        let (mut regions, mut mapped) = (Vec::new(), Vec::new());
        for (i, fd) in fds.drain(..count).enumerate() {
            let [guest, len, user, offset] = [0, 1, 2, 3].map(|n| long(body, 8 + 32 * i + 8 * n));
            let bytes = usize::try_from(len).map_err(io::Error::other)?;
            let file = FileOffset::new(fd.into(), offset);
            let region = MmapRegion::from_file(file, bytes).map_err(io::Error::other)?;
            let region = GuestRegionMmap::new(region, GuestAddress(guest));
            mapped.push(region.ok_or_else(|| invalid("a region beyond the last address"))?);
            regions.push(Region { user, guest, len });
        }
        let memory = GuestMemoryMmap::from_regions(mapped).map_err(io::Error::other)?;
        let lock = self.memory.lock();
        lock.map_err(|_| io::Error::other("memory: a thread panicked"))?.replace(memory);
        self.regions = regions;
        Ok(())
    }

    /// The guest's address of what the front end has at this one.
    fn guest_address(&self, user: u64) -> io::Result<u64> {
        let found = self.regions.iter().find_map(|region| {
            let within = user.checked_sub(region.user).filter(|n| *n < region.len)?;
            region.guest.checked_add(within)
        });
        found.ok_or_else(|| invalid("a ring is outside of memory"))
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
fn ring(rings: &mut [Ring], number: u32) -> io::Result<&mut Ring> {
    let index = usize::try_from(number & 0xFF).unwrap_or(usize::MAX);
    rings.get_mut(index).ok_or_else(|| invalid("there is no such ring"))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A 32-bit number; what is missing is zero.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
