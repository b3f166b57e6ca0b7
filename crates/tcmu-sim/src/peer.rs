// SPDX-License-Identifier: Apache-2.0
//! The kernel's end of a netlink socket.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tcmu::Netlink;
use tcmu::netlink::{Event, wire};

/// What the family is numbered here.
const FAMILY: u16 = 0x1d;

/// Sends events and takes replies.
#[derive(Debug)]
pub struct Peer {
    fd: OwnedFd,
}

impl Peer {
    /// A peer and the daemon's end.
    pub fn new() -> io::Result<(Self, Netlink)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Peer { fd: ours }, Netlink::from_stand_in(theirs, FAMILY)))
    }

    /// Sends an event.
    pub fn send(&self, event: &Event) -> io::Result<()> {
        self.send_raw(&wire::event(FAMILY, event))
    }

    /// Sends a datagram as it is.
    pub fn send_raw(&self, datagram: &[u8]) -> io::Result<()> {
        write(&self.fd, datagram)?;
        Ok(())
    }

    /// The next reply; `None` if none comes in time.
    pub fn reply(&self, time: Duration) -> io::Result<Option<wire::Reply>> {
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        if poll(&mut fds, Some(&time))? == 0 {
            return Ok(None);
        }
        let mut buffer = [0; 4096];
        let len = read(&self.fd, &mut buffer)?;
        match buffer.get(..len).and_then(|bytes| wire::parse_reply(bytes, FAMILY)) {
            Some(reply) => Ok(Some(reply)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "not a reply")),
        }
    }
}
