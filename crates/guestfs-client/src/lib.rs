// SPDX-License-Identifier: Apache-2.0
//! A synchronous client of the guestfs protocol, generated from the table of procedures.
//!
//! [`Client`] speaks to a daemon over any byte stream and has one method for each procedure. Files
//! are sent from anything that is `Read` and received into anything that is `Write`; an error of
//! theirs cancels the call. Over TCP daemons speak TLS only ([`TlsStream`]).
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let stream = std::os::unix::net::UnixStream::connect("/run/guestfsd.sock")?;
//! let mut client = guestfs_client::Client::new(stream);
//! client.wait_for_launch()?;
//! client.mount("/dev/sda1", "/")?;
//! client.download("/etc/os-release", &mut std::io::stdout())?;
//! # Ok(())
//! # }
//! ```

mod stream;
mod tls;

pub use guestfs_tls::Directory;
pub use stream::Stream;
pub use tls::TlsStream;

use guest_error::Errno;
use guestfs_api::frame::{self, Chunk, ErrorBody, Header, Progress};
use guestfs_api::xdr::{self, Decoder, Encoder};
use guestfs_api::{Call, Kind, Procedure, Wire, args, options, structs};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke.
    #[error("connection to the daemon: {0}")]
    Io(#[from] io::Error),
    /// The daemon sent something that is not part of the protocol.
    #[error("daemon breaks the protocol: {0}")]
    Protocol(String),
    /// A value cannot be sent, or the daemon's cannot be read.
    #[error("value on the wire: {0}")]
    Xdr(#[from] xdr::Error),
    /// The daemon answered with an error.
    #[error("{message}")]
    Daemon {
        /// Name of the errno, such as `ENOENT`; empty when there is none.
        errno: String,
        /// What went wrong.
        message: String,
    },
    /// The caller's own file failed; the call was cancelled.
    #[error("cancelled by its caller: {0}")]
    Cancelled(io::Error),
    /// The daemon broke off a file that it was sending.
    #[error("daemon broke off the file")]
    BrokenOff,
}

impl Error {
    /// The error number that the daemon answered with.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Daemon { errno, .. } => Errno::from_name(errno),
            _ => None,
        }
    }
}

/// The client's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What a client does with progress messages.
type OnProgress = Box<dyn FnMut(Progress)>;

/// How the sending of a file ended.
enum Sent {
    Whole,
    RefusedByDaemon,
    FailedAtSource(io::Error),
}

/// A connection to a daemon.
pub struct Client<S> {
    stream: S,
    serial: u32,
    progress_hint: u64,
    on_progress: Option<OnProgress>,
    out: Vec<u8>,
}

impl<S: Stream> Client<S> {
    /// Speaks to the daemon over this stream.
    pub fn new(stream: S) -> Self {
        Self { stream, serial: 0, progress_hint: 0, on_progress: None, out: Vec::new() }
    }

    /// Waits until the daemon says that it is ready.
    pub fn wait_for_launch(&mut self) -> Result<()> {
        match self.word()? {
            frame::LAUNCH => Ok(()),
            other => Err(Error::Protocol(format!("{other:#x} in the place of the launch flag"))),
        }
    }

    /// Hands progress messages to this function from now on.
    pub fn on_progress(&mut self, f: impl FnMut(Progress) + 'static) {
        self.on_progress = Some(Box::new(f));
    }

    /// What the next call's progress goes up to, such as an upload's size in bytes.
    pub fn set_progress_hint(&mut self, total: u64) {
        self.progress_hint = total;
    }

    /// The stream, to send what no method sends.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Sends a call; yields its procedure's number.
    pub fn call<'a, C: Call<'a>>(&mut self, call: &C) -> Result<u32> {
        self.send(C::NUMBER, call.optargs_bitmask(), |out| call.encode(&mut Encoder::new(out)))
    }

    /// Sends a call's head, and the body that `encode` appends.
    fn send(
        &mut self,
        number: u32,
        mask: u64,
        encode: impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), xdr::Error>,
    ) -> Result<u32> {
        self.serial = self.serial.wrapping_add(1);
        let hint = std::mem::take(&mut self.progress_hint);
        self.out.clear();
        self.out.extend_from_slice(&[0; 4]);
        Header::call(number, self.serial, hint, mask).encode(&mut self.out);
        encode(&mut self.out)?;
        let len = self.out.len() - 4;
        if len > frame::MAX_MESSAGE {
            return Err(xdr::Error::TooLong(len).into());
        }
        let word = u32::try_from(len).map_err(|_| xdr::Error::TooLong(len))?;
        self.out[..4].copy_from_slice(&word.to_be_bytes());
        self.stream.write_all(&self.out)?;
        Ok(number)
    }

    /// Makes a call of the table whose arguments are encoded already, and yields its result as it comes over the
    /// wire. Files are sent from `source` and received into `sink`.
    pub fn perform(
        &mut self,
        procedure: &Procedure,
        arguments: &[u8],
        source: &mut dyn Read,
        sink: &mut dyn Write,
    ) -> Result<Vec<u8>> {
        let has = |kind| procedure.args.iter().any(|a| a.kind == kind);
        self.send(procedure.number, 0, |out| {
            out.extend_from_slice(arguments);
            Ok(())
        })?;
        if has(Kind::FileIn) {
            let sent = self.send_file(source)?;
            return self.reply_after_file(procedure.number, sent);
        }
        let result = self.reply(procedure.number)?;
        if has(Kind::FileOut) {
            self.receive_file(procedure.number, sink)?;
        }
        Ok(result)
    }

    /// Waits for the reply to the last call and yields its body, or the daemon's error.
    pub fn reply(&mut self, number: u32) -> Result<Vec<u8>> {
        let message = loop {
            match self.word()? {
                frame::PROGRESS => self.progress()?,
                // The daemon wanted no more of a file that has been sent to its end meanwhile.
                frame::CANCEL => {}
                len => break self.frame(len)?,
            }
        };
        let mut d = Decoder::new(&message);
        let header = Header::decode(&mut d)?;
        let expected = Header { status: header.status, ..Header::reply(number, self.serial, 0) };
        if header != expected {
            return Err(Error::Protocol(format!("{header:?} in the place of {expected:?}")));
        }
        match header.status {
            frame::STATUS_OK => Ok(d.rest().to_vec()),
            _ => {
                let body = ErrorBody::decode(&mut d)?;
                Err(Error::Daemon {
                    errno: body.errno.to_string_lossy().into_owned(),
                    message: body.message.to_string_lossy().into_owned(),
                })
            }
        }
    }

    fn reply_after_file(&mut self, number: u32, sent: Sent) -> Result<Vec<u8>> {
        match (sent, self.reply(number)) {
            (Sent::FailedAtSource(e), Ok(_) | Err(Error::Daemon { .. })) => {
                Err(Error::Cancelled(e))
            }
            (Sent::RefusedByDaemon, Ok(_)) => {
                Err(Error::Protocol("daemon refused the file but not the call".to_owned()))
            }
            (_, reply) => reply,
        }
    }

    /// Sends a file's contents, until the source ends or fails or the daemon wants no more.
    fn send_file(&mut self, source: &mut dyn Read) -> Result<Sent> {
        let mut data = [0; frame::MAX_CHUNK];
        loop {
            if self.stream.readable()? {
                match self.word()? {
                    frame::PROGRESS => self.progress()?,
                    frame::CANCEL => {
                        self.chunk(Chunk::Cancelled)?;
                        return Ok(Sent::RefusedByDaemon);
                    }
                    other => {
                        return Err(Error::Protocol(format!(
                            "{other:#x} while it receives a file"
                        )));
                    }
                }
            }
            match source.read(&mut data) {
                Ok(0) => {
                    self.chunk(Chunk::End)?;
                    return Ok(Sent::Whole);
                }
                Ok(n) => self.chunk(Chunk::Data(&data[..n]))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.chunk(Chunk::Cancelled)?;
                    return Ok(Sent::FailedAtSource(e));
                }
            }
        }
    }

    fn chunk(&mut self, chunk: Chunk<'_>) -> Result<()> {
        self.out.clear();
        chunk.encode(&mut self.out);
        Ok(self.stream.write_all(&self.out)?)
    }

    /// Receives a file's contents; when the sink fails, has the daemon stop and waits until it has.
    fn receive_file(&mut self, _number: u32, sink: &mut dyn Write) -> Result<()> {
        let mut failed = None;
        loop {
            let frame = match self.word()? {
                frame::PROGRESS => {
                    self.progress()?;
                    continue;
                }
                len => self.frame(len)?,
            };
            match (Chunk::decode(&frame)?, &failed) {
                (Chunk::Data(data), None) => {
                    if let Err(e) = sink.write_all(data) {
                        failed = Some(e);
                        self.stream.write_all(&frame::CANCEL.to_be_bytes())?;
                    }
                }
                (Chunk::Data(_), Some(_)) => {}
                (Chunk::End, None) => return Ok(()),
                (Chunk::Cancelled, None) => return Err(Error::BrokenOff),
                (Chunk::End | Chunk::Cancelled, Some(_)) => break,
            }
        }
        failed.map_or(Ok(()), |e| Err(Error::Cancelled(e)))
    }

    fn progress(&mut self) -> Result<()> {
        let mut bytes = [0; Progress::LEN];
        self.stream.read_exact(&mut bytes)?;
        let progress = Progress::decode(&mut Decoder::new(&bytes))?;
        if let Some(f) = &mut self.on_progress {
            f(progress);
        }
        Ok(())
    }

    fn word(&mut self) -> Result<u32> {
        let mut word = [0; 4];
        self.stream.read_exact(&mut word)?;
        Ok(u32::from_be_bytes(word))
    }

    fn frame(&mut self, len: u32) -> Result<Vec<u8>> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > frame::MAX_MESSAGE {
            return Err(Error::Protocol(format!("a message of {len} bytes")));
        }
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

include!(concat!(env!("OUT_DIR"), "/stubs.rs"));
