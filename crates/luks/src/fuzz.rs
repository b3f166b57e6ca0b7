// SPDX-License-Identifier: Apache-2.0
//! Hostile headers: what the fuzzer in `fuzz/` feeds. A header is parsed, and unlocked where that
//! takes no time; it may be refused, and nothing else may happen.
use crate::{HEADER_LEN, Header, Secret};

/// The most rounds of PBKDF2 that are worked through.
const MAX_ROUNDS: u64 = 2000;

/// A header with its key material.
pub fn header(bytes: &[u8]) {
    let Ok(header) = Header::parse(bytes) else { return };
    assert!((HEADER_LEN..=16 << 20).contains(&header.area_len()), "it is not long");
    if header.rounds() <= MAX_ROUNDS {
        let _ = header.unlock(bytes, &Secret::new(b"abc".to_vec()));
    }
}
