// SPDX-License-Identifier: Apache-2.0
//! A disk as tables are read from it.

use std::io::{self, Read, Seek, SeekFrom};

/// A disk's measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a logical sector: 512, 4096.
    pub sector: u64,
    /// Bytes of the disk.
    pub size: u64,
}

impl Geometry {
    /// Number of whole sectors.
    pub fn sectors(&self) -> u64 {
        self.size / self.sector.max(1)
    }
}

/// What was read, and whether others would read the same.
pub(super) struct Reading<T> {
    pub(super) table: T,
    pub(super) doubtful: bool,
}

impl<T> Reading<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        Reading { table: f(self.table), doubtful: self.doubtful }
    }
}

/// Fills the buffer from an offset in bytes.
pub(super) fn read_at(
    disk: &mut (impl Read + Seek),
    offset: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    disk.seek(SeekFrom::Start(offset))?;
    disk.read_exact(buffer)
}

/// A little-endian number of at most 8 bytes.
pub(super) fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// Whether no two of these ranges (first and last sector) have one in common.
pub(super) fn disjoint(mut ranges: Vec<(u64, u64)>) -> bool {
    ranges.sort_unstable();
    ranges.windows(2).all(|pair| pair[0].1 < pair[1].0)
}
