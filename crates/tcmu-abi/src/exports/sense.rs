// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! Sense data of the fixed format (SPC-4 4.5.3) in a buffer of [`SENSE_LEN`] bytes.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "what C passes is told in the parent module")]

use std::ffi::c_int;

use crate::layout::SENSE_LEN;
use crate::status;

/// Current error, fixed format.
const RESPONSE_CODE: u8 = 0x70;
/// The information field is valid.
const VALID: u8 = 0x80;
/// The bytes behind the additional length: the data end at byte 17.
const ADDITIONAL_LEN: u8 = 10;
/// Sense data of the fixed format without bytes of the vendor's.
const FIXED_LEN: usize = 18;
/// The sense-key specific field is valid.
const SKSV: u8 = 0x80;

/// The buffer behind C's pointer.
///
/// # Safety
/// It is one of [`SENSE_LEN`] bytes.
unsafe fn buffer<'a>(sense: *mut u8) -> &'a mut [u8; SENSE_LEN] {
    // SAFETY: as the caller promises.
    unsafe { &mut *sense.cast() }
}

/// Sets sense key and additional sense code. Other fields stay: they may have been set before.
pub fn set(sense: &mut [u8; SENSE_LEN], key: u8, asc_ascq: u16) {
    let [asc, ascq] = asc_ascq.to_be_bytes();
    sense[0] |= RESPONSE_CODE;
    sense[2] = key;
    sense[7] = ADDITIONAL_LEN;
    sense[12] = asc;
    sense[13] = ascq;
}

/// Sets sense key and additional sense code; other fields stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __tcmu_sense_set_data(sense: *mut u8, key: u8, asc_ascq: u16) {
    // SAFETY: C code passes a sense buffer.
    set(unsafe { buffer(sense) }, key, asc_ascq);
}

/// Sets sense key and additional sense code, and nothing else; returns the status that goes with
/// sense.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_sense_set_data(sense: *mut u8, key: u8, asc_ascq: u16) -> c_int {
    // SAFETY: C code passes a sense buffer.
    let sense = unsafe { buffer(sense) };
    *sense = [0; SENSE_LEN];
    set(sense, key, asc_ascq);
    status::PASSTHROUGH_ERR
}

/// Sets the information field and clears the others: the status that is answered adds the rest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_sense_set_info(sense: *mut u8, info: u32) {
    // SAFETY: C code passes a sense buffer.
    let sense = unsafe { buffer(sense) };
    sense[..FIXED_LEN].fill(0);
    sense[0] = VALID;
    sense[3..7].copy_from_slice(&info.to_be_bytes());
}

/// Sets the sense-key specific field, a progress or the field that is wrong, and clears the others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_sense_set_key_specific_info(sense: *mut u8, info: u16) {
    // SAFETY: C code passes a sense buffer.
    let sense = unsafe { buffer(sense) };
    sense[..FIXED_LEN].fill(0);
    sense[15] = SKSV;
    sense[16..18].copy_from_slice(&info.to_be_bytes());
}
