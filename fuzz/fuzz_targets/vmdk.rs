// SPDX-License-Identifier: Apache-2.0
//! VMDK images: a sparse extent, or a descriptor and, after a NUL byte, what is in each of its files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    block::fuzz::vmdk(bytes);
});
