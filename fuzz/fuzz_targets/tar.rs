// SPDX-License-Identifier: Apache-2.0
//! Archives of tar, unpacked into a directory that is removed at once.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(directory) = tempfile::tempdir() else { return };
    guest_fs::fuzz::tar(bytes, directory.path());
});
