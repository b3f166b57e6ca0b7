// SPDX-License-Identifier: Apache-2.0
//! Archives of cpio, as initrds are.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    guest_fs::fuzz::cpio(bytes);
    inspect::fuzz::first_program(bytes);
});
