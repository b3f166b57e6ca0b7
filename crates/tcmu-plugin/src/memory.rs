// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for memory that handlers have while they execute a command.
//!
//! A [`Block`] is what a handler gets of one command: its structures, CDB, iovecs and sense buffer.
//! The handler may have it on any thread until it completes the command, whatever becomes of the
//! future that waits for that; [`Spare`] keeps blocks for further commands, not in a hurry: a handler
//! that completes a command twice names a block that is not in use, and not another command.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

use sgl::Sgl;
use tcmu_abi::layout::{SENSE_LEN, tcmulib_cmd, tcmur_cmd};

use crate::exports;

/// The longest CDB (SPC-4 4.2.5.1).
pub(crate) const MAX_CDB: usize = 264;
/// A block is used again when so many others have been since.
const RESTING: usize = 64;

/// The command comes first: its address is the block's.
#[repr(C)]
struct Parts {
    command: tcmur_cmd,
    lib: tcmulib_cmd,
    cdb: [u8; MAX_CDB],
    iovecs: Vec<libc::iovec>,
}

/// What a handler gets of one command.
pub(crate) struct Block(NonNull<Parts>);

// SAFETY: plain data on the heap, which a block alone refers to while no handler has it.
unsafe impl Send for Block {}

/// The arguments of a handler's functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    /// Of the command, in the ring.
    pub(crate) id: u16,
    pub(crate) command: *mut tcmur_cmd,
    pub(crate) iovecs: *mut libc::iovec,
    pub(crate) count: usize,
    /// Of the buffer, in bytes.
    pub(crate) len: usize,
    /// [`MAX_CDB`] bytes.
    cdb: *const u8,
}

// SAFETY: pointers into a block, which stays until the command is completed; who has them hands
// them to the handler, and follows them only in the functions below.
unsafe impl Send for Arguments {}

impl Arguments {
    /// What names the command to the handler.
    pub(crate) fn key(&self) -> usize {
        self.command as usize
    }

    /// Lets the handler see that the command, which is not completed yet, has taken too long.
    pub(crate) fn time_out(self) {
        // SAFETY: the block stays until the command is completed. The handler reads this on other
        // threads, so that it is written in one step.
        unsafe { AtomicBool::from_ptr(&raw mut (*self.command).timed_out) }
            .store(true, Ordering::Relaxed);
    }

    /// The CDB, and the zeroes behind it.
    ///
    /// # Safety
    /// The command is not completed yet.
    pub(crate) unsafe fn cdb(&self) -> [u8; 32] {
        let mut cdb = [0; 32];
        // SAFETY: the caller says that the block is there; it has more bytes than these.
        unsafe { ptr::copy_nonoverlapping(self.cdb, cdb.as_mut_ptr(), cdb.len()) };
        cdb
    }
}

impl Block {
    fn new() -> Block {
        // SAFETY: both structures are plain data, for which all zeroes is a value.
        let (command, lib) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let parts = Parts { command, lib, cdb: [0; MAX_CDB], iovecs: Vec::new() };
        Block(NonNull::from(Box::leak(Box::new(parts))))
    }

    /// Makes it that of a command, for the handler.
    fn fill(&mut self, id: u16, cdb: &[u8], data: &Sgl<'_>) -> Arguments {
        // SAFETY: no handler has the block: this is the only reference.
        let parts = unsafe { self.0.as_mut() };
        let len = cdb.len().min(MAX_CDB);
        parts.cdb = [0; MAX_CDB];
        parts.cdb[..len].copy_from_slice(&cdb[..len]);
        parts.iovecs.clear();
        parts.iovecs.extend_from_slice(data.iovecs());
        let iovecs = parts.iovecs.as_mut_ptr();
        let count = parts.iovecs.len();
        let first = parts.iovecs.first().map_or(ptr::null_mut(), |iovec| iovec.iov_base);
        let parts = self.0.as_ptr();
        // SAFETY: as above; the pointers are made from the block's own, so that they stay good. All
        // zeroes is a value of the structure.
        unsafe {
            let command = &raw mut (*parts).command;
            let cdb = (&raw mut (*parts).cdb).cast::<u8>();
            (*parts).lib = tcmulib_cmd {
                cmd_id: id,
                cdb,
                iovec: iovecs,
                iov_cnt: count,
                sense_buf: [0; SENSE_LEN],
                hm_private: command.cast::<c_void>(),
            };
            *command = std::mem::zeroed();
            (*command).lib_cmd = &raw mut (*parts).lib;
            (*command).iovec = iovecs;
            (*command).iov_cnt = count;
            (*command).iov_base_copy = first;
            (*command).requested = data.len();
            (*command).done = Some(exports::done);
            Arguments { id, command, iovecs, count, len: data.len(), cdb }
        }
    }

    /// The sense data of a command that is completed.
    pub(crate) fn sense(&mut self) -> [u8; SENSE_LEN] {
        // SAFETY: the handler has completed the command, so that the block is ours alone.
        unsafe { self.0.as_ref() }.lib.sense_buf
    }

    /// What names the command to the handler.
    pub(crate) fn key(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: made by `new`; no handler has it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Blocks that no handler has.
#[derive(Default)]
pub(crate) struct Spare(VecDeque<Block>);

impl Spare {
    /// A block for a command, and what the handler gets of it.
    pub(crate) fn take(&mut self, id: u16, cdb: &[u8], data: &Sgl<'_>) -> (Block, Arguments) {
        let rested = if self.0.len() > RESTING { self.0.pop_front() } else { None };
        let mut block = rested.unwrap_or_else(Block::new);
        let arguments = block.fill(id, cdb, data);
        (block, arguments)
    }

    /// A block whose command is completed.
    pub(crate) fn put(&mut self, block: Block) {
        self.0.push_back(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_rests_before_it_is_used_again() {
        let mut spare = Spare::default();
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..=RESTING {
            let (block, arguments) = spare.take(1, &[0x28; 10], &Sgl::zeroed(512));
            assert_eq!(block.key(), arguments.key());
            assert!(seen.insert(block.key()), "{n}");
            spare.put(block);
        }
        let (block, _) = spare.take(1, &[0x28; 10], &Sgl::zeroed(512));
        assert!(!seen.insert(block.key()), "in the end it is");
    }

    #[test]
    fn a_handler_gets_cdb_and_iovecs_of_its_own() {
        let (mut a, mut b) = ([1u8; 512], [2u8; 1024]);
        let data = Sgl::from_slices([&mut a[..], &mut b[..]]);
        let (_block, arguments) = Spare::default().take(7, &[0x8a, 1, 2], &data);
        assert_eq!((arguments.count, arguments.len), (2, 1536));
        assert_ne!(arguments.iovecs.cast_const(), data.iovecs().as_ptr());
        // SAFETY: the block is there.
        let cdb = unsafe { arguments.cdb() };
        assert_eq!(cdb[..5], [0x8a, 1, 2, 0, 0]);
        // SAFETY: as above.
        let (command, lib) = unsafe { (&*arguments.command, &*(*arguments.command).lib_cmd) };
        assert_eq!((lib.cmd_id, lib.iov_cnt, command.requested), (7, 2, 1536));
        assert_eq!(lib.hm_private.cast(), arguments.command);
    }

    #[test]
    fn no_cdb_is_too_long() {
        let (_block, arguments) = Spare::default().take(0, &[0x7f; 1000], &Sgl::empty());
        assert_eq!((arguments.count, arguments.len), (0, 0));
    }
}
