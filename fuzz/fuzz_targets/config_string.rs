// SPDX-License-Identifier: Apache-2.0
//! Configuration strings: parsing only, nothing is opened.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|config: &str| {
    if let Err(error) = block::Config::parse(config) {
        assert!(!error.to_string().is_empty(), "a refusal without a reason");
    }
});
