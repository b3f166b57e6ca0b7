// SPDX-License-Identifier: Apache-2.0
//! Lists of subkeys: `lf` and `lh` (offsets, and what tells names apart), `li` (offsets only), and `ri`, a list of such
//! lists.

use crate::Hive;
use crate::error::{Error, Result};
use crate::format::{damaged, word};
use guest_fs::source::Source;

/// Most subkeys of a key.
const MAX_SUBKEYS: usize = 1 << 17;

/// A kind of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Offsets, and the first letters of names.
    Lf,
    /// Offsets, and hashes of names.
    Lh,
    /// Offsets.
    Li,
    /// Offsets of lists.
    Ri,
}

/// Each kind and the letters that it begins with.
const KINDS: [(Kind, &[u8; 2]); 4] =
    [(Kind::Lf, b"lf"), (Kind::Lh, b"lh"), (Kind::Li, b"li"), (Kind::Ri, b"ri")];

impl Kind {
    pub(crate) fn letters(self) -> [u8; 2] {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or([0; 2], |(_, letters)| **letters)
    }

    /// Bytes of an entry.
    pub(crate) fn step(self) -> usize {
        if matches!(self, Self::Lf | Self::Lh) { 8 } else { 4 }
    }
}

/// A list as it is in its cell.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) kind: Kind,
    /// Bytes of its entries.
    pub(crate) entries: Vec<u8>,
}

impl List {
    /// The offsets in it.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = u32> {
        self.entries.chunks_exact(self.kind.step()).filter_map(|entry| word(entry, 0))
    }
}

impl<S: Source + ?Sized> Hive<S> {
    /// The list in this cell.
    pub(crate) fn list(&self, cell: u32) -> Result<List> {
        let (id, count) = self.head(cell)?;
        let kind = KINDS.iter().find(|(_, letters)| **letters == id);
        let (kind, _) = *kind.ok_or_else(|| damaged(cell, "no list of subkeys"))?;
        let entries = self.part(cell, 4, usize::from(count) * kind.step())?;
        Ok(List { kind, entries })
    }

    /// The list in this cell, which is of keys.
    pub(crate) fn leaf(&self, cell: u32) -> Result<List> {
        // Only the head of what is not wanted is read.
        match self.head(cell)? {
            (id, _) if id == Kind::Ri.letters() => {
                Err(damaged(cell, "a list of lists in a list of lists"))
            }
            _ => self.list(cell),
        }
    }

    /// Calls for each entry of a list of subkeys, until told not to go on.
    pub(crate) fn for_each_entry(
        &self,
        cell: u32,
        each: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<()> {
        let mut left = MAX_SUBKEYS;
        let mut leaf = |list: &List, left: &mut usize| {
            for entry in list.offsets() {
                *left = left.checked_sub(1).ok_or(Error::TooMuch("too many subkeys"))?;
                if !each(entry)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let list = self.list(cell)?;
        if list.kind != Kind::Ri {
            return leaf(&list, &mut left).map(drop);
        }
        for cell in list.offsets() {
            let list = match self.leaf(cell) {
                Err(_) if self.lenient => continue,
                list => list?,
            };
            if !leaf(&list, &mut left)? {
                break;
            }
        }
        Ok(())
    }
}
