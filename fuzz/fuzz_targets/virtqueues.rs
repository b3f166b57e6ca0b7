// SPDX-License-Identifier: Apache-2.0
//! The rings of a guest of User-Mode Linux, served as a disk or a console.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A ring that is none is an error, and no more.
    let _ = guestfs_novm::fuzz::requests(bytes);
});
