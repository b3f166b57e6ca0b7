// SPDX-License-Identifier: Apache-2.0
//! Waiting until /dev says what the kernel says: a socket at which process 1 does what has to be done
//! before it hangs up. The daemon asks there, and `udevadm` does, which is this program.

use crate::error::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd};
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};

/// Where the socket is.
pub(crate) const SOCKET: &str = "/run/guestfs-novm.sock";
/// The variable that tells the daemon.
pub(crate) const VARIABLE: &str = "GUESTFSD_SETTLE";

/// The socket that is listened at.
#[derive(Debug)]
pub(crate) struct Settle(UnixListener);

impl Settle {
    /// Listens.
    pub(crate) fn listen() -> Result<Self> {
        let socket = UnixListener::bind(SOCKET).on(SOCKET)?;
        socket.set_nonblocking(true).on(SOCKET)?;
        Ok(Self(socket))
    }

    /// All who ask now.
    pub(crate) fn asking(&self) -> Vec<UnixStream> {
        std::iter::from_fn(|| self.0.accept().ok()).map(|(stream, _)| stream).collect()
    }
}

impl AsFd for Settle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What `udevadm` does here, with any arguments: it waits.
pub(crate) fn wait() -> std::io::Result<()> {
    UnixStream::connect(SOCKET)?.read_to_end(&mut Vec::new()).map(drop)
}
