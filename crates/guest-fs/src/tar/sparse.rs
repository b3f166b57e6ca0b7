// SPDX-License-Identifier: Apache-2.0
//! Sparse files in archives: the old GNU format, and those of pax headers (GNU tar manual, "Sparse Formats").

use crate::tar::extra::MAX_PIECES;
use crate::tar::fault::{invalid, unsigned};
use crate::tar::header::number;
use crate::tar::member::Meta;
use guest_error::Result;
use std::collections::VecDeque;
use std::fs::File;

/// A sparse file: where its pieces belong.
pub(super) struct Sparse {
    pub(super) file: File,
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) pieces: VecDeque<(u64, u64)>,
}

impl Sparse {
    /// Takes the map in pax format 1.0, as far as it has been read: numbers, a line each, in whole blocks before
    /// the content. False if it goes on, which it must not do after its `last` block.
    pub(super) fn add_map(&mut self, text: &[u8], last: bool) -> Result<bool> {
        let mut lines = text.split(|&b| b == b'\n');
        // What follows the last newline is no line yet.
        let complete = text.iter().filter(|&&b| b == b'\n').count();
        let mut numbers = lines.by_ref().take(complete).map(|line| {
            let digits = std::str::from_utf8(line).ok().and_then(|l| l.parse::<u64>().ok());
            digits.ok_or_else(|| invalid("map of a sparse file"))
        });
        let count = numbers.next().transpose()?;
        let pieces = match count {
            Some(n) => usize::try_from(n).ok().filter(|n| *n <= MAX_PIECES),
            None => Some(0),
        };
        let pieces = pieces.ok_or_else(|| invalid("sparse file has too many pieces"))?;
        if count.is_none() || complete < 1 + 2 * pieces {
            if last {
                return Err(invalid("map of a sparse file ends too early"));
            }
            return Ok(false);
        }
        for _ in 0..pieces {
            let (Some(offset), Some(len)) =
                (numbers.next().transpose()?, numbers.next().transpose()?)
            else {
                return Err(invalid("map of a sparse file"));
            };
            self.pieces.push_back((offset, len));
        }
        Ok(true)
    }

    /// Adds to the map of the old GNU format: pairs of 12 bytes each. Returns whether more follow.
    pub(super) fn add_old_map(&mut self, bytes: &[u8], pairs: usize, more: usize) -> Result<bool> {
        for pair in bytes.chunks_exact(24).take(pairs) {
            let (offset, len) = pair.split_at(12);
            if offset[0] == 0 {
                break;
            }
            let piece = (unsigned(number(offset), "map")?, unsigned(number(len), "map")?);
            self.pieces.push_back(piece);
            if self.pieces.len() > MAX_PIECES {
                return Err(invalid("sparse file has too many pieces"));
            }
        }
        Ok(bytes.get(more).is_some_and(|&b| b != 0 && b != b'0'))
    }

    /// An error for a map that leads beyond the file.
    pub(super) fn check(&self) -> Result<()> {
        let beyond =
            |(offset, len): &(u64, u64)| offset.checked_add(*len).is_none_or(|end| end > self.size);
        if self.pieces.iter().any(beyond) {
            return Err(invalid("piece of a sparse file lies beyond its end"));
        }
        Ok(())
    }

    /// Whether content is to be written yet, of which the archive has so many bytes left.
    pub(super) fn wants_content(&mut self, left: u64) -> Result<bool> {
        while self.pieces.front().is_some_and(|(_, len)| *len == 0) {
            self.pieces.pop_front();
        }
        match self.pieces.is_empty() {
            true => Ok(false),
            false if left > 0 => Ok(true),
            false => Err(invalid("sparse file is shorter than its map")),
        }
    }
}
