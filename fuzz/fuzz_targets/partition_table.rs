// SPDX-License-Identifier: Apache-2.0
//! Disks with a partition table: what is read is bounded by the disk, and a GPT that was read can be written.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    probe::fuzz::partitions(bytes);
});
