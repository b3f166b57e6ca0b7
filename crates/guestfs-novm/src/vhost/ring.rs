// SPDX-License-Identifier: Apache-2.0
//! A ring in a guest's memory: chains of descriptors come out as readers and writers of bytes, and
//! are given back.
//!
//! A chain that names memory which is not there is given back without being served; a ring that is
//! not one is an error, which ends the device.

use super::invalid;
use rustix::fd::OwnedFd;
use std::cell::RefCell;
use std::io;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueOwnedT, QueueT, Reader, Writer};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

/// The memory of a guest; clones share it.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Most entries of a ring. UML's have 256.
const MAX_SIZE: u16 = 1024;
/// VRING_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;

/// A ring of descriptors ("split virtqueue").
#[derive(Debug)]
pub struct Ring {
    queue: RefCell<Queue>,
    memory: Memory,
    /// The driver has made something available.
    kick: Option<OwnedFd>,
    /// Interrupts the driver.
    call: Option<OwnedFd>,
}

fn wrong(e: virtio_queue::Error) -> io::Error {
    invalid(&format!("a ring of the guest: {e}"))
}

impl Ring {
    /// A ring in this memory, to be set up.
    ///
    /// # Errors
    /// None; the type is that of the queue.
    pub fn new(memory: Memory) -> io::Result<Self> {
        let queue = RefCell::new(Queue::new(MAX_SIZE).map_err(wrong)?);
        Ok(Self { queue, memory, kick: None, call: None })
    }

    /// How many entries it has.
    ///
    /// # Errors
    /// It is no power of two, or too many.
    pub fn set_size(&mut self, size: u32) -> io::Result<()> {
        let size = u16::try_from(size).map_err(|_| invalid("a ring's size"))?;
        self.queue.get_mut().try_set_size(size).map_err(wrong)
    }

    /// Where in the guest's memory its parts are; it is served from now on.
    ///
    /// # Errors
    /// They are not aligned.
    pub fn set_addresses(&mut self, descriptors: u64, available: u64, used: u64) -> io::Result<()> {
        let queue = self.queue.get_mut();
        queue.try_set_desc_table_address(GuestAddress(descriptors)).map_err(wrong)?;
        queue.try_set_avail_ring_address(GuestAddress(available)).map_err(wrong)?;
        queue.try_set_used_ring_address(GuestAddress(used)).map_err(wrong)?;
        queue.set_ready(true);
        Ok(())
    }

    /// Which entry is the next.
    pub fn set_base(&mut self, base: u32) {
        let [low, high, ..] = base.to_le_bytes();
        let base = u16::from_le_bytes([low, high]);
        let queue = self.queue.get_mut();
        queue.set_next_avail(base);
        queue.set_next_used(base);
    }

    /// Serves it no more; the next entry.
    pub(super) fn stop(&mut self) -> u16 {
        let queue = self.queue.get_mut();
        queue.set_ready(false);
        queue.next_avail()
    }

    pub(super) fn set_kick(&mut self, kick: Option<OwnedFd>) {
        self.kick = kick;
    }

    pub(super) fn kick(&self) -> Option<&OwnedFd> {
        self.kick.as_ref()
    }

    pub(super) fn set_call(&mut self, call: Option<OwnedFd>) {
        self.call = call;
    }

    /// Whether the driver has made something available.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn is_pending(&self) -> io::Result<bool> {
        let queue = self.queue.borrow();
        if !queue.ready() {
            return Ok(false);
        }
        let available = queue.avail_idx(&*self.memory.memory(), Ordering::Acquire);
        Ok(available.map_err(wrong)?.0 != queue.next_avail())
    }

    /// Takes the next chain, has it served, and gives it back with the number of bytes that were
    /// written to it; false where there is none.
    ///
    /// # Errors
    /// Those of `serve`, and of a ring that is none.
    pub fn serve_one(
        &self,
        serve: impl FnOnce(&mut Reader<'_>, Writer<'_>) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let memory = self.memory.memory();
        let mut queue = self.queue.borrow_mut();
        if !queue.ready() {
            return Ok(false);
        }
        let next = queue.iter(memory.clone()).map_err(wrong)?.next();
        let Some(chain) = next else { return Ok(false) };
        let head = chain.head_index();
        let written = match (chain.clone().reader(&memory), chain.writer(&memory)) {
            (Ok(mut reader), Ok(writer)) => serve(&mut reader, writer)?,
            (Err(e), _) | (_, Err(e)) => {
                tracing::warn!("a request of the guest names memory that is not there: {e}");
                0
            }
        };
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        queue.add_used(&*memory, head, written).map_err(wrong)?;
        let flags: u16 = memory
            .load(GuestAddress(queue.avail_ring()), Ordering::Acquire)
            .map_err(io::Error::other)?;
        if u16::from_le(flags) & NO_INTERRUPT == 0
            && let Some(call) = &self.call
        {
            // Full means that it is told already.
            match rustix::io::write(call, &1u64.to_ne_bytes()) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}
