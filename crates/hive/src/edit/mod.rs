// SPDX-License-Identifier: Apache-2.0
//! Changes of a hive in memory.
//!
//! What is new goes to the end, into bins that are added; what is no longer needed becomes a free cell, and is not
//! used again while the hive is open: a handle of something deleted never leads to something else. What is changed
//! is read and checked first, so that a call that fails has changed nothing that a reader of the hive would see.

mod cells;
mod keys;
mod lists;
mod security;
mod values;

use crate::Hive;
use crate::error::{Error, Result};
use crate::format::{HEADER, checksum, header};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

impl Hive<Vec<u8>> {
    /// The hive as it is now, to be written to a file: its header says that all of it is there.
    pub fn to_be_written(&mut self) -> Result<&[u8]> {
        let end = self.cells_mut()?.end;
        let sequence = self.header_field(header::SEQUENCE_1).wrapping_add(1);
        self.set_header_field(header::SEQUENCE_1, sequence);
        self.set_header_field(header::SEQUENCE_2, sequence);
        self.set_header_field(header::BINS, end);
        self.source[header::TIME..header::TIME + 8].copy_from_slice(&now());
        let sum = checksum(&self.source[..HEADER]);
        self.set_header_field(header::CHECKSUM, sum);
        Ok(&self.source)
    }

    fn header_field(&self, at: usize) -> u32 {
        crate::format::word(&self.source, at).unwrap_or(0)
    }

    fn set_header_field(&mut self, at: usize, value: u32) {
        self.source[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The time as Windows has it: 100 ns since 1601.
fn now() -> [u8; 8] {
    /// From 1601 to 1970.
    const EPOCH: Duration = Duration::from_secs(11_644_473_600);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + EPOCH;
    u64::try_from(since.as_nanos() / 100).unwrap_or(0).to_le_bytes()
}

/// A count that goes into a cell.
fn count(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::TooMuch("longer than a hive can hold"))
}
