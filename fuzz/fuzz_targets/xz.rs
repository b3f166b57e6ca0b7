// SPDX-License-Identifier: Apache-2.0
//! Images compressed as .xz.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    block::fuzz::xz(bytes);
});
