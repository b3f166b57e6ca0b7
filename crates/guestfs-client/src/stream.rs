// SPDX-License-Identifier: Apache-2.0
//! What a client needs of the connection.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

/// A connection to a daemon.
pub trait Stream: Read + Write {
    /// Whether something can be read at once. A client that cannot know sends a file to its end even
    /// if the daemon has long refused it; nothing else is lost.
    fn readable(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

macro_rules! descriptors {
    ($($t:ty),*) => {
        $(impl Stream for $t {
            fn readable(&mut self) -> io::Result<bool> {
                let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
                Ok(poll(&mut fds, Some(&Timespec::default()))? > 0)
            }
        })*
    };
}

descriptors!(std::os::unix::net::UnixStream, std::net::TcpStream, std::fs::File);
