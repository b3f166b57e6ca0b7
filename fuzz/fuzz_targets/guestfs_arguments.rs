// SPDX-License-Identifier: Apache-2.0
//! Arguments of every procedure: its number, the bitmask, the body.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((number, rest)) = bytes.split_first_chunk()
        && let Some((mask, body)) = rest.split_first_chunk()
    {
        let number = u32::from(u16::from_le_bytes(*number)) % (guestfs_api::MAX_NUMBER + 1);
        guestfs_api::holds_arguments(number, body, u64::from_le_bytes(*mask));
    }
});
