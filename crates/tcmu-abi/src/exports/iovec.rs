// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! Data in pieces (`struct iovec`). The data lie in memory that is shared with the kernel: they are
//! copied and compared through raw pointers.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "what C passes is told in the parent module")]

use std::ffi::c_void;
use std::{ptr, slice};

use libc::iovec;

use crate::layout::tcmulib_cmd;

/// The pieces behind C's pointer.
///
/// # Safety
/// There are so many, or none.
unsafe fn pieces<'a>(first: *const iovec, count: usize) -> &'a [iovec] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

/// Calls `each` for the pieces until they or `len` bytes are at their end: the piece's address, the
/// offset in the whole, and how many bytes. Moves the beginning of the pieces on; returns how many
/// bytes there were.
///
/// # Safety
/// There are so many pieces, or none, which are the caller's to change.
unsafe fn consume(
    first: *mut iovec,
    count: usize,
    len: usize,
    mut each: impl FnMut(*mut u8, usize, usize),
) -> usize {
    let pieces = match first.is_null() {
        true => &mut [],
        // SAFETY: as the caller promises.
        false => unsafe { slice::from_raw_parts_mut(first, count) },
    };
    let mut done = 0;
    for piece in pieces {
        let part = piece.iov_len.min(len - done);
        if part > 0 {
            each(piece.iov_base.cast(), done, part);
        }
        piece.iov_base = piece.iov_base.wrapping_byte_add(part);
        piece.iov_len -= part;
        done += part;
    }
    done
}

/// The length of all pieces in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_iovec_length(first: *mut iovec, count: usize) -> usize {
    // SAFETY: C code passes so many pieces.
    let pieces = unsafe { pieces(first, count) };
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.iov_len))
}

/// The offset of the first byte that differs from `memory`, or -1. The pieces have `len` bytes or
/// more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_iovec_compare(
    memory: *mut c_void,
    mut piece: *mut iovec,
    len: usize,
) -> libc::off_t {
    let memory = memory.cast::<u8>();
    let mut done = 0;
    while done < len {
        // SAFETY: C code passes pieces and memory of so many bytes.
        let (theirs, part) =
            unsafe { ((*piece).iov_base.cast::<u8>(), (*piece).iov_len.min(len - done)) };
        // SAFETY: as above; the bytes may change at any time, so that they are read one by one.
        let differs =
            |i: &usize| unsafe { theirs.add(*i).read_volatile() != *memory.add(done + *i) };
        if let Some(at) = (0..part).find(differs) {
            return libc::off_t::try_from(done + at).unwrap_or(libc::off_t::MAX);
        }
        done += part;
        // SAFETY: the next piece, or the end of the list.
        piece = unsafe { piece.add(1) };
    }
    -1
}

/// Moves the beginning of the pieces on; returns how many of them are used up, which are empty then.
/// They have so many bytes or more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_iovec_seek(mut piece: *mut iovec, len: usize) -> usize {
    let (mut left, mut used) = (len, 0);
    while left > 0 {
        // SAFETY: C code passes pieces of so many bytes, which are its own.
        let current = unsafe { &mut *piece };
        if left < current.iov_len {
            current.iov_base = current.iov_base.wrapping_byte_add(left);
            current.iov_len -= left;
            break;
        }
        left -= current.iov_len;
        current.iov_len = 0;
        used += 1;
        // SAFETY: the next piece, or the end of the list.
        piece = unsafe { piece.add(1) };
    }
    used
}

/// Moves the beginning of a command's data on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cmd_seek(command: *mut tcmulib_cmd, len: usize) {
    // SAFETY: C code passes a command that it has, with so many bytes.
    unsafe {
        let used = tcmu_iovec_seek((*command).iovec, len);
        (*command).iovec = (*command).iovec.add(used);
        (*command).iov_cnt = (*command).iov_cnt.saturating_sub(used);
    }
}

/// Fills the pieces with zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_iovec_zero(first: *mut iovec, count: usize) {
    // SAFETY: C code passes so many pieces, which are writable.
    unsafe {
        for piece in pieces(first, count) {
            ptr::write_bytes(piece.iov_base.cast::<u8>(), 0, piece.iov_len);
        }
    }
}

/// Whether all bytes are zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_iovec_zeroed(first: *mut iovec, count: usize) -> bool {
    // SAFETY: C code passes so many pieces, which are readable; the bytes may change at any time.
    unsafe {
        pieces(first, count).iter().all(|piece| {
            let base = piece.iov_base.cast::<u8>();
            (0..piece.iov_len).all(|i| base.add(i).read_volatile() == 0)
        })
    }
}

/// Copies into the pieces and moves their beginning on; returns how many bytes fitted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_memcpy_into_iovec(
    first: *mut iovec,
    count: usize,
    source: *mut c_void,
    len: usize,
) -> usize {
    let source = source.cast::<u8>();
    // SAFETY: C code passes so many pieces, which are writable, and `len` bytes to copy.
    unsafe { consume(first, count, len, |piece, at, part| ptr::copy(source.add(at), piece, part)) }
}

/// Copies out of the pieces and moves their beginning on; returns how many bytes there were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_memcpy_from_iovec(
    target: *mut c_void,
    len: usize,
    first: *mut iovec,
    count: usize,
) -> usize {
    let target = target.cast::<u8>();
    // SAFETY: C code passes so many pieces, which are readable, and room for `len` bytes.
    unsafe { consume(first, count, len, |piece, at, part| ptr::copy(piece, target.add(at), part)) }
}
