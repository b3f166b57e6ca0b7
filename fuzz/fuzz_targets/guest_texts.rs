// SPDX-License-Identifier: Apache-2.0
//! Texts of the guest (fstab, os-release, access control lists ...) and of the client (mountables, base64).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => guest_fs::fuzz::texts(text),
        1 => inspect::fuzz::texts(text),
        _ => guestfsd::fuzz::texts(text),
    }
});
