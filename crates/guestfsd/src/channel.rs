// SPDX-License-Identifier: Apache-2.0
//! The byte stream between client and session: frames in, frames out.
//!
//! A channel is a socket, a virtio-serial port or a serial line. Reading goes through one buffer, from
//! which file chunks are taken without copying; a message is read into memory that grows only as its
//! bytes arrive. A frame that is none ends the channel: [`Closed::Garbage`].

use guestfs_api::frame::{self, Chunk};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use zeroize::Zeroize;

/// Bytes that are read at once; holds some thirty chunks.
const BUFFER: usize = 256 << 10;
/// A message's memory is kept for the next one up to this size.
const KEPT: usize = 256 << 10;
/// Longest frame of a chunk, without its length word.
const MAX_CHUNK_FRAME: usize = frame::CHUNK_HEAD - 4 + frame::MAX_CHUNK;

/// Why a channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    /// The client hung up between messages.
    #[error("client hung up")]
    End,
    /// The client hung up in the middle of something, or the channel broke.
    #[error("channel: {0}")]
    Io(#[from] io::Error),
    /// What the client sent is not part of the protocol.
    #[error("client breaks the protocol: {0}")]
    Garbage(String),
}

/// A channel to one client.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: File,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Set once the channel has failed: what is said afterwards would only mislead.
    broken: Option<Closed>,
    /// A file is on its way from the client.
    incoming: bool,
}

impl Channel {
    /// A channel over this descriptor.
    pub(crate) fn new(stream: OwnedFd) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let stream = stream.into();
        let (start, end, broken, incoming) = (0, 0, None, false);
        Self { stream, buffer, start, end, broken, incoming }
    }

    /// Says that the session is ready.
    pub(crate) fn launch(&mut self) -> Result<(), Closed> {
        self.send(&frame::LAUNCH.to_be_bytes())
    }

    /// Reads the next message. A stray cancellation (of a file that was already at its end when it
    /// was sent) is skipped.
    pub(crate) fn message(&mut self, message: &mut Vec<u8>) -> Result<(), Closed> {
        message.clear();
        message.shrink_to(KEPT);
        let len = loop {
            if self.start == self.end && self.fill_some()? == 0 {
                return Err(Closed::End);
            }
            match self.word()? {
                frame::CANCEL => {}
                len => break usize::try_from(len).unwrap_or(usize::MAX),
            }
        };
        if len > frame::MAX_MESSAGE {
            return Err(Closed::Garbage(format!("a message of {len} bytes")));
        }
        // At once, as far as that is safe: a key in it must not stay behind where it is moved from.
        message.reserve(len.min(KEPT));
        while message.len() < len {
            if self.start == self.end && self.fill_some()? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let n = (self.end - self.start).min(len - message.len());
            message.extend_from_slice(&self.buffer[self.start..self.start + n]);
            self.start += n;
        }
        Ok(())
    }

    /// Wipes what has been read: it had a key in it.
    pub(crate) fn wipe(&mut self) {
        self.buffer[..self.start].zeroize();
        self.buffer[self.end..].zeroize();
    }

    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The error that broke the channel while a call was being served, if one did.
    pub(crate) fn take_broken(&mut self) -> Option<Closed> {
        self.broken.take()
    }

    /// Remembers that the channel is broken.
    pub(crate) fn set_broken(&mut self, why: Closed) {
        self.broken.get_or_insert(why);
    }

    /// Whether a file is on its way from the client.
    pub(crate) fn incoming(&self) -> bool {
        self.incoming
    }

    /// Says whether a file is on its way from the client.
    pub(crate) fn set_incoming(&mut self, incoming: bool) {
        self.incoming = incoming;
    }

    /// Whether the client has asked that the file being sent to it be broken off.
    pub(crate) fn cancelled(&mut self) -> Result<bool, Closed> {
        if self.start == self.end {
            let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec::default())).map_err(io::Error::from)? == 0 {
                return Ok(false);
            }
        }
        match self.word()? {
            frame::CANCEL => Ok(true),
            other => Err(Closed::Garbage(format!("{other:#x} while it receives a file"))),
        }
    }

    /// The next chunk of the file that the client sends.
    pub(crate) fn chunk(&mut self) -> Result<Chunk<'_>, Closed> {
        let len = self.chunk_len()?;
        self.fill(len)?;
        let from = self.start;
        self.start += len;
        decode_chunk(&self.buffer[from..from + len])
    }

    /// Waits for chunks and hands the data of all that have arrived whole to `write`, as long as they
    /// carry data. Yields false at the end of the file, with `write` not called.
    ///
    /// The outer error is the channel's, the inner one that of `write`.
    pub(crate) fn chunks<E>(
        &mut self,
        write: impl FnOnce(&mut [IoSlice<'_>]) -> Result<(), E>,
    ) -> Result<Result<Arrived, E>, Closed> {
        let len = self.chunk_len()?;
        self.fill(len)?;
        match decode_chunk(&self.buffer[self.start..self.start + len])? {
            Chunk::Data(_) => {}
            Chunk::End => {
                self.start += len;
                return Ok(Ok(Arrived::End));
            }
            Chunk::Cancelled => {
                self.start += len;
                return Ok(Ok(Arrived::Cancelled));
            }
        }
        let mut slices = Vec::with_capacity(BUFFER / frame::MAX_CHUNK);
        let mut next = Some((decode_chunk(&self.buffer[self.start..self.start + len])?, len));
        let (mut at, mut bytes) = (self.start, 0);
        while let Some((Chunk::Data(data), len)) = next {
            slices.push(IoSlice::new(data));
            bytes += data.len() as u64;
            at += len;
            next = whole_chunk(&self.buffer[at..self.end])?;
        }
        let written = write(&mut slices);
        self.start = at;
        Ok(written.map(|()| Arrived::Data(bytes)))
    }

    /// Takes the length word of a chunk.
    fn chunk_len(&mut self) -> Result<usize, Closed> {
        let len = usize::try_from(self.word()?).unwrap_or(usize::MAX);
        if len > MAX_CHUNK_FRAME {
            return Err(Closed::Garbage(format!("a chunk of {len} bytes")));
        }
        Ok(len)
    }

    fn word(&mut self) -> Result<u32, Closed> {
        self.fill(4)?;
        let mut word = [0; 4];
        word.copy_from_slice(&self.buffer[self.start..self.start + 4]);
        self.start += 4;
        Ok(u32::from_be_bytes(word))
    }

    /// Waits until this many bytes, at most a chunk, are in the buffer.
    fn fill(&mut self, need: usize) -> Result<(), Closed> {
        while self.end - self.start < need {
            if self.fill_some()? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(())
    }

    /// Reads what there is; 0 is the end.
    fn fill_some(&mut self) -> Result<usize, Closed> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start <= MAX_CHUNK_FRAME + 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            if guest_fs::interrupt::requested() {
                return Err(Closed::End);
            }
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A virtio-serial port or a pty whose other end is gone.
                Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What came of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// So many bytes.
    Data(u64),
    /// Its end.
    End,
    /// The client broke it off.
    Cancelled,
}

fn decode_chunk(frame: &[u8]) -> Result<Chunk<'_>, Closed> {
    Chunk::decode(frame).map_err(|e| Closed::Garbage(format!("chunk of a file: {e}")))
}

/// The chunk at the beginning, if it is all there, and the length of its frame.
fn whole_chunk(buffer: &[u8]) -> Result<Option<(Chunk<'_>, usize)>, Closed> {
    let Some((word, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*word)).unwrap_or(usize::MAX);
    let Some(frame) = rest.get(..len) else { return Ok(None) };
    Ok(Some((decode_chunk(frame)?, 4 + len)))
}
