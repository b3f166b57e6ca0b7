// SPDX-License-Identifier: Apache-2.0
//! Sparse files in archives: the old GNU format, and those of pax headers (GNU tar manual, "Sparse Formats").

use crate::error::{Context, Result};
use crate::tar::extract::{Extractor, Meta, State, invalid, skip, unsigned};
use crate::tar::header::number;
use std::collections::VecDeque;
use std::fs::File;

/// Most pieces of a sparse file.
pub(super) const MAX_PIECES: usize = 1 << 16;

/// A sparse file: where its pieces belong.
pub(super) struct Sparse {
    pub(super) file: File,
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) pieces: VecDeque<(u64, u64)>,
}

impl Extractor<'_> {
    /// The map of a sparse file in pax format 1.0, as far as it has been read: numbers, a line each, in
    /// whole blocks before the content.
    pub(super) fn map(
        &mut self,
        mut member: Box<Sparse>,
        text: Vec<u8>,
        left: u64,
        padding: u64,
    ) -> Result<State> {
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
            if left == 0 {
                return Err(invalid("map of a sparse file ends too early"));
            }
            return Ok(State::Map { member, text, left, padding });
        }
        for _ in 0..pieces {
            let (Some(offset), Some(len)) =
                (numbers.next().transpose()?, numbers.next().transpose()?)
            else {
                return Err(invalid("map of a sparse file"));
            };
            member.pieces.push_back((offset, len));
        }
        self.begin_pieces(member, left, padding)
    }

    /// The map is complete: content comes.
    pub(super) fn begin_pieces(
        &mut self,
        member: Box<Sparse>,
        left: u64,
        padding: u64,
    ) -> Result<State> {
        let beyond = |(offset, len): &(u64, u64)| {
            offset.checked_add(*len).is_none_or(|end| end > member.size)
        };
        if member.pieces.iter().any(beyond) {
            return Err(invalid("piece of a sparse file lies beyond its end"));
        }
        self.pieces(member, left, padding)
    }

    /// Goes on with a sparse file's content, or completes it.
    pub(super) fn pieces(
        &mut self,
        mut member: Box<Sparse>,
        left: u64,
        padding: u64,
    ) -> Result<State> {
        while member.pieces.front().is_some_and(|(_, len)| *len == 0) {
            member.pieces.pop_front();
        }
        if left > 0 && !member.pieces.is_empty() {
            return Ok(State::Pieces { member, left, padding });
        }
        if !member.pieces.is_empty() {
            return Err(invalid("sparse file is shorter than its map"));
        }
        rustix::fs::ftruncate(&member.file, member.size).on(&member.meta.shown)?;
        self.complete(&member.file, &member.meta)?;
        Ok(skip(left + padding))
    }
}

/// Adds to the map of a sparse file of the old GNU format: pairs of 12 bytes each. Returns whether more follow.
pub(super) fn old_map(
    member: &mut Sparse,
    bytes: &[u8],
    pairs: usize,
    more: usize,
) -> Result<bool> {
    for pair in bytes.chunks_exact(24).take(pairs) {
        let (offset, len) = pair.split_at(12);
        if offset[0] == 0 {
            break;
        }
        let piece = (unsigned(number(offset), "map")?, unsigned(number(len), "map")?);
        member.pieces.push_back(piece);
        if member.pieces.len() > MAX_PIECES {
            return Err(invalid("sparse file has too many pieces"));
        }
    }
    Ok(bytes.get(more).is_some_and(|&b| b != 0 && b != b'0'))
}
