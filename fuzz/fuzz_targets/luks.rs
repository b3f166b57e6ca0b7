// SPDX-License-Identifier: Apache-2.0
//! LUKS headers with their key material.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    luks::fuzz::header(bytes);
});
