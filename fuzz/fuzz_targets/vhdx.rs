// SPDX-License-Identifier: Apache-2.0
//! VHDX images, in pages.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    block::fuzz::vhdx_pages(bytes);
});
