// SPDX-License-Identifier: Apache-2.0
//! Files on their way: from the client ([`FileIn`]), to the client ([`FileOut`]), and how far a long
//! call has got ([`Progress`]).
//!
//! Both kinds of file are plain `Read` and `Write`, and have a fast way from and to descriptors. Either
//! side may break a file off. Progress is told 2 s after a call began, then every third of a second,
//! and, if it was told at all, again at 100 %.

use crate::channel::{Arrived, Channel, Closed};
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::frame::{self, CHUNK_HEAD, Chunk, Header, MAX_CHUNK};
use rustix::io::Errno as Raw;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::time::{Duration, Instant};

/// Time from a call's beginning to its first progress message.
const FIRST: Duration = Duration::from_secs(2);
/// Time between progress messages.
const PERIOD: Duration = Duration::from_nanos(333_333_333);
/// Chunks that are sent at once.
const BATCH: usize = 16;
/// Room for a chunk.
const SLOT: usize = CHUNK_HEAD + MAX_CHUNK;

/// When and what to tell of progress.
#[derive(Debug)]
struct Clock {
    procedure: u32,
    serial: u32,
    next: Instant,
    told: bool,
}

impl Clock {
    fn new(header: &Header) -> Self {
        let next = Instant::now() + FIRST;
        Self { procedure: header.procedure, serial: header.serial, next, told: false }
    }

    /// Tells the client if it is time to, or if this is the end and it was told before.
    fn tell(&mut self, channel: &mut Channel, position: u64, total: u64) {
        let now = Instant::now();
        if now < self.next && !(self.told && position == total) {
            return;
        }
        self.next = now + PERIOD;
        self.told = true;
        let mut bytes = Vec::with_capacity(4 + frame::Progress::LEN);
        let (procedure, serial) = (self.procedure, self.serial);
        frame::Progress { procedure, serial, position, total }.encode(&mut bytes);
        if let Err(e) = channel.send(&bytes) {
            channel.set_broken(e);
        }
    }
}

/// Tells the client how far a call has got.
#[derive(Debug)]
pub(crate) struct Progress<'c> {
    channel: &'c mut Channel,
    clock: Clock,
}

impl<'c> Progress<'c> {
    /// For the call of this header, which begins now.
    pub(crate) fn new(channel: &'c mut Channel, header: &Header) -> Self {
        Self { channel, clock: Clock::new(header) }
    }

    /// It is at `position` of `total`. Cheap: may be said as often as there is something to say.
    pub(crate) fn at(&mut self, position: u64, total: u64) {
        self.clock.tell(self.channel, position, total);
    }

    /// It goes on, nobody knows how long. To be said at least every [`Progress::PULSE`].
    pub(crate) fn pulse(&mut self) {
        self.clock.tell(self.channel, 0, 1);
    }

    /// It is done, after pulses.
    pub(crate) fn pulse_end(&mut self) {
        self.clock.tell(self.channel, 1, 1);
    }

    /// How often to say [`Progress::pulse`].
    pub(crate) const PULSE: Duration = PERIOD;
}

/// A file that the client sends. What is left of it when the procedure returns is skipped; when it
/// returns an error, the client is told to stop.
#[derive(Debug)]
pub(crate) struct FileIn<'c> {
    channel: &'c mut Channel,
    clock: Clock,
    /// Bytes that the client says it will send; 0 when it does not say.
    total: u64,
    position: u64,
    /// Of the chunk at hand: what [`Read`] has not handed out yet.
    rest: Vec<u8>,
    taken: usize,
}

impl<'c> FileIn<'c> {
    /// The file that follows the call of this header.
    pub(crate) fn new(channel: &'c mut Channel, header: &Header) -> Self {
        let clock = Clock::new(header);
        let total = header.progress_hint;
        Self { channel, clock, total, position: 0, rest: Vec::new(), taken: 0 }
    }

    /// Writes what is left of the file into another, from `offset` on or (without) where it stands,
    /// and returns the number of bytes. `name` is what errors say.
    pub(crate) fn copy_to(
        &mut self,
        to: &File,
        offset: Option<u64>,
        name: impl AsRef<std::ffi::OsStr>,
    ) -> Result<u64> {
        let begin = self.position;
        loop {
            if !self.channel.incoming() {
                return Ok(self.position - begin);
            }
            let at = offset.map(|o| o + (self.position - begin));
            let arrived = self.channel.chunks(|slices| {
                let mut at = at;
                let mut slices = slices;
                while !slices.is_empty() {
                    let n = match at {
                        Some(o) => rustix::io::pwritev(to, slices, o),
                        None => rustix::io::writev(to, slices),
                    };
                    match n {
                        Ok(0) => return Err(Raw::IO),
                        Ok(n) => {
                            at = at.map(|o| o + n as u64);
                            io::IoSlice::advance_slices(&mut slices, n);
                        }
                        Err(Raw::INTR) => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(())
            });
            if let Arrived::Data(n) = self.arrived(arrived)?.on(&name)? {
                self.advance(n);
            }
        }
    }

    /// Hands what is left of the file to `sink`, piece by piece, without copying.
    pub(crate) fn for_each(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        sink(&rest[std::mem::take(&mut self.taken)..])?;
        while self.channel.incoming() {
            let arrived = self.channel.chunks(|slices| slices.iter().try_for_each(|s| sink(s)));
            if let Arrived::Data(n) = self.arrived(arrived)?? {
                self.advance(n);
            }
        }
        Ok(())
    }

    /// Skips what is left of the file.
    pub(crate) fn skip(&mut self) -> Result<()> {
        self.rest.clear();
        self.taken = 0;
        while self.channel.incoming() {
            let arrived = self.channel.chunks(|_| Ok::<(), Error>(()));
            self.arrived(arrived)??;
        }
        Ok(())
    }

    fn advance(&mut self, n: u64) {
        self.position += n;
        if self.total != 0 {
            self.clock.tell(self.channel, self.position.min(self.total), self.total);
        }
    }

    /// Sorts out what came of waiting for chunks.
    fn arrived<E>(
        &mut self,
        arrived: std::result::Result<std::result::Result<Arrived, E>, Closed>,
    ) -> Result<std::result::Result<Arrived, E>> {
        match arrived {
            Ok(Ok(Arrived::Data(n))) => Ok(Ok(Arrived::Data(n))),
            Ok(Err(e)) => Ok(Err(e)),
            Ok(Ok(Arrived::End)) => {
                self.channel.set_incoming(false);
                Ok(Ok(Arrived::End))
            }
            Ok(Ok(Arrived::Cancelled)) => {
                self.channel.set_incoming(false);
                Err(Error::new(Errno::EINTR, "operation cancelled by its caller"))
            }
            Err(e) => {
                self.channel.set_incoming(false);
                let error = Error::new(Errno::EPIPE, e.to_string());
                self.channel.set_broken(e);
                Err(error)
            }
        }
    }
}

impl Read for FileIn<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.rest.len() {
            if !self.channel.incoming() {
                return Ok(0);
            }
            self.rest.clear();
            self.taken = 0;
            let rest = &mut self.rest;
            let arrived = self.channel.chunks(|slices| {
                slices.iter().for_each(|s| rest.extend_from_slice(s));
                Ok::<(), Error>(())
            });
            if let Arrived::Data(n) =
                self.arrived(arrived).and_then(|a| a).map_err(io::Error::other)?
            {
                self.advance(n);
            }
        }
        let n = out.len().min(self.rest.len() - self.taken);
        out[..n].copy_from_slice(&self.rest[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

/// After a call with a file that ended in an error: has the client stop, and waits until it has.
pub(crate) fn refuse_incoming(channel: &mut Channel) -> std::result::Result<(), Closed> {
    if !channel.incoming() {
        return Ok(());
    }
    channel.set_incoming(false);
    channel.send(&frame::CANCEL.to_be_bytes())?;
    while let Chunk::Data(_) = channel.chunk()? {}
    Ok(())
}

/// A file that is sent to the client, after the reply. The reply goes out with the first full batch
/// of chunks: an error before that is an error of the call, one after it breaks the file off.
#[derive(Debug)]
pub(crate) struct FileOut<'c> {
    channel: &'c mut Channel,
    clock: Clock,
    header: Header,
    /// The reply if it has not been sent, and chunks.
    batch: Vec<u8>,
    /// Where the chunk that is being filled begins; its head is written when it is complete.
    open: Option<usize>,
    chunks: usize,
    replied: bool,
}

impl<'c> FileOut<'c> {
    /// The file that answers the call of this header.
    pub(crate) fn new(channel: &'c mut Channel, header: &Header) -> Self {
        let mut batch = Vec::with_capacity(4 + frame::HEADER_LEN + SLOT);
        let len = u32::try_from(frame::HEADER_LEN).unwrap_or(0);
        batch.extend_from_slice(&len.to_be_bytes());
        Header::reply(header.procedure, header.serial, frame::STATUS_OK).encode(&mut batch);
        let clock = Clock::new(header);
        Self { channel, clock, header: *header, batch, open: None, chunks: 0, replied: false }
    }

    /// Sends `len` bytes of a file from `offset` on, or fewer if it ends before, telling progress, and
    /// returns their number. `name` is what errors say.
    pub(crate) fn copy_from(
        &mut self,
        from: &File,
        offset: u64,
        len: u64,
        name: impl AsRef<std::ffi::OsStr>,
    ) -> Result<u64> {
        let mut done = 0;
        let mut slots = Vec::new();
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(BATCH * MAX_CHUNK);
            slots.resize(want.div_ceil(MAX_CHUNK) * SLOT, 0);
            let n = read_into_slots(from, &mut slots, want, offset + done).on(&name)?;
            if n == 0 {
                break;
            }
            self.send_batch()?;
            let used = close_slots(&mut slots, n);
            self.send(|channel| channel.send(&slots[..used]))?;
            done += n as u64;
            self.clock.tell(self.channel, done, len);
        }
        Ok(done)
    }

    /// Ends the file, or breaks it off. Returns whether the reply has been sent.
    pub(crate) fn finish(mut self, done: Result<()>) -> Result<bool> {
        let done = done.and_then(|()| {
            self.close_chunk();
            Chunk::End.encode(&mut self.batch);
            self.send_batch()
        });
        match done {
            Ok(()) => Ok(true),
            Err(e) if !self.replied => Err(e),
            Err(e) => {
                let number = self.header.procedure;
                tracing::warn!(procedure = number, error = %e, "file broken off");
                let mut end = Vec::new();
                Chunk::Cancelled.encode(&mut end);
                if let Err(e) = self.channel.send(&end) {
                    self.channel.set_broken(e);
                }
                Ok(true)
            }
        }
    }

    /// Completes the chunk that is being filled.
    fn close_chunk(&mut self) {
        if let Some(begin) = self.open.take() {
            let len = self.batch.len() - begin - CHUNK_HEAD;
            self.batch.resize(self.batch.len().next_multiple_of(4), 0);
            self.batch[begin..begin + CHUNK_HEAD].copy_from_slice(&frame::chunk_head(len, false));
            self.chunks += 1;
        }
    }

    /// Sends what has been gathered, unless the client wants no more.
    fn send_batch(&mut self) -> Result<()> {
        self.close_chunk();
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.send(|channel| channel.send(&batch))?;
        self.batch = batch;
        self.batch.clear();
        self.chunks = 0;
        Ok(())
    }

    fn send(
        &mut self,
        f: impl FnOnce(&mut Channel) -> std::result::Result<(), Closed>,
    ) -> Result<()> {
        let sent = match self.channel.cancelled() {
            Ok(true) => {
                // The client waits for the end of the file, so it is to have its reply.
                if !self.replied {
                    self.replied = true;
                    let reply = std::mem::take(&mut self.batch);
                    self.channel.send(&reply[..(4 + frame::HEADER_LEN).min(reply.len())]).ok();
                }
                return Err(Error::new(Errno::EINTR, "operation cancelled by its caller"));
            }
            Ok(false) => f(self.channel),
            Err(e) => Err(e),
        };
        self.replied = true;
        sent.map_err(|e| {
            let error = Error::new(Errno::EPIPE, e.to_string());
            self.channel.set_broken(e);
            error
        })
    }
}

impl Write for FileOut<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.chunks == BATCH {
            self.send_batch().map_err(io::Error::other)?;
        }
        let begin = *self.open.get_or_insert_with(|| {
            let begin = self.batch.len();
            self.batch.resize(begin + CHUNK_HEAD, 0);
            begin
        });
        let room = begin + SLOT - self.batch.len();
        let n = data.len().min(room);
        self.batch.extend_from_slice(&data[..n]);
        if n == room {
            self.close_chunk();
        }
        Ok(n)
    }

    /// Sends what has been gathered at once; with it the reply, if that is still to come.
    fn flush(&mut self) -> io::Result<()> {
        self.send_batch().map_err(io::Error::other)
    }
}

/// Reads into the data parts of the slots.
fn read_into_slots(from: &File, slots: &mut [u8], want: usize, offset: u64) -> io::Result<usize> {
    let mut left = want;
    let mut parts: Vec<IoSliceMut<'_>> = slots
        .chunks_mut(SLOT)
        .map(|slot| {
            let n = left.min(MAX_CHUNK);
            left -= n;
            IoSliceMut::new(&mut slot[CHUNK_HEAD..CHUNK_HEAD + n])
        })
        .collect();
    loop {
        match rustix::io::preadv(from, &mut parts, offset) {
            Err(Raw::INTR) if !guest_fs::interrupt::requested() => {}
            n => return Ok(n?),
        }
    }
}

/// Writes the heads of the slots that `n` bytes fill; returns the bytes to send.
fn close_slots(slots: &mut [u8], n: usize) -> usize {
    let mut left = n;
    let mut used = 0;
    for slot in slots.chunks_mut(SLOT) {
        let len = left.min(MAX_CHUNK);
        if len == 0 {
            break;
        }
        slot[..CHUNK_HEAD].copy_from_slice(&frame::chunk_head(len, false));
        let padded = len.next_multiple_of(4);
        slot[CHUNK_HEAD + len..CHUNK_HEAD + padded].fill(0);
        used += CHUNK_HEAD + padded;
        left -= len;
    }
    used
}
