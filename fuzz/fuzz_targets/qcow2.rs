// SPDX-License-Identifier: Apache-2.0
//! qcow2 images that are checked, repaired, and read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    qcow2::fuzz::read(bytes);
});
