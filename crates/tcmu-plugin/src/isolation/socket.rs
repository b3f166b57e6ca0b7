// SPDX-License-Identifier: Apache-2.0
//! Sockets of two processes that keep messages apart, and carry descriptors.
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};

use super::wire::{MAX_MESSAGE, Wire};

/// The most descriptors of one message.
const MAX_FDS: usize = 2;

/// One end.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// A message as it came.
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) fds: Vec<OwnedFd>,
}

impl Socket {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
        let kind = SocketType::SEQPACKET;
        let ends = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((Socket(ends.0), Socket(ends.1)))
    }

    /// The end that a descriptor is.
    pub(crate) fn new(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    /// Sends a message, with descriptors. Where it would have to `wait` for the other end to read,
    /// and may not, it fails.
    pub(crate) fn send(
        &self,
        message: &impl Wire,
        fds: &[BorrowedFd<'_>],
        wait: bool,
    ) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(256);
        message.put(&mut bytes);
        if bytes.len() > MAX_MESSAGE {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, !wait);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// The next message; `None` when the other end is gone.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Packet<'a>>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let into = &mut [IoSliceMut::new(buffer)];
            match rustix::net::recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?,
            }
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let bytes = buffer.get(..received.bytes).unwrap_or_default();
        Ok((!bytes.is_empty()).then_some(Packet { bytes, fds }))
    }

    /// The next message if it is there already, without descriptors: the kernel drops what comes
    /// with it. Its length is 0 when the other end is gone.
    pub(crate) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let room = buffer.len();
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, flags) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::CONNRESET) => return Ok(Some(0)),
                Ok((_, len)) if len > room => {
                    return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
                }
                received => return Ok(Some(received?.1)),
            }
        }
    }

    /// Ends it for both.
    pub(crate) fn shut(&self) {
        // One that is not connected any more is shut.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::decode;
    use super::*;

    #[test]
    fn messages_and_descriptors_come_as_they_were_sent() {
        let (a, b) = Socket::pair().unwrap();
        let (c, d) = Socket::pair().unwrap();
        a.send(&7u64, &[c.as_fd()], true).unwrap();
        a.send(&"text".to_owned(), &[], true).unwrap();
        let mut buffer = [0; 64];
        let packet = b.receive(&mut buffer).unwrap().unwrap();
        assert_eq!((decode::<u64>(packet.bytes), packet.fds.len()), (Some(7), 1));
        let c = Socket::new(packet.fds.into_iter().next().unwrap());
        let packet = b.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(decode::<String>(packet.bytes).as_deref(), Some("text"));
        c.send(&1u8, &[], true).unwrap();
        assert_eq!(d.receive_now(&mut buffer).unwrap(), Some(1));
        assert_eq!(d.receive_now(&mut buffer).unwrap(), None);
        drop(a);
        assert!(b.receive(&mut buffer).unwrap().is_none());
        assert_eq!(b.receive_now(&mut buffer).unwrap(), Some(0));
        assert!(b.send(&1u8, &[], true).is_err());
    }

    #[test]
    fn what_is_too_long_is_an_error_on_both_ends() {
        let (a, b) = Socket::pair().unwrap();
        assert!(a.send(&"x".repeat(MAX_MESSAGE), &[], true).is_err());
        a.send(&"x".repeat(100), &[], true).unwrap();
        a.send(&"x".repeat(100), &[], true).unwrap();
        assert!(b.receive(&mut [0; 64]).is_err());
        assert!(b.receive_now(&mut [0; 64]).is_err());
    }

    #[test]
    fn a_socket_that_nobody_reads_does_not_keep_who_may_not_wait() {
        let (a, _b) = Socket::pair().unwrap();
        let text = "x".repeat(1000);
        let error = (0..10_000).find_map(|_| a.send(&text, &[], false).err());
        assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::EAGAIN));
    }
}
