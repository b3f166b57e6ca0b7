// SPDX-License-Identifier: Apache-2.0
//! Messages, chunks and progress of the guestfs protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    guestfs_api::frame::read_any(bytes);
});
