// SPDX-License-Identifier: Apache-2.0
//! qcow2 images that are written to, as the last 64 bytes say.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    qcow2::fuzz::write_to(bytes);
});
