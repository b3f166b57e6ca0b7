// SPDX-License-Identifier: Apache-2.0
//! Lists of subkeys that get an entry, or lose one.

use crate::error::{Error, Result};
use crate::format::{NONE, damaged, header};
use crate::keys::Node;
use crate::lists::{Kind, List};
use crate::{Hive, text};
use std::cmp::Ordering;

/// Most entries of a list of keys: with more of them it becomes two.
const MAX_LEAF: usize = 1012;
/// From so many bytes on, a list gets room for a fourth more, lest each entry leave a copy behind.
const LONG: usize = 128;

impl List {
    fn len(&self) -> usize {
        self.entries.len() / self.kind.step()
    }

    /// The bytes of its cell.
    fn cell(&self) -> Result<Vec<u8>> {
        let count = u16::try_from(self.len());
        let count = count.map_err(|_| Error::TooMuch("too many subkeys"))?;
        Ok([&self.kind.letters()[..], &count.to_le_bytes(), &self.entries].concat())
    }

    fn insert(&mut self, index: usize, entry: &[u8]) {
        let at = index * self.kind.step();
        self.entries.splice(at..at, entry.iter().copied());
    }

    fn remove(&mut self, index: usize) {
        let at = index * self.kind.step();
        self.entries.drain(at..at + self.kind.step());
    }
}

impl Hive<Vec<u8>> {
    /// Puts a key into the list in this cell (or a new one), in its order; returns the cell of the list then.
    pub(super) fn insert_in_list(&mut self, cell: u32, node: Node, name: &str) -> Result<u32> {
        if cell == NONE {
            // Hashes are known to version 1.5.
            let kind = if self.header_field(header::MINOR) >= 5 { Kind::Lh } else { Kind::Lf };
            let entries = entry(kind, node, name);
            return self.allocate(&List { kind, entries }.cell()?);
        }
        let mut list = self.list(cell)?;
        if list.kind != Kind::Ri {
            let (first, second) = self.with_entry(list, node, name)?;
            let Some(second) = second else { return self.replace_list(cell, &first) };
            let first = self.replace_list(cell, &first)?;
            let second = self.allocate(&second.cell()?)?;
            let entries = [first, second].map(u32::to_le_bytes).concat();
            return self.allocate(&List { kind: Kind::Ri, entries }.cell()?);
        }
        // The last list whose first key comes before this one.
        let leaves: Vec<u32> = list.offsets().collect();
        let mut index = 0;
        for (i, leaf) in leaves.iter().enumerate().skip(1) {
            let first = self.leaf(*leaf)?.offsets().next();
            let first = first.ok_or_else(|| damaged(*leaf, "an empty list"))?;
            if text::order(&self.name(Node(first))?, name) == Ordering::Greater {
                break;
            }
            index = i;
        }
        let leaf = *leaves.get(index).ok_or_else(|| damaged(cell, "an empty list"))?;
        let (first, second) = self.with_entry(self.leaf(leaf)?, node, name)?;
        let first = self.replace_list(leaf, &first)?;
        if let Some(second) = second {
            let second = self.allocate(&second.cell()?)?;
            list.remove(index);
            list.insert(index, &[first, second].map(u32::to_le_bytes).concat());
            return self.replace_list(cell, &list);
        }
        self.put_number(cell, 4 + 4 * index, first)?;
        Ok(cell)
    }

    /// A list of keys with one more in it, as one list or two.
    fn with_entry(&self, mut list: List, node: Node, name: &str) -> Result<(List, Option<List>)> {
        let offsets: Vec<u32> = list.offsets().collect();
        let (mut low, mut high) = (0, offsets.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match text::order(&self.name(Node(offsets[middle]))?, name) {
                Ordering::Less => low = middle + 1,
                _ => high = middle,
            }
        }
        list.insert(low, &entry(list.kind, node, name));
        if list.len() <= MAX_LEAF {
            return Ok((list, None));
        }
        let half = list.len() / 2 * list.kind.step();
        let entries = list.entries.split_off(half);
        let second = List { kind: list.kind, entries };
        Ok((list, Some(second)))
    }

    /// A list in place of another: where that is if there is room, else in a new cell.
    fn replace_list(&mut self, old: u32, list: &List) -> Result<u32> {
        self.replace_cell(old, list.cell()?)
    }

    /// Other content for a list that grows.
    pub(super) fn replace_cell(&mut self, old: u32, mut content: Vec<u8>) -> Result<u32> {
        if content.len() <= self.room(old)? {
            self.put(old, 0, &content)?;
            return Ok(old);
        }
        let room = if content.len() < LONG { 0 } else { content.len() / 4 };
        content.resize(content.len() + room, 0);
        let new = self.allocate(&content)?;
        self.free(old)?;
        Ok(new)
    }

    /// Takes a key out of the list in this cell; returns the cell of the list then, if there is one.
    pub(super) fn remove_from_list(&mut self, cell: u32, node: Node) -> Result<u32> {
        let list = self.list(cell)?;
        if list.kind != Kind::Ri {
            return match self.remove_from_leaf(cell, list, node)? {
                Some(0) => {
                    self.free(cell)?;
                    Ok(NONE)
                }
                Some(_) => Ok(cell),
                None => Err(damaged(cell, "a list without a key that should be in it")),
            };
        }
        let leaves: Vec<u32> = list.offsets().collect();
        for (index, leaf) in leaves.iter().enumerate() {
            let found = self.leaf(*leaf)?;
            match self.remove_from_leaf(*leaf, found, node)? {
                None => {}
                Some(0) => {
                    self.free(*leaf)?;
                    let mut list = list;
                    list.remove(index);
                    if list.len() == 0 {
                        self.free(cell)?;
                        return Ok(NONE);
                    }
                    self.put(cell, 0, &list.cell()?)?;
                    return Ok(cell);
                }
                Some(_) => return Ok(cell),
            }
        }
        Err(damaged(cell, "a list without a key that should be in it"))
    }

    /// Takes a key out of a list of keys; returns how many are left in it, or none if it was not there.
    fn remove_from_leaf(&mut self, cell: u32, mut list: List, node: Node) -> Result<Option<usize>> {
        let Some(index) = list.offsets().position(|offset| offset == node.0) else {
            return Ok(None);
        };
        list.remove(index);
        self.put(cell, 0, &list.cell()?)?;
        Ok(Some(list.len()))
    }

    /// All cells that a key's list of subkeys is in.
    pub(super) fn list_cells(&self, cell: u32) -> Result<Vec<u32>> {
        let list = self.list(cell)?;
        let mut cells = vec![cell];
        if list.kind == Kind::Ri {
            cells.extend(list.offsets());
        }
        Ok(cells)
    }
}

/// An entry for a key.
fn entry(kind: Kind, node: Node, name: &str) -> Vec<u8> {
    let mut entry = node.0.to_le_bytes().to_vec();
    match kind {
        Kind::Lf => entry.extend(text::hint(name)),
        Kind::Lh => entry.extend(text::hash(name)),
        Kind::Li | Kind::Ri => {}
    }
    entry
}
