// SPDX-License-Identifier: Apache-2.0
//! Hives of Windows' registry, and changes of them; the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, script)) => hive::fuzz::changes(script),
        _ => hive::fuzz::hive(input),
    }
});
