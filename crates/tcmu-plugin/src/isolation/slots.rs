// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for memory that the daemon and the process of a plugin share.
//!
//! The data of a device's commands lie in slots of equal length, one for each command. In the
//! plugin's process an inaccessible page follows each slot, and data end where their slot does: a
//! handler that writes beyond its buffer ends its process, and touches no other command.
//!
//! The other side may write to the memory at any time. It is read and written through [`Sgl`] alone.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use sgl::Sgl;

/// Slots are multiples of it: a page, however large these are.
const UNIT: u32 = 64 << 10;
/// What nobody may touch before, between and behind slots, in bytes.
const GAP: usize = UNIT as usize;
/// The longest slot. Commands with more data have memory of their own.
const MAX_SLOT: u32 = 1 << 20;
/// The memory of a device; what no command has used takes none.
const MAX_BYTES: u32 = 16 << 20;
/// The fewest and the most slots: commands that are under way at once.
const COUNT: (u32, u32) = (16, 64);
/// What data begin at a multiple of, where they are of odd lengths.
const ALIGN: usize = 16;

/// How memory is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) slots: u16,
    /// Of a slot, in bytes.
    pub(crate) slot_len: u32,
}

impl Geometry {
    /// For commands with so many bytes of data, most of them.
    pub(crate) fn for_transfers(len: u32) -> Geometry {
        let slot_len = Self::round(len.clamp(1, MAX_SLOT));
        let slots = (MAX_BYTES / slot_len).clamp(COUNT.0, COUNT.1);
        Geometry { slots: u16::try_from(slots).unwrap_or(u16::MAX), slot_len }
    }

    /// For one command.
    pub(crate) fn single(len: u32) -> Geometry {
        Geometry { slots: 1, slot_len: Self::round(len.max(1)) }
    }

    fn round(len: u32) -> u32 {
        // Beyond 4 GiB nothing is asked for.
        len.checked_next_multiple_of(UNIT).unwrap_or(u32::MAX - (UNIT - 1))
    }

    fn slot_len(self) -> usize {
        self.slot_len as usize
    }

    fn bytes(self) -> usize {
        self.slot_len() * usize::from(self.slots)
    }

    fn is_sound(self) -> bool {
        self.slots > 0 && self.slot_len > 0 && self.slot_len.is_multiple_of(UNIT)
    }
}

/// The memory, mapped.
#[derive(Debug)]
pub(crate) struct Slots {
    base: NonNull<u8>,
    mapped: usize,
    /// From the first slot to the next, in bytes.
    stride: usize,
    /// Where the first slot begins.
    first: usize,
    geometry: Geometry,
}

// SAFETY: the memory is reached through raw pointers alone, from any thread.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// Makes memory, and maps it, for the daemon. Who gets the descriptor cannot change its size.
    pub(crate) fn create(geometry: Geometry) -> io::Result<(Slots, OwnedFd)> {
        let fd =
            rustix::fs::memfd_create("plugin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, geometry.bytes() as u64)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let base = unsafe {
            mmap(ptr::null_mut(), geometry.bytes(), rights, MapFlags::SHARED, fd.as_fd(), 0)
        }?;
        let slots = Slots {
            base: not_null(base)?,
            mapped: geometry.bytes(),
            stride: geometry.slot_len(),
            first: 0,
            geometry,
        };
        Ok((slots, fd))
    }

    /// Maps it for a plugin, each slot between pages that nobody may touch.
    pub(crate) fn map(fd: impl AsFd, geometry: Geometry) -> io::Result<Slots> {
        if !geometry.is_sound() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stride = geometry.slot_len() + GAP;
        let mapped = stride * usize::from(geometry.slots) + GAP;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let base = unsafe {
            mmap_anonymous(ptr::null_mut(), mapped, ProtFlags::empty(), MapFlags::PRIVATE)
        }?;
        let slots = Slots { base: not_null(base)?, mapped, stride, first: GAP, geometry };
        for slot in 0..usize::from(geometry.slots) {
            let at = slots.base.as_ptr().wrapping_add(slots.first + slot * stride);
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            let offset = (slot * geometry.slot_len()) as u64;
            // SAFETY: the place is inside of the mapping above, which nobody knows of yet.
            unsafe {
                mmap(
                    at.cast(),
                    geometry.slot_len(),
                    rights,
                    MapFlags::SHARED | MapFlags::FIXED,
                    fd.as_fd(),
                    offset,
                )
            }?;
        }
        Ok(slots)
    }

    /// The last bytes of a slot; `None` if there are not so many, or no such slot.
    pub(crate) fn view(&self, slot: u16, len: usize) -> Option<Sgl<'_>> {
        if len == 0 {
            return Some(Sgl::empty());
        }
        let room = len.checked_next_multiple_of(ALIGN)?;
        if slot >= self.geometry.slots || room > self.geometry.slot_len() {
            return None;
        }
        let at = self.first + usize::from(slot) * self.stride + self.geometry.slot_len() - room;
        // SAFETY: inside of the mapping.
        let base = unsafe { self.base.add(at) };
        // SAFETY: the piece is mapped for as long as `self`; no reference to its bytes is made.
        Some(unsafe { Sgl::from_raw([(base, len)], None) })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: mapped by this; nobody has a pointer into it without a borrow of `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.mapped) };
        if let Err(error) = unmapped {
            tracing::error!("memory shared with a plugin cannot be unmapped: {error}");
        }
    }
}

fn not_null(base: *mut c_void) -> io::Result<NonNull<u8>> {
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_bytes() {
        let geometry = Geometry::for_transfers(64 << 10);
        assert_eq!((geometry.slots, geometry.slot_len), (64, 64 << 10));
        let (ours, fd) = Slots::create(geometry).unwrap();
        let theirs = Slots::map(&fd, geometry).unwrap();
        for (slot, len) in [(0, 512), (1, 36), (63, 65536), (5, 65535)] {
            let (a, b) = (ours.view(slot, len).unwrap(), theirs.view(slot, len).unwrap());
            assert_eq!((a.len(), b.len()), (len, len));
            a.fill(0..len, 0x5a);
            assert_eq!(a.first_difference(&b), None);
            let end = b.iovecs()[0].iov_base as usize + len.next_multiple_of(ALIGN);
            assert_eq!(end % 4096, 0, "the page that nobody may touch follows");
        }
        let odd = ours.view(0, 1).unwrap().iovecs()[0].iov_base as usize;
        assert!(odd.is_multiple_of(ALIGN));
        for (slot, len) in [(64, 512), (0, 65537), (u16::MAX, 1), (0, usize::MAX)] {
            assert!(ours.view(slot, len).is_none() && theirs.view(slot, len).is_none());
        }
        assert_eq!(theirs.view(77, 0).map(|list| list.len()), Some(0));
    }

    #[test]
    fn memory_cannot_be_taken_away_from_the_daemon() {
        let (_ours, fd) = Slots::create(Geometry::single(1)).unwrap();
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
        assert!(rustix::fs::ftruncate(&fd, 1 << 30).is_err());
    }

    #[test]
    fn slots_fit_most_commands_and_take_bounded_memory() {
        for len in [0, 1, 512, 65_536, 65_537, 1 << 20, u32::MAX] {
            let geometry = Geometry::for_transfers(len);
            assert!(geometry.is_sound() && geometry.bytes() <= 16 << 20, "{len}: {geometry:?}");
        }
        assert!(Geometry::single(u32::MAX).is_sound());
        assert!(Slots::map(io::stdin(), Geometry { slots: 0, slot_len: 0 }).is_err());
    }
}
