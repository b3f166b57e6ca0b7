// SPDX-License-Identifier: Apache-2.0
//! An open volume. Its sectors are encrypted each for itself, by number:
//!
//! - A read decrypts in the place that it reads to.
//! - A write encrypts into memory of its own, so that what lies below never sees the data; a long one
//!   piece by piece, through [`CHUNK`] bytes.
//! - Less than a sector cannot be written; [`Disk`](crate::Disk) reads and writes whole ones.
//! - Zeroes have to be encrypted, too, so there is no zeroing but by writing. What was never written,
//!   or was discarded, reads as anything.
//! - What was acknowledged, or flushed, is as safe as it is in the layer below: nothing is kept here.
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use luks::{Payload, SECTOR, SectorCipher};
use qcow2::Storage as _;
use sgl::Sgl;

use crate::exclusive::ExclusiveLock;
use crate::lower::from_io;
use crate::{CHUNK, Discard, Error, ErrorKind, Event, Facts, Held, Lower, Provisioning, Store};

/// The bytes that are encrypted or decrypted between two copies, a multiple of every sector.
const PIECE: usize = 8192;
/// The smallest buffer.
const SMALLEST: usize = 16 << 10;

/// What a volume consists of.
pub(super) struct Parts {
    pub(super) lower: Lower,
    pub(super) cipher: SectorCipher,
    pub(super) payload: Payload,
    /// Of the disk, in bytes.
    pub(super) size: u64,
    pub(super) read_only: bool,
    /// Whether discards are passed on.
    pub(super) discards: bool,
    pub(super) path: PathBuf,
    pub(super) held: Held,
}

/// An open volume.
#[derive(Debug)]
pub(super) struct LuksStore {
    lower: Lower,
    cipher: SectorCipher,
    payload: Payload,
    /// Capacity of the disk in bytes, whole sectors.
    size: Cell<u64>,
    read_only: bool,
    discards: bool,
    path: PathBuf,
    held: Held,
    spare: Spare,
}

/// Buffers for encrypted data that no write uses, together at most [`CHUNK`] bytes.
#[derive(Debug, Default)]
struct Spare(RefCell<Vec<Sgl<'static>>>);

impl Spare {
    /// A buffer of at least `len` bytes.
    fn take(&self, len: usize) -> Sgl<'static> {
        let mut spare = self.0.borrow_mut();
        let found = spare.iter().position(|buffer| buffer.len() >= len);
        match found {
            Some(index) => spare.swap_remove(index),
            None => Sgl::zeroed(len.max(SMALLEST).next_power_of_two()),
        }
    }

    /// Takes a buffer back that nobody uses any more: not that of a write that was aborted.
    fn give(&self, buffer: Sgl<'static>) {
        let mut spare = self.0.borrow_mut();
        let there: usize = spare.iter().map(Sgl::len).sum();
        if there + buffer.len() <= CHUNK {
            spare.push(buffer);
        }
    }
}

impl LuksStore {
    pub(super) fn new(parts: Parts) -> Self {
        LuksStore {
            lower: parts.lower,
            cipher: parts.cipher,
            payload: parts.payload,
            size: Cell::new(parts.size),
            read_only: parts.read_only,
            discards: parts.discards,
            path: parts.path,
            held: parts.held,
            spare: Spare::default(),
        }
    }

    fn error(&self, kind: impl Into<ErrorKind>, operation: String) -> Error {
        Error::new(kind, operation, &self.path)
    }

    /// An error of this layer, or of one below.
    #[cold]
    fn failed(&self, error: std::io::Error, what: &str, len: u64, offset: u64) -> Error {
        let operation = || format!("{what} {len} bytes at {offset}");
        from_io(error).unwrap_or_else(|e| self.error(e, operation()))
    }

    /// Where in the layer below a range is that is whole sectors inside the disk.
    fn place(&self, what: &str, offset: u64, len: u64) -> Result<u64, Error> {
        let size = self.size.get();
        let operation = || format!("{what} {len} bytes at {offset}");
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(self.error(ErrorKind::OutOfBounds { size }, operation()));
        }
        let sector = self.payload.sector;
        if !(offset | len).is_multiple_of(sector as u64) {
            let text = format!("it is encrypted by sectors of {sector} bytes");
            return Err(self.error(ErrorKind::Unsupported(text), operation()));
        }
        // Inside of the file below, which has less than 2^63 bytes.
        Ok(self.payload.offset + offset)
    }

    fn writable(&self, what: &str) -> Result<(), Error> {
        match self.read_only {
            true => Err(self.error(ErrorKind::ReadOnly, what.into())),
            false => Ok(()),
        }
    }

    /// Changes `from`, which begins at `offset` of the disk, by the piece, into `to`.
    fn each(&self, from: &Sgl<'_>, to: &Sgl<'_>, offset: u64, change: impl Fn(u64, &mut [u8])) {
        let first = self.payload.first.wrapping_add(offset / SECTOR as u64);
        let mut piece = [0; PIECE];
        for at in (0..from.len()).step_by(PIECE) {
            let there = from.read_at(at, &mut piece);
            let piece = piece.get_mut(..there).unwrap_or_default();
            change(first.wrapping_add((at / SECTOR) as u64), piece);
            to.write_at(at, piece);
        }
    }

    /// Encrypts and writes at most [`CHUNK`] bytes, which are at `offset` of the disk, to `place`.
    async fn write_encrypted(&self, data: &Sgl<'_>, offset: u64, place: u64) -> Result<(), Error> {
        let buffer = self.spare.take(data.len());
        let encrypted = buffer.slice(0..data.len());
        self.each(data, &encrypted, offset, |first, piece| self.cipher.encrypt(first, piece));
        let written = self.lower.write(&encrypted, place).await;
        self.spare.give(buffer);
        written.map_err(|e| self.failed(e, "write", data.len() as u64, offset))
    }

    /// Makes what is behind `size` bytes of the disk, which is zeroes below, part of it.
    async fn grow(&self, size: u64) -> Result<(), Error> {
        let operation = || format!("resize to {size} bytes");
        if let Some(len) = self.payload.len.filter(|len| *len < size) {
            let text = format!("its LUKS header says that it has {len} bytes, and no more");
            return Err(self.error(ErrorKind::Unsupported(text), operation()));
        }
        let failed = |e| from_io(e).unwrap_or_else(|e| self.error(e, operation()));
        let end = self.payload.offset.saturating_add(size);
        if end > self.lower.size().map_err(failed)? {
            self.writable(&operation())?;
            self.lower.set_len(end).await.map_err(failed)?;
        }
        Ok(())
    }
}

impl Store for LuksStore {
    fn facts(&self) -> Facts {
        let sector = u32::try_from(self.payload.sector).unwrap_or(4096);
        let below = self.lower.discards().filter(|_| self.discards && !self.read_only);
        let discard = below
            .map(|below| Discard { granularity: below.granularity.max(sector), zeroes: false });
        Facts {
            size: self.size.get(),
            read_only: self.read_only,
            optimal_io: self.lower.optimal_io().max(sector),
            request_alignment: sector,
            shared: false,
            // What is below compares encrypted bytes, if it does.
            compare_and_write: self.lower.compares_and_writes().map(|_| 0),
            discard,
            write_zeroes: false,
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let len = data.len() as u64;
        let place = self.place("read", offset, len)?;
        let read = self.lower.read(data, place).await;
        read.map_err(|e| self.failed(e, "read", len, offset))?;
        self.each(data, data, offset, |first, piece| self.cipher.decrypt(first, piece));
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.writable("write")?;
        let place = self.place("write", offset, data.len() as u64)?;
        let mut done = 0;
        while done < data.len() {
            let piece = data.slice(done..data.len().min(done + CHUNK));
            let at = done as u64;
            self.write_encrypted(&piece, offset + at, place + at).await?;
            done += piece.len();
        }
        if fua { self.flush().await } else { Ok(()) }
    }

    async fn flush(&self) -> Result<(), Error> {
        let synced = self.lower.sync().await;
        synced.map_err(|e| {
            let operation = || crate::protocol::file::durable("flush", self.held.has_lost_data());
            from_io(e).unwrap_or_else(|e| self.error(e, operation()))
        })
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.writable("discard")?;
        let place = self.place("discard", offset, len)?;
        if !self.discards {
            let text = "discards are not passed on; ;discard=on does so";
            let kind = ErrorKind::Unsupported(text.into());
            return Err(self.error(kind, format!("discard {len} bytes at {offset}")));
        }
        let discarded = self.lower.discard(place, len).await;
        discarded.map_err(|e| self.failed(e, "discard", len, offset))
    }

    async fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> Result<(), Error> {
        let zeroes = Sgl::zeroed(usize::try_from(len).unwrap_or(CHUNK).min(CHUNK));
        let mut done = 0;
        while done < len {
            let left = usize::try_from(len - done).unwrap_or(CHUNK);
            let piece = zeroes.slice(0..left.min(CHUNK));
            self.write(&piece, offset.saturating_add(done), false).await?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// What looks unused below does not read as zeroes here.
    async fn provisioning(&self, _: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        Ok((Provisioning::Mapped, len.max(1)))
    }

    /// What is below grows where it is smaller; it is never made smaller.
    async fn resize(&self, size: u64) -> Result<(), Error> {
        let sector = self.payload.sector;
        if !size.is_multiple_of(sector as u64) {
            let text = format!("it has to be a multiple of its sectors of {sector} bytes");
            let kind = ErrorKind::Invalid(text);
            return Err(self.error(kind, format!("resize to {size} bytes")));
        }
        if size > self.size.get() {
            self.grow(size).await?;
        }
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        let flushed = if self.read_only { Ok(()) } else { self.flush().await };
        let closed = self.lower.close().await;
        flushed.and(closed)
    }

    fn held(&self) -> Held {
        self.held.clone()
    }

    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        self.lower.lock()
    }

    fn grows_by_noise(&self) -> bool {
        true
    }

    /// A volume without a size of its own has that of the layer below.
    async fn event(&self) -> Event {
        loop {
            let event = self.lower.event().await;
            match (&event, self.payload.len, self.lower.size()) {
                (Event::Resized, None, Ok(below)) => {
                    let sector = self.payload.sector as u64;
                    let there = below.saturating_sub(self.payload.offset);
                    self.size.set(there / sector * sector);
                }
                (Event::Resized, ..) => continue,
                _ => {}
            }
            return event;
        }
    }
}
