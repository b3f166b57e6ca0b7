// SPDX-License-Identifier: Apache-2.0
//! Superblocks of filesystems, and volume descriptors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    probe::fuzz::superblocks(bytes);
});
