// SPDX-License-Identifier: Apache-2.0
//! Hives of Windows' registry.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    inspect::fuzz::hive(bytes);
});
