// SPDX-License-Identifier: Apache-2.0
//! qcow2 images and those of version 1, as `block` opens them: other files' names are in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    block::fuzz::qcow(bytes);
});
