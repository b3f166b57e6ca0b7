// SPDX-License-Identifier: Apache-2.0
//! Journals of systemd.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    journal::fuzz::journal(bytes);
});
