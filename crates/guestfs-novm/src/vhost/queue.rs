//! A ring: what the driver made available is taken, and given back as used.

use super::invalid;
use super::memory::{Memory, Piece};
use rustix::fd::OwnedFd;
use std::io;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const DESCRIPTOR: usize = 16;
/// Most entries of a ring.
const MAX_SIZE: u32 = 32768;

/// A ring of descriptors ("split virtqueue").
#[derive(Debug, Default)]
pub struct Queue {
    size: u16,
    /// Next entry of the available ring to look at.
    last: u16,
    used: u16,
    addresses: Option<(u64, u64, u64)>,
    /// The driver has made something available.
    pub kick: Option<OwnedFd>,
    /// Interrupts the driver.
    pub call: Option<OwnedFd>,
}

/// Buffers that belong together.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    /// What the device reads.
    pub readable: Vec<Piece>,
    /// What the device writes.
    pub writable: Vec<Piece>,
}

impl Queue {
    pub(super) fn set_size(&mut self, size: u32) -> io::Result<()> {
        if size == 0 || size > MAX_SIZE || !size.is_power_of_two() {
            return Err(invalid("a ring's size"));
        }
        self.size = u16::try_from(size).map_err(io::Error::other)?;
        Ok(())
    }

    pub(super) fn set_base(&mut self, base: u32) {
        let [low, high, ..] = base.to_le_bytes();
        self.last = u16::from_le_bytes([low, high]);
        self.used = self.last;
    }

    pub(super) fn base(&self) -> u32 {
        self.last.into()
    }

    pub(super) fn set_addresses(&mut self, descriptors: u64, used: u64, available: u64) {
        self.addresses = Some((descriptors, used, available));
    }

    /// Whether it was set up.
    pub fn is_ready(&self) -> bool {
        self.addresses.is_some() && self.size > 0 && self.kick.is_some()
    }

    fn rings(&self, memory: &Memory) -> io::Result<(Piece, Piece, Piece)> {
        let (descriptors, used, available) =
            self.addresses.ok_or_else(|| invalid("a ring without addresses"))?;
        let size = usize::from(self.size);
        Ok((
            memory.user(descriptors, DESCRIPTOR * size)?,
            memory.user(used, 6 + 8 * size)?,
            memory.user(available, 6 + 2 * size)?,
        ))
    }

    /// Whether something is available.
    pub fn is_pending(&self, memory: &Memory) -> io::Result<bool> {
        if !self.is_ready() {
            return Ok(false);
        }
        let (_, _, available) = self.rings(memory)?;
        Ok(available.load_u16(2)? != self.last)
    }

    /// Takes the next chain.
    pub fn pop(&mut self, memory: &Memory) -> io::Result<Option<Chain>> {
        if !self.is_pending(memory)? {
            return Ok(None);
        }
        let (descriptors, _, available) = self.rings(memory)?;
        let slot = usize::from(self.last % self.size);
        let head = available.load_u16(4 + 2 * slot)?;
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let mut index = head;
        for _ in 0..self.size {
            if index >= self.size {
                return Err(invalid("a descriptor's number"));
            }
            let mut raw = [0; DESCRIPTOR];
            descriptors.part(DESCRIPTOR * usize::from(index), DESCRIPTOR).read(&mut raw);
            let address = super::long(&raw, 0);
            let len = usize::try_from(super::word(&raw, 8)).unwrap_or(usize::MAX);
            let flags = u16::from_le_bytes([raw[12], raw[13]]);
            let piece = memory.piece(address, len)?;
            if flags & WRITE != 0 { &mut chain.writable } else { &mut chain.readable }.push(piece);
            if flags & NEXT == 0 {
                self.last = self.last.wrapping_add(1);
                return Ok(Some(chain));
            }
            index = u16::from_le_bytes([raw[14], raw[15]]);
        }
        Err(invalid("a chain of descriptors goes round"))
    }

    /// The chain that was taken last is still available.
    pub fn unpop(&mut self) {
        self.last = self.last.wrapping_sub(1);
    }

    /// Gives a chain back, of which so many bytes were written, and tells the driver if it wants to know.
    pub fn push(&mut self, memory: &Memory, chain: &Chain, written: usize) -> io::Result<()> {
        let (_, used, available) = self.rings(memory)?;
        let slot = usize::from(self.used % self.size);
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        let element = [u32::from(chain.head).to_le_bytes(), written.to_le_bytes()].concat();
        used.part(4 + 8 * slot, 8).write(&element);
        self.used = self.used.wrapping_add(1);
        used.store_u16(2, self.used)?;
        if available.load_u16(0)? & 1 == 0
            && let Some(call) = &self.call
        {
            // Full means that it is told already.
            match rustix::io::write(call, &1u64.to_ne_bytes()) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Copies all that is readable, up to a limit.
pub fn gather(pieces: &[Piece], limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let from = bytes.len();
        bytes.resize(from + piece.len.min(limit - from), 0);
        piece.read(&mut bytes[from..]);
    }
    bytes
}
