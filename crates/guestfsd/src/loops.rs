// SPDX-License-Identifier: Apache-2.0
//! A loop device from whoever makes the nodes of this machine (guestfs-novm), named by `GUESTFSD_LOOP`: a socket that
//! takes a file and answers with a device's path. The device is ours while the connection lasts, and while it is
//! mounted.

use guest_error::{Context, Errno, Error, Result};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The variable that names the socket.
const VARIABLE: &str = "GUESTFSD_LOOP";
/// Longest answer.
const MAX_ANSWER: usize = 4096;

/// Where to ask, if loop devices are not ours to attach.
pub(crate) fn broker() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// A device that stays attached at least as long as this value.
#[derive(Debug)]
pub(crate) struct Attached {
    device: PathBuf,
    _connection: UnixStream,
}

impl Attached {
    /// Has a file attached.
    pub(crate) fn new(broker: &Path, file: impl AsFd, read_only: bool) -> Result<Self> {
        let mut connection = UnixStream::connect(broker).on(broker)?;
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // There is space for one.
        control.push(SendAncillaryMessage::ScmRights(&files));
        let byte = if read_only { b"r" } else { b"w" };
        sendmsg(&connection, &[IoSlice::new(byte)], &mut control, SendFlags::NOSIGNAL)
            .on(broker)?;
        let answer = line(&mut connection).on(broker)?;
        if !answer.starts_with('/') {
            return Err(Error::new(Errno::EIO, format!("no loop device: {answer}")));
        }
        Ok(Self { device: answer.into(), _connection: connection })
    }

    /// Its path.
    pub(crate) fn device(&self) -> &Path {
        &self.device
    }
}

/// A line, without its end.
fn line(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut piece = [0; 512];
    while !text.ends_with(b"\n") {
        let n = stream.read(&mut piece)?;
        if n == 0 || text.len() + n > MAX_ANSWER {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&piece[..n]);
    }
    text.pop();
    Ok(String::from_utf8_lossy(&text).into_owned())
}
