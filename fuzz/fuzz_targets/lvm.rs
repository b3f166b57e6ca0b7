// SPDX-License-Identifier: Apache-2.0
//! LVM's labels and metadata.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    probe::fuzz::lvm(bytes);
});
