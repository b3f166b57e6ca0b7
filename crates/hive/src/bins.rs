// SPDX-License-Identifier: Apache-2.0
//! Bins and the cells in them: which are in use, and what is in them.

use crate::error::{Error, Result};
use crate::format::{BIN, BIN_HEAD, NONE, damaged, header, in_file, size, word};
use crate::{Hive, format};
use guest_fs::source::Source;

/// Bytes read at once while all cells are looked at.
const WINDOW: usize = 64 << 10;

/// Which cells of a hive are in use: one bit for each four bytes.
#[derive(Debug)]
pub(crate) struct Cells {
    used: Vec<u64>,
    /// Where the bins end.
    pub(crate) end: u32,
    /// Where there is room at the end of a bin that was added, and where that ends.
    pub(crate) tail: (u32, u32),
}

impl Cells {
    /// Looks at all cells of all bins.
    pub(crate) fn scan(source: &impl Source, root: u32, lenient: bool) -> Result<Self> {
        let mut window = Window { source, begin: 0, bytes: Vec::new() };
        let file = source.len()?.saturating_sub(format::HEADER as u64);
        // Offsets have 31 bits: the 32nd tells volatile cells.
        let file = u32::try_from(file).ok().filter(|len| *len <= 1 << 31);
        let file = file.ok_or(Error::Unsupported("longer than a hive can be"))?;
        let mut head = [0; 4];
        source.read_exact_at(&mut head, header::BINS as u64)?;
        let end = u32::from_le_bytes(head).min(file);
        let mut cells = Self { used: vec![0; size(end / 256 + 1)], end, tail: (0, 0) };
        let mut bin = 0;
        while bin < end {
            match cells.scan_bin(&mut window, bin, file, lenient) {
                Ok(len) => bin += len,
                Err(e) if !lenient || matches!(e, Error::Io(_)) => return Err(e),
                // Where the next one begins is not known.
                Err(_) => break,
            }
        }
        cells.end = bin;
        let is_key = cells.is_used(root) && window.bytes_at::<2>(root + 4)? == *b"nk";
        if is_key { Ok(cells) } else { Err(damaged(root, "the key at the top is none")) }
    }

    /// Looks at the cells of one bin; returns its length.
    fn scan_bin(
        &mut self,
        window: &mut Window<'_, impl Source>,
        bin: u32,
        file: u32,
        lenient: bool,
    ) -> Result<u32> {
        let bad = |at, what| Err(damaged(at, what));
        if window.bytes_at::<4>(bin)? != *b"hbin" {
            return bad(bin, "no bin where one should begin");
        }
        let len = u32::from_le_bytes(window.bytes_at(bin + 8)?);
        if len == 0 || !len.is_multiple_of(BIN) || len > file - bin {
            return bad(bin, "a bin of an impossible size");
        }
        let mut at = bin + BIN_HEAD;
        while at < bin + len {
            let cell = i32::from_le_bytes(window.bytes_at(at)?);
            let room = cell.unsigned_abs();
            if room < 8 || !room.is_multiple_of(4) || room > bin + len - at {
                // The rest of this bin cannot be told apart.
                return if lenient { Ok(len) } else { bad(at, "a cell of an impossible size") };
            }
            if cell < 0 {
                self.set(at, true);
            }
            at += room;
        }
        Ok(len)
    }

    /// Whether a cell in use begins there.
    pub(crate) fn is_used(&self, at: u32) -> bool {
        let word = self.used.get(size(at / 256));
        at.is_multiple_of(4) && word.is_some_and(|w| w >> (at / 4 % 64) & 1 != 0)
    }

    /// Says whether a cell in use begins there.
    pub(crate) fn set(&mut self, at: u32, used: bool) {
        let (index, bit) = (size(at / 256), 1 << (at / 4 % 64));
        if index >= self.used.len() {
            self.used.resize(index + 1, 0);
        }
        if used { self.used[index] |= bit } else { self.used[index] &= !bit }
    }
}

/// A part of the hive, read ahead.
struct Window<'s, S> {
    source: &'s S,
    begin: u64,
    bytes: Vec<u8>,
}

impl<S: Source> Window<'_, S> {
    /// A few bytes at an offset of the bins.
    fn bytes_at<const N: usize>(&mut self, at: u32) -> Result<[u8; N]> {
        let at = in_file(at);
        let within = |w: &Self| {
            let from = usize::try_from(at.checked_sub(w.begin)?).ok()?;
            w.bytes.get(from..from + N)?.try_into().ok()
        };
        if let Some(found) = within(self) {
            return Ok(found);
        }
        let len = self.source.len()?.saturating_sub(at).min(WINDOW as u64);
        self.bytes.resize(usize::try_from(len).unwrap_or(WINDOW), 0);
        self.begin = at;
        self.source.read_exact_at(&mut self.bytes, at)?;
        within(self).ok_or(Error::Damaged { at, what: "the file ends here" })
    }
}

impl<S: Source + ?Sized> Hive<S> {
    /// Bytes in a cell in use, without those of its size.
    pub(crate) fn room(&self, cell: u32) -> Result<usize> {
        if self.cells.as_ref().is_some_and(|cells| !cells.is_used(cell)) || cell == NONE {
            return Err(damaged(cell, "no cell in use where one should be"));
        }
        let mut bytes = [0; 4];
        self.read(&mut bytes, in_file(cell))?;
        // A cell in use has its size negated.
        let room =
            i32::from_le_bytes(bytes).checked_neg().and_then(|room| u32::try_from(room).ok());
        match room {
            Some(room) if room > 4 => Ok(size(room) - 4),
            _ => Err(damaged(cell, "no cell in use where one should be")),
        }
    }

    /// Bytes of a cell, all of which must be there.
    pub(crate) fn part(&self, cell: u32, from: usize, len: usize) -> Result<Vec<u8>> {
        let room = self.room(cell)?;
        if from.checked_add(len).is_none_or(|end| end > room) {
            return Err(damaged(cell, "a cell that is too short for what it holds"));
        }
        let mut bytes = vec![0; len];
        self.read(&mut bytes, in_file(cell) + 4 + from as u64)?;
        Ok(bytes)
    }

    /// A number in a cell.
    pub(crate) fn number(&self, cell: u32, at: usize) -> Result<u32> {
        let bytes = self.part(cell, at, 4)?;
        word(&bytes, 0).ok_or_else(|| damaged(cell, "too short"))
    }

    /// The two letters that say what a cell is, and the count that follows in most.
    pub(crate) fn head(&self, cell: u32) -> Result<([u8; 2], u16)> {
        let bytes = self.part(cell, 0, 4)?;
        Ok(([bytes[0], bytes[1]], u16::from_le_bytes([bytes[2], bytes[3]])))
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        match self.source.read_exact_at(bytes, at) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(Error::Damaged { at, what: "the file ends before" })
            }
            done => Ok(done?),
        }
    }
}
