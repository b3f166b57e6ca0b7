// SPDX-License-Identifier: Apache-2.0
//! Superblocks of md, and the kernel's table of arrays.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    probe::fuzz::md(bytes);
});
