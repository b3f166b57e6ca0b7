// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: journal files. What must hold of what comes out is asserted here; the tests are a
//! short run of the same.

use crate::{Error, Journal};

/// Most entries that are looked at.
const ENTRIES: usize = 256;

/// One or two journal files of these bytes: the first says how many of them the first file has, in 256ths.
pub fn journal(input: &[u8]) {
    let Some((part, bytes)) = input.split_first() else { return };
    let (one, two) = bytes.split_at(bytes.len() * usize::from(*part) / 256);
    let mut journal = Journal::default();
    for bytes in [bytes, one, two] {
        journal.add(bytes.to_vec()).ok();
    }
    assert!(matches!(journal.realtime(), Err(Error::NoEntry)), "no entry has been gone to");
    let mut left = ENTRIES;
    while left > 0 && journal.next().is_ok_and(|more| more) {
        left -= 1;
        assert!(journal.realtime().is_ok_and(|time| time != 0), "an entry has a time");
        journal.fields(|_| Ok::<(), Error>(())).ok();
    }
    while left < ENTRIES && journal.previous().is_ok_and(|more| more) {
        left += 1;
    }
}
