// SPDX-License-Identifier: Apache-2.0
//! Ring entries: any bytes in the ring are served, refused or declared broken. The first byte
//! says in which order completions are made.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((order, entries)) = bytes.split_first() {
        tcmu_sim::feed_ring(entries, order % 2 == 0);
    }
});
