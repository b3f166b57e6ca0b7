// SPDX-License-Identifier: Apache-2.0
//! Frames: what goes over the channel, outside of arguments and results.
//!
//! A frame begins with a big-endian word. It is one of the flags ([`LAUNCH`], [`CANCEL`],
//! [`PROGRESS`]) or the length of what follows: a message ([`Header`] and body) or, while a file is
//! being sent, a chunk ([`Chunk`]).
//!
//! A call is answered by one message. Files follow their call (FileIn) or their reply (FileOut) as
//! chunks; an empty chunk ends a file, a chunk marked as cancelled breaks it off. A receiver that
//! wants no more sends [`CANCEL`], and the sender answers with a cancelled chunk.

use crate::xdr::{Decoder, Encoder, Error};
use std::ffi::OsString;

/// Sent by the server when it is ready to serve.
pub const LAUNCH: u32 = 0xf5f5_5ff5;
/// The receiver of a file wants no more of it.
pub const CANCEL: u32 = 0xffff_eeee;
/// A [`Progress`] follows.
pub const PROGRESS: u32 = 0xffff_5555;

/// Program number of every message.
pub const PROGRAM: u32 = 0x2000_f5f5;
/// Version of the protocol.
pub const VERSION: u32 = 4;
/// Direction of a call.
pub const DIRECTION_CALL: u32 = 0;
/// Direction of a reply.
pub const DIRECTION_REPLY: u32 = 1;
/// Status of a call and of a reply that is not an error.
pub const STATUS_OK: u32 = 0;
/// Status of a reply that is an error: its body is an [`ErrorBody`].
pub const STATUS_ERROR: u32 = 1;

/// Most bytes that a message has, without the length word.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Most bytes of data in a chunk.
pub const MAX_CHUNK: usize = 8192;
/// Bytes of a [`Header`].
pub const HEADER_LEN: usize = 40;
/// Bytes before a chunk's data: length word, cancellation, length of the data.
pub const CHUNK_HEAD: usize = 12;
/// Most bytes of an error's text.
pub const MAX_ERROR: usize = 65_536;
/// Most bytes of an error's errno name.
const MAX_ERRNO_NAME: usize = 32;

/// Head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`PROGRAM`].
    pub program: u32,
    /// [`VERSION`].
    pub version: u32,
    /// Number of the procedure.
    pub procedure: u32,
    /// [`DIRECTION_CALL`] or [`DIRECTION_REPLY`].
    pub direction: u32,
    /// The caller's number for this call; a reply repeats it.
    pub serial: u32,
    /// In a call: what the whole is worth in progress messages, such as an upload's size; or 0.
    pub progress_hint: u64,
    /// In a call: which optional arguments were given.
    pub optargs_bitmask: u64,
    /// [`STATUS_OK`] or [`STATUS_ERROR`].
    pub status: u32,
}

impl Header {
    /// Head of a call.
    pub fn call(procedure: u32, serial: u32, progress_hint: u64, optargs_bitmask: u64) -> Self {
        Self {
            program: PROGRAM,
            version: VERSION,
            procedure,
            direction: DIRECTION_CALL,
            serial,
            progress_hint,
            optargs_bitmask,
            status: STATUS_OK,
        }
    }

    /// Head of the reply to a call.
    pub fn reply(procedure: u32, serial: u32, status: u32) -> Self {
        Self { direction: DIRECTION_REPLY, status, ..Self::call(procedure, serial, 0, 0) }
    }

    /// Appends the head.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        for word in [self.program, self.version, self.procedure, self.direction, self.serial] {
            e.u32(word);
        }
        e.u64(self.progress_hint);
        e.u64(self.optargs_bitmask);
        e.u32(self.status);
    }

    /// Takes the head off a message. Checks nothing but its length.
    pub fn decode(d: &mut Decoder<'_>) -> Result<Self, Error> {
        Ok(Self {
            program: d.u32()?,
            version: d.u32()?,
            procedure: d.u32()?,
            direction: d.u32()?,
            serial: d.u32()?,
            progress_hint: d.u64()?,
            optargs_bitmask: d.u64()?,
            status: d.u32()?,
        })
    }
}

/// Body of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// Name of the errno, such as `ENOENT`; empty when there is none.
    pub errno: OsString,
    /// What went wrong.
    pub message: OsString,
}

impl ErrorBody {
    /// Appends an error, its text cut to what the protocol allows; a NUL in it becomes `?`.
    pub fn encode(errno: &str, message: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut end = message.len().min(MAX_ERROR);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message: Vec<u8> =
            message.as_bytes()[..end].iter().map(|&b| if b == 0 { b'?' } else { b }).collect();
        let mut e = Encoder::new(out);
        e.string(errno)?;
        e.string(&message)
    }

    /// Takes an error off a message.
    pub fn decode(d: &mut Decoder<'_>) -> Result<Self, Error> {
        let errno = d.string()?;
        if errno.len() > MAX_ERRNO_NAME {
            return Err(Error::TooLong(errno.len()));
        }
        Ok(Self { errno: errno.to_owned(), message: d.string()?.to_owned() })
    }
}

/// How far a call has got; follows the word [`PROGRESS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Number of the procedure.
    pub procedure: u32,
    /// The call's serial number.
    pub serial: u32,
    /// Where it is, in the unit of `total`.
    pub position: u64,
    /// Where it ends. While the end is not known: position 0 of 1.
    pub total: u64,
}

impl Progress {
    /// Bytes of the message, without the word.
    pub const LEN: usize = 24;

    /// Appends the word and the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        e.u32(PROGRESS);
        e.u32(self.procedure);
        e.u32(self.serial);
        e.u64(self.position);
        e.u64(self.total);
    }

    /// Takes a message, without its word, off the front.
    pub fn decode(d: &mut Decoder<'_>) -> Result<Self, Error> {
        Ok(Self { procedure: d.u32()?, serial: d.u32()?, position: d.u64()?, total: d.u64()? })
    }
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Some of its bytes.
    Data(&'a [u8]),
    /// It ends here.
    End,
    /// Its sender breaks it off.
    Cancelled,
}

impl<'a> Chunk<'a> {
    /// Reads a frame's contents (without the length word) as a chunk.
    pub fn decode(frame: &'a [u8]) -> Result<Self, Error> {
        let mut d = Decoder::new(frame);
        let cancelled = d.bool()?;
        let data = d.opaque()?;
        Ok(match (cancelled, data) {
            _ if data.len() > MAX_CHUNK => return Err(Error::TooLong(data.len())),
            (true, _) => Self::Cancelled,
            (false, []) => Self::End,
            (false, data) => Self::Data(data),
        })
    }

    /// Appends the chunk as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let data = match self {
            Self::Data(data) => data,
            Self::End | Self::Cancelled => &[][..],
        };
        out.extend_from_slice(&chunk_head(data.len(), *self == Self::Cancelled));
        Encoder::new(out).fixed(data);
    }
}

/// What comes before a chunk's data: length word, cancellation, length of the data.
///
/// `len` is at most [`MAX_CHUNK`].
pub fn chunk_head(len: usize, cancelled: bool) -> [u8; CHUNK_HEAD] {
    let len = u32::try_from(len.min(MAX_CHUNK)).unwrap_or(0);
    let mut head = [0; CHUNK_HEAD];
    head[..4].copy_from_slice(&(8 + len.next_multiple_of(4)).to_be_bytes());
    head[7] = u8::from(cancelled);
    head[8..].copy_from_slice(&len.to_be_bytes());
    head
}

/// Reads bytes as everything that a frame can be: for `fuzz/`.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) {
    let d = Decoder::new(bytes);
    if let Ok(header) = Header::decode(&mut d.clone()) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert!(bytes.starts_with(&again), "what was read can be said again");
    }
    ErrorBody::decode(&mut d.clone()).ok();
    Progress::decode(&mut d.clone()).ok();
    if let Ok(Chunk::Data(data)) = Chunk::decode(bytes) {
        assert!(data.len() <= MAX_CHUNK, "a chunk's data has its limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_forty_bytes_and_survives_the_wire() {
        let header = Header::call(522, 0x123400, 1 << 33, 5);
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(bytes[..8], [0x20, 0, 0xf5, 0xf5, 0, 0, 0, 4]);
        assert_eq!(Header::decode(&mut Decoder::new(&bytes)).unwrap(), header);
    }

    #[test]
    fn chunks_survive_the_wire() {
        for chunk in [Chunk::Data(b"abcde"), Chunk::End, Chunk::Cancelled] {
            let mut bytes = Vec::new();
            chunk.encode(&mut bytes);
            let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            assert_eq!(len, bytes.len() - 4);
            assert_eq!(Chunk::decode(&bytes[4..]).unwrap(), chunk);
        }
    }

    #[test]
    fn a_chunk_of_more_than_8_kib_is_refused() {
        let mut frame = vec![0, 0, 0, 0, 0, 0, 0x20, 0x04];
        frame.resize(8 + 0x2004, 1);
        assert_eq!(Chunk::decode(&frame), Err(Error::TooLong(0x2004)));
    }

    #[test]
    fn an_errors_text_is_cut_at_a_character_and_freed_of_nul() {
        let long = "é".repeat(MAX_ERROR);
        let mut bytes = Vec::new();
        ErrorBody::encode("EIO", &format!("a\0{long}"), &mut bytes).unwrap();
        let body = ErrorBody::decode(&mut Decoder::new(&bytes)).unwrap();
        let text = body.message.to_str().unwrap();
        assert!(text.starts_with("a?é") && text.len() <= MAX_ERROR);
    }
}
