// SPDX-License-Identifier: Apache-2.0
//! The connection to an NBD server: negotiation, then one request after the other.

use super::{Address, Server};
use crate::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long connecting and negotiating may take.
const NEGOTIATION: Duration = Duration::from_secs(20);
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(60);
/// Most bytes of a request; servers that say nothing take 32 MiB.
const MAX_REQUEST: u32 = 1 << 20;
/// Most bytes that are made zeroes at once: a server may have to write them, in time.
const MAX_ZEROES: u32 = 32 << 20;
/// Most bytes of an answer to an option, and most answers.
const MAX_ANSWER: u32 = 64 << 10;
const MAX_ANSWERS: usize = 64;

// Negotiation.
const MAGIC: u64 = 0x4E42_444D_4147_4943;
const NEWSTYLE: u64 = 0x4948_4156_454F_5054;
const ANSWER: u64 = 0x0003_E889_0455_65A9;
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_GO: u32 = 7;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;
const ACK: u32 = 1;
const INFO: u32 = 3;
/// Answers that are errors, and what they mean.
const UNSUPPORTED: u32 = 1 << 31 | 1;
const REFUSALS: &[(u32, &str)] = &[
    (1 << 31 | 2, "the server's policy forbids it"),
    (1 << 31 | 3, "the server says that the request is invalid"),
    (1 << 31 | 5, "the server wants TLS, which is not supported"),
    (1 << 31 | 6, "the server has no such export"),
    (1 << 31 | 7, "the server is shutting down"),
    (1 << 31 | 8, "the server wants block sizes to be kept to"),
];

// Transmission.
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const WRITE_ZEROES: u16 = 6;
/// A flag of `WRITE_ZEROES`: no holes.
const NO_HOLE: u16 = 1 << 1;
/// What an export can do.
const READ_ONLY: u16 = 1 << 1;
const CAN_FLUSH: u16 = 1 << 2;
const CAN_WRITE_ZEROES: u16 = 1 << 6;
/// Errors that a server may answer with: the numbers are Linux's.
const ERRORS: &[i32] = &[
    libc::EPERM,
    libc::EIO,
    libc::ENOMEM,
    libc::EINVAL,
    libc::ENOSPC,
    libc::EOVERFLOW,
    libc::EOPNOTSUPP,
    libc::ESHUTDOWN,
];

/// A result with an errno.
type Done = std::result::Result<(), i32>;

/// An export that is connected to.
#[derive(Debug)]
pub struct Nbd {
    name: String,
    size: u64,
    flags: u16,
    /// Most bytes of a request.
    max: u32,
    /// None once it has failed.
    connection: RefCell<Option<Connection>>,
    /// Something was written since the last flush.
    dirty: Cell<bool>,
}

/// What is known of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Export {
    size: u64,
    flags: u16,
    /// Smallest and largest block, where the server has said them.
    blocks: Option<(u32, u32)>,
}

impl Nbd {
    /// Connects. Requests are for whole sectors of `sector` bytes.
    pub fn connect(server: &Server, read_only: bool, sector: u32) -> Result<Self> {
        let name = server.to_string();
        let refused = |why: String| Error::image(&name, why);
        let stream = Stream::connect(&server.address);
        let stream = stream.map_err(|e| refused(format!("{e}: is the NBD server running?")))?;
        let mut connection =
            Connection { stream, deadline: Instant::now() + NEGOTIATION, cookie: 0 };
        let export = negotiate(&mut connection, &server.export)
            .map_err(|e| refused(format!("negotiation with the NBD server: {e}")))?;
        if export.flags & READ_ONLY != 0 && !read_only {
            return Err(refused(
                "the NBD server has it read-only: have it allow writing; what is added read-only, libguestfs puts \
                 below an overlay, which cannot lie on an NBD server"
                    .into(),
            ));
        }
        let (min, max) = export.blocks.unwrap_or((1, MAX_REQUEST));
        if min > sector {
            return Err(refused(format!(
                "the NBD server wants blocks of {min} bytes: add the disk with blocksize:{min}"
            )));
        }
        if i64::try_from(export.size).is_err() {
            return Err(refused(format!("{} bytes are too many", export.size)));
        }
        let max = max.clamp(sector, MAX_REQUEST) / sector * sector;
        let connection = RefCell::new(Some(connection));
        Ok(Self {
            name,
            size: export.size,
            flags: export.flags,
            max,
            connection,
            dirty: Cell::new(false),
        })
    }

    /// The server's name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the server refuses writes.
    pub(super) fn read_only(&self) -> bool {
        self.flags & READ_ONLY != 0
    }

    /// Whether the server can zero ranges.
    pub(super) fn can_zero(&self) -> bool {
        self.flags & CAN_WRITE_ZEROES != 0
    }

    /// Bytes of the export.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills the buffer.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Done {
        let mut at = offset;
        for piece in buffer.chunks_mut(self.max as usize) {
            let length = length_of(piece)?;
            self.request(READ, 0, at, length, &[], piece)?;
            at += u64::from(length);
        }
        Ok(())
    }

    /// Writes the buffer.
    pub fn write(&self, buffer: &[u8], offset: u64) -> Done {
        let mut at = offset;
        for piece in buffer.chunks(self.max as usize) {
            let length = length_of(piece)?;
            self.request(WRITE, 0, at, length, piece, &mut [])?;
            at += u64::from(length);
        }
        Ok(())
    }

    /// Makes a range read as zeroes; where it may be unmapped, it is.
    pub fn zero(&self, offset: u64, length: u64, may_unmap: bool) -> Done {
        // TRIM would not do: it promises nothing about what is read afterwards.
        if self.flags & CAN_WRITE_ZEROES == 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let flags = if may_unmap { 0 } else { NO_HOLE };
        let (mut at, mut left) = (offset, length);
        while left > 0 {
            let piece = u32::try_from(left).unwrap_or(u32::MAX).min(MAX_ZEROES);
            self.request(WRITE_ZEROES, flags, at, piece, &[], &mut [])?;
            at += u64::from(piece);
            left -= u64::from(piece);
        }
        Ok(())
    }

    /// Brings what was written to stable storage. A server that cannot flush has no cache.
    pub fn flush(&self) -> Done {
        // Without unflushed writes, a lost connection loses nothing.
        if self.dirty.get() {
            if self.flags & CAN_FLUSH != 0 {
                self.request(FLUSH, 0, 0, 0, &[], &mut [])?;
            } else if self.connection.borrow().is_none() {
                return Err(libc::EIO);
            }
            self.dirty.set(false);
        }
        Ok(())
    }

    /// Ends the connection.
    pub fn close(&self) {
        if let Some(mut connection) = self.connection.take() {
            connection.deadline = Instant::now() + NEGOTIATION;
            // The result does not matter: everything was flushed before.
            connection.send(DISCONNECT, 0, 0, 0, &[]).ok();
        }
    }

    fn request(
        &self,
        kind: u16,
        flags: u16,
        offset: u64,
        length: u32,
        output: &[u8],
        input: &mut [u8],
    ) -> Done {
        let mut slot = self.connection.borrow_mut();
        if matches!(kind, WRITE | WRITE_ZEROES) {
            self.dirty.set(true);
        }
        let Some(connection) = slot.as_mut() else { return Err(libc::EIO) };
        match connection.exchange(kind, flags, offset, length, output, input) {
            Ok(0) => Ok(()),
            Ok(error) => Err(error),
            Err(e) => {
                tracing::error!("{}: the connection is lost: {e}", self.name);
                *slot = None;
                Err(libc::EIO)
            }
        }
    }
}

fn length_of(piece: &[u8]) -> std::result::Result<u32, i32> {
    u32::try_from(piece.len()).map_err(|_| libc::EINVAL)
}

/// Until the export is there for requests.
fn negotiate(stream: &mut (impl Read + Write), export: &str) -> io::Result<Export> {
    if read_u64(stream)? != MAGIC {
        return Err(invalid("it is not an NBD server"));
    }
    if read_u64(stream)? != NEWSTYLE {
        return Err(invalid("it speaks the oldstyle protocol, which is not supported"));
    }
    let offered = read_u16(stream)?;
    if offered & FIXED_NEWSTYLE == 0 {
        return Err(invalid("it does not speak the fixed newstyle protocol"));
    }
    let taken = offered & (FIXED_NEWSTYLE | NO_ZEROES);
    stream.write_all(&u32::from(taken).to_be_bytes())?;
    match go(stream, export)? {
        Some(found) => Ok(found),
        None => export_name(stream, export, taken & NO_ZEROES == 0),
    }
}

/// Asks for an export and what it is. None: the server does not know that question.
fn go(stream: &mut (impl Read + Write), export: &str) -> io::Result<Option<Export>> {
    let length = u32::try_from(export.len()).map_err(io::Error::other)?;
    let mut data = length.to_be_bytes().to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&1u16.to_be_bytes());
    data.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
    send_option(stream, OPTION_GO, &data)?;
    let mut found = None;
    let mut blocks = None;
    for _ in 0..MAX_ANSWERS {
        let (kind, data) = read_answer(stream, OPTION_GO)?;
        let mut data = &data[..];
        match kind {
            ACK => {
                let Some((size, flags)) = found else {
                    return Err(invalid("the server does not say how large the export is"));
                };
                return Ok(Some(Export { size, flags, blocks }));
            }
            INFO => match read_u16(&mut data)? {
                INFO_EXPORT => found = Some((read_u64(&mut data)?, read_u16(&mut data)?)),
                INFO_BLOCK_SIZE => {
                    let (min, _, max) =
                        (read_u32(&mut data)?, read_u32(&mut data)?, read_u32(&mut data)?);
                    if !min.is_power_of_two() || max < min {
                        return Err(invalid("the server's block sizes make no sense"));
                    }
                    blocks = Some((min, max));
                }
                _ => {}
            },
            UNSUPPORTED => return Ok(None),
            refusal => {
                let why = REFUSALS.iter().find(|(number, _)| *number == refusal);
                return Err(invalid(why.map_or("the server refuses", |(_, why)| why)));
            }
        }
    }
    Err(invalid("the server's answer does not end"))
}

/// Asks for an export in the old way: the server hangs up if it does not have it.
fn export_name(stream: &mut (impl Read + Write), export: &str, zeroes: bool) -> io::Result<Export> {
    send_option(stream, OPTION_EXPORT_NAME, export.as_bytes())?;
    let size = read_u64(stream).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => invalid("the server has no such export"),
        _ => e,
    })?;
    let flags = read_u16(stream)?;
    if zeroes {
        stream.read_exact(&mut [0; 124])?;
    }
    Ok(Export { size, flags, blocks: None })
}

fn send_option(stream: &mut impl Write, option: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut message = NEWSTYLE.to_be_bytes().to_vec();
    message.extend_from_slice(&option.to_be_bytes());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(data);
    stream.write_all(&message)
}

fn read_answer(stream: &mut impl Read, option: u32) -> io::Result<(u32, Vec<u8>)> {
    let (magic, to) = (read_u64(stream)?, read_u32(stream)?);
    let (kind, length) = (read_u32(stream)?, read_u32(stream)?);
    if magic != ANSWER || to != option || length > MAX_ANSWER {
        return Err(invalid("the server's answer makes no sense"));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    Ok((kind, data))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn read_u16(stream: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn read_u32(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// A stream on which nothing lasts beyond a point in time.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    deadline: Instant,
    cookie: u64,
}

impl Connection {
    /// A request and its reply: 0, or an errno.
    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        offset: u64,
        length: u32,
        output: &[u8],
        input: &mut [u8],
    ) -> io::Result<i32> {
        self.deadline = Instant::now() + REQUEST;
        self.cookie = self.cookie.wrapping_add(1);
        self.send(kind, flags, offset, length, output)?;
        let (magic, error) = (read_u32(self)?, read_u32(self)?);
        if magic != REPLY_MAGIC || read_u64(self)? != self.cookie {
            return Err(invalid("the server's reply makes no sense"));
        }
        if error != 0 {
            let error = i32::try_from(error).unwrap_or(libc::EIO);
            return Ok(if ERRORS.contains(&error) { error } else { libc::EIO });
        }
        self.read_exact(input)?;
        Ok(0)
    }

    fn send(
        &mut self,
        kind: u16,
        flags: u16,
        offset: u64,
        length: u32,
        output: &[u8],
    ) -> io::Result<()> {
        let mut message = Vec::with_capacity(28 + output.len());
        message.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        message.extend_from_slice(&flags.to_be_bytes());
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&self.cookie.to_be_bytes());
        message.extend_from_slice(&offset.to_be_bytes());
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(output);
        self.write_all(&message)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        late(match &mut self.stream {
            Stream::Unix(s) => s.set_read_timeout(left).and_then(|()| s.read(buffer)),
            Stream::Tcp(s) => s.set_read_timeout(left).and_then(|()| s.read(buffer)),
        })
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        late(match &mut self.stream {
            Stream::Unix(s) => s.set_write_timeout(left).and_then(|()| s.write(bytes)),
            Stream::Tcp(s) => s.set_write_timeout(left).and_then(|()| s.write(bytes)),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A timeout by its name.
fn late(result: io::Result<usize>) -> io::Result<usize> {
    result.map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => e,
    })
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Address::Tcp(host, port) => {
                let mut error = io::Error::from(io::ErrorKind::NotFound);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, NEGOTIATION) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(e) => error = e,
                    }
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
