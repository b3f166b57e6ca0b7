// SPDX-License-Identifier: Apache-2.0
//! Cells taken from the end of the hive, written, and given back.

use super::count;
use crate::Hive;
use crate::bins::Cells;
use crate::error::{Error, Result};
use crate::format::{BIN, BIN_HEAD, damaged, in_file, size, word};

/// Offsets have 31 bits.
const MAX_END: u32 = 1 << 31;

impl Hive<Vec<u8>> {
    pub(super) fn cells_mut(&mut self) -> Result<&mut Cells> {
        self.cells.as_mut().ok_or(Error::Argument("a hive that was not checked cannot be changed"))
    }

    /// A cell with this in it.
    pub(super) fn allocate(&mut self, content: &[u8]) -> Result<u32> {
        let need = count(content.len().saturating_add(4).next_multiple_of(8))?;
        let (at, end) = match self.cells_mut()?.tail {
            (at, end) if end - at >= need => (at, end),
            _ => self.add_bin(need)?,
        };
        let cells = self.cells_mut()?;
        cells.set(at, true);
        cells.tail = (at + need, end);
        self.set_size(at, need, true);
        if end > at + need {
            self.set_size(at + need, end - at - need, false);
        }
        self.put(at, 0, content)?;
        Ok(at)
    }

    /// Adds a bin with room for a cell of this size; returns where the room begins and ends.
    fn add_bin(&mut self, need: u32) -> Result<(u32, u32)> {
        let begin = self.cells_mut()?.end;
        let len = need.checked_add(BIN_HEAD).and_then(|n| n.checked_next_multiple_of(BIN));
        let end = len.and_then(|len| begin.checked_add(len)).filter(|end| *end <= MAX_END);
        let end = end.ok_or(Error::TooMuch("the hive would be longer than a hive can be"))?;
        // What was behind the bins was none of the hive.
        let (from, to) = (size_in_file(begin), size_in_file(end));
        self.source.resize(self.source.len().max(to), 0);
        let bin = &mut self.source[from..to];
        bin.fill(0);
        bin[..4].copy_from_slice(b"hbin");
        bin[4..8].copy_from_slice(&begin.to_le_bytes());
        bin[8..12].copy_from_slice(&(end - begin).to_le_bytes());
        bin[0x14..0x1c].copy_from_slice(&super::now());
        self.cells_mut()?.end = end;
        self.set_size(begin + BIN_HEAD, end - begin - BIN_HEAD, false);
        Ok((begin + BIN_HEAD, end))
    }

    /// Writes the size of a cell, which says whether it is in use.
    fn set_size(&mut self, cell: u32, room: u32, used: bool) {
        let room = if used { room.wrapping_neg() } else { room };
        let at = size_in_file(cell);
        self.source[at..at + 4].copy_from_slice(&room.to_le_bytes());
    }

    /// Gives a cell back, if it is in use. The key at the top stays, whatever else leads to it.
    pub(super) fn free(&mut self, cell: u32) -> Result<()> {
        if cell != self.root().0 && self.room(cell).is_ok() {
            let room = word(&self.source, size_in_file(cell)).unwrap_or(0).wrapping_neg();
            self.set_size(cell, room, false);
            self.cells_mut()?.set(cell, false);
        }
        Ok(())
    }

    /// Writes into a cell in use.
    pub(super) fn put(&mut self, cell: u32, at: usize, bytes: &[u8]) -> Result<()> {
        let room = self.room(cell)?;
        if at.checked_add(bytes.len()).is_none_or(|end| end > room) {
            return Err(damaged(cell, "a cell that is too short for what it holds"));
        }
        let at = size_in_file(cell) + 4 + at;
        self.source[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Writes a number into a cell in use.
    pub(super) fn put_number(&mut self, cell: u32, at: usize, number: u32) -> Result<()> {
        self.put(cell, at, &number.to_le_bytes())
    }

    /// Makes a number in a cell at least this.
    pub(super) fn raise(&mut self, cell: u32, at: usize, number: u32) -> Result<()> {
        let have = self.number(cell, at)?;
        self.put_number(cell, at, have.max(number))
    }
}

fn size_in_file(cell: u32) -> usize {
    usize::try_from(in_file(cell)).unwrap_or_else(|_| size(cell))
}
