//! This module uses `unsafe` to map the memory of User-Mode Linux and to access it, which its kernel does at
//! the same time. It is only read and written through raw pointers, after a check of its bounds.
#![allow(unsafe_code)]

use super::invalid;
use rustix::fd::OwnedFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use sgl::Sgl;
use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering, fence};

/// A part of memory.
#[derive(Debug)]
pub struct Region {
    base: NonNull<c_void>,
    mapped: usize,
    /// Where the part begins in what is mapped.
    offset: usize,
    len: u64,
    guest: u64,
    user: u64,
}

// SAFETY: a region is memory that any thread may access through raw pointers.
unsafe impl Send for Region {}

impl Region {
    /// Maps a part: its address for the guest and for the front end, its length, and where in the file.
    pub fn map(fd: OwnedFd, guest: u64, len: u64, user: u64, offset: u64) -> io::Result<Self> {
        let whole = len.checked_add(offset).and_then(|n| usize::try_from(n).ok());
        let whole = whole.filter(|n| *n > 0).ok_or_else(|| invalid("a region's length"))?;
        // Beyond the end of a file, memory is there but faults.
        let there = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
        if there < whole as u64 {
            return Err(invalid("a region is longer than its file"));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let base = unsafe { mmap(ptr::null_mut(), whole, protection, MapFlags::SHARED, &fd, 0)? };
        let base = NonNull::new(base).ok_or_else(|| invalid("a region at address 0"))?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        Ok(Self { base, mapped: whole, offset, len, guest, user })
    }

    /// Where this address is, if so many bytes from there are in the region.
    fn at(&self, start: u64, address: u64, len: usize) -> Option<NonNull<u8>> {
        let within = address.checked_sub(start)?;
        if within.checked_add(len as u64)? > self.len {
            return None;
        }
        let at = self.offset.checked_add(usize::try_from(within).ok()?)?;
        // SAFETY: `at + len <= offset + self.len <= mapped`.
        Some(unsafe { self.base.cast::<u8>().add(at) })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from it any more.
        unsafe { munmap(self.base.as_ptr(), self.mapped).ok() };
    }
}

/// A piece of memory that was checked to be there.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    base: NonNull<u8>,
    /// Its length in bytes.
    pub len: usize,
}

/// All memory.
#[derive(Debug, Default)]
pub struct Memory(Vec<Region>);

impl Memory {
    /// Memory of these parts.
    pub fn new(regions: Vec<Region>) -> Self {
        Self(regions)
    }

    /// The memory at an address of the guest.
    pub fn piece(&self, address: u64, len: usize) -> io::Result<Piece> {
        let base = self.0.iter().find_map(|r| r.at(r.guest, address, len));
        let base = base.ok_or_else(|| invalid("an address is outside of memory"))?;
        Ok(Piece { base, len })
    }

    /// The memory at an address of the front end, as rings are named.
    pub fn user(&self, address: u64, len: usize) -> io::Result<Piece> {
        let base = self.0.iter().find_map(|r| r.at(r.user, address, len));
        let base = base.ok_or_else(|| invalid("a ring is outside of memory"))?;
        Ok(Piece { base, len })
    }
}

impl Piece {
    /// A part of it, as far as it is there.
    pub fn part(&self, from: usize, len: usize) -> Self {
        let from = from.min(self.len);
        // SAFETY: `from <= self.len`.
        let base = unsafe { self.base.add(from) };
        Self { base, len: len.min(self.len - from) }
    }

    /// Copies from it, as much as both have.
    pub fn read(&self, to: &mut [u8]) -> usize {
        let len = self.len.min(to.len());
        // SAFETY: both have `len` bytes, and `to` is ours alone.
        unsafe { ptr::copy_nonoverlapping(self.base.as_ptr(), to.as_mut_ptr(), len) };
        len
    }

    /// Copies to it, as much as both have.
    pub fn write(&self, from: &[u8]) -> usize {
        let len = self.len.min(from.len());
        // SAFETY: both have `len` bytes, and no reference to the guest's memory exists.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.base.as_ptr(), len) };
        len
    }

    /// A number that the guest changes meanwhile, and what it wrote before.
    pub fn load_u16(&self, at: usize) -> io::Result<u16> {
        Ok(u16::from_le(self.atomic(at)?.load(Ordering::Acquire)))
    }

    /// Stores a number after what was written before.
    pub fn store_u16(&self, at: usize, value: u16) -> io::Result<()> {
        self.atomic(at)?.store(value.to_le(), Ordering::Release);
        // What is read next is not to be read before.
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn atomic(&self, at: usize) -> io::Result<&AtomicU16> {
        let word = self.part(at, 2);
        if word.len < 2 || !word.base.as_ptr().addr().is_multiple_of(2) {
            return Err(invalid("a ring's index"));
        }
        // SAFETY: two bytes that are mapped and aligned; atomics may be shared with anybody.
        Ok(unsafe { AtomicU16::from_ptr(word.base.as_ptr().cast()) })
    }
}

/// A view of pieces, for I/O.
pub fn view<'a>(_memory: &'a Memory, pieces: &[Piece]) -> Sgl<'a> {
    // SAFETY: the pieces were checked against the memory, which is mapped as long as it is borrowed;
    // no references to its bytes exist.
    unsafe { Sgl::from_raw(pieces.iter().map(|p| (p.base, p.len)), None) }
}
