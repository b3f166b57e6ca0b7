// SPDX-License-Identifier: Apache-2.0
//! Parameter lists of UNMAP, EXTENDED COPY, MODE SELECT, SET TARGET PORT GROUPS and FORMAT UNIT.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    scsi::fuzz::parameter_list(bytes);
});
