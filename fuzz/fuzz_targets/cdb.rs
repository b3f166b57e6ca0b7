// SPDX-License-Identifier: Apache-2.0
//! CDBs: any bytes decode to a command, or to sense that says what is wrong with them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    scsi::fuzz::cdb(bytes);
});
