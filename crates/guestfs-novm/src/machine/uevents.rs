// SPDX-License-Identifier: Apache-2.0
//! The kernel's announcements of devices.

use crate::error::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
};

/// A socket at which block devices are announced.
#[derive(Debug)]
pub(crate) struct Uevents(OwnedFd);

impl Uevents {
    /// Listens. Announcements go to network namespaces of the first user namespace only.
    pub(crate) fn listen() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::KOBJECT_UEVENT);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)
            .on("uevents of the kernel")?;
        // The kernel's own group; what udev has made of them goes to another.
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 1)).on("uevents of the kernel")?;
        Ok(Self(socket))
    }

    /// Reads all that there is; whether any was about a block device, or some were lost.
    pub(crate) fn any_block(&self) -> bool {
        let mut message = [0; 8192];
        let mut found = false;
        loop {
            match recv(&self.0, &mut message, RecvFlags::empty()) {
                Ok((_, n)) => {
                    let message = &message[..n.min(message.len())];
                    found |= message.split(|b| *b == 0).any(|word| word == b"SUBSYSTEM=block");
                }
                Err(rustix::io::Errno::NOBUFS) => found = true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return found,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
