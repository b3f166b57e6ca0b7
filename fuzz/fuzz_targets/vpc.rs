// SPDX-License-Identifier: Apache-2.0
//! VHD images.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    block::fuzz::vpc(bytes);
});
