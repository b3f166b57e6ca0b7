// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! Fields of CDBs (SPC-4 4.2, SBC-3 5), by the length that the opcode gives.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "what C passes is told in the parent module")]

use std::ffi::{CStr, c_char, c_int};
use std::fmt::Write;
use std::slice;

use crate::Device;
use crate::exports::log::{self, Level};
use crate::layout::tcmulib_cmd;

/// VARIABLE LENGTH CDB.
const VARIABLE_LENGTH: u8 = 0x7f;

/// The length of a CDB of this opcode; `None` for the groups that have none (SPC-4 4.2.5.1).
fn length(opcode: u8, additional: u8) -> Option<usize> {
    match opcode >> 5 {
        3 if opcode != VARIABLE_LENGTH => None,
        6 | 7 => None,
        _ => Some(tcmu::mailbox::cdb_len(opcode, additional)),
    }
}

/// The CDB behind C's pointer; empty if its opcode has no length.
///
/// # Safety
/// It is as long as its opcode says.
unsafe fn bytes<'a>(cdb: *const u8) -> &'a [u8] {
    // SAFETY: the caller promises it; the byte 7 is looked at only where there is one.
    unsafe {
        let opcode = cdb.read();
        let additional = if opcode == VARIABLE_LENGTH { cdb.add(7).read() } else { 0 };
        slice::from_raw_parts(cdb, length(opcode, additional).unwrap_or(0))
    }
}

/// A big-endian field.
fn field<const N: usize>(cdb: &[u8], at: usize) -> u64 {
    let bytes: Option<&[u8; N]> = cdb.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn lba(cdb: &[u8]) -> u64 {
    match cdb.len() {
        6 => field::<3>(cdb, 1) & 0x1f_ffff,
        10 | 12 => field::<4>(cdb, 2),
        16 => field::<8>(cdb, 2),
        32 => field::<8>(cdb, 12),
        _ => 0,
    }
}

fn transfer_length(cdb: &[u8]) -> u64 {
    match cdb.len() {
        6 => field::<1>(cdb, 4),
        10 => field::<2>(cdb, 7),
        12 => field::<4>(cdb, 6),
        16 => field::<4>(cdb, 10),
        32 => field::<4>(cdb, 28),
        _ => 0,
    }
}

/// Its length in bytes, or -EINVAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cdb_get_length(cdb: *mut u8) -> c_int {
    // SAFETY: C code passes a CDB.
    match unsafe { bytes(cdb) }.len() {
        0 => -libc::EINVAL,
        len => c_int::try_from(len).unwrap_or(-libc::EINVAL),
    }
}

/// Its logical block address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cdb_get_lba(cdb: *mut u8) -> u64 {
    // SAFETY: C code passes a CDB.
    lba(unsafe { bytes(cdb) })
}

/// Its transfer length in blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cdb_get_xfer_length(cdb: *mut u8) -> u32 {
    // SAFETY: C code passes a CDB.
    let length = transfer_length(unsafe { bytes(cdb) });
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Its logical block address in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cdb_to_byte(device: *mut Device, cdb: *mut u8) -> u64 {
    // SAFETY: C code passes a device or null, and a CDB.
    unsafe { super::device::tcmu_lba_to_byte(device, tcmu_cdb_get_lba(cdb)) }
}

/// Logs a command's CDB at the level of SCSI commands, with a text of the caller's behind it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cdb_print_info(
    device: *mut Device,
    command: *const tcmulib_cmd,
    info: *const c_char,
) {
    if !log::wanted(Level::DebugScsiCmd) {
        return;
    }
    // SAFETY: C code passes a device or null, a command with its CDB, and text or null.
    let (device, cdb, info) = unsafe {
        let info = (!info.is_null()).then(|| CStr::from_ptr(info).to_string_lossy());
        (Device::from_ptr(device), bytes((*command).cdb), info)
    };
    let mut text = String::new();
    for byte in cdb {
        let _ = write!(text, "{byte:x} ");
    }
    text.push_str(info.as_deref().unwrap_or_default());
    log::log(Level::DebugScsiCmd, device, "tcmu_cdb_print_info", 0, text.trim_end());
}
