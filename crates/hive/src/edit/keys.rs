// SPDX-License-Identifier: Apache-2.0
//! Keys that are added, and keys that are deleted with all that is below them.

use super::{count, now};
use crate::error::{Error, Result};
use crate::format::{NONE, damaged, nk};
use crate::keys::Node;
use crate::{Hive, text};
use std::collections::{HashMap, HashSet};

/// Most characters of a key's name.
const MAX_NAME: usize = 255;

/// What goes with a key.
#[derive(Default)]
struct Gone {
    nodes: HashSet<u32>,
    /// Cells of lists, classes, values and data.
    cells: HashSet<u32>,
    /// Security descriptors, and how many of these keys use them.
    security: HashMap<u32, u32>,
}

impl Hive<Vec<u8>> {
    /// Adds a key below another; returns it. It is protected as the other one is.
    pub fn add_child(&mut self, parent: Node, name: &str) -> Result<Node> {
        let above = self.key(parent)?;
        if name.is_empty() {
            return Err(Error::Argument("the name of a key is not empty"));
        }
        let units = name.encode_utf16().count();
        if units > MAX_NAME {
            return Err(Error::Argument("the name of a key has at most 255 characters"));
        }
        if self.child(parent, name)?.is_some() {
            return Err(Error::Exists);
        }
        let (bytes, narrow) = text::encoded(name);
        let mut cell = vec![0; nk::NAME];
        cell[..2].copy_from_slice(b"nk");
        let flags = if narrow { nk::NARROW } else { 0 };
        cell[nk::FLAGS..nk::FLAGS + 2].copy_from_slice(&flags.to_le_bytes());
        cell[nk::TIME..nk::TIME + 8].copy_from_slice(&now());
        for (at, number) in [
            (nk::PARENT, parent.0),
            (nk::SUBKEY_LIST, NONE),
            (nk::VOLATILE_LIST, NONE),
            (nk::VALUE_LIST, NONE),
            (nk::SECURITY, above.security),
            (nk::CLASS, NONE),
            (nk::NAME_LEN, count(bytes.len())?),
        ] {
            cell[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        cell.extend(bytes);
        let list = if above.subkeys == 0 { NONE } else { above.subkey_list };
        self.use_security(above.security)?;
        let node = Node(self.allocate(&cell)?);
        let list = match self.insert_in_list(list, node, name) {
            Ok(list) => list,
            Err(e) => {
                self.free(node.0)?;
                self.release_security(above.security, 1)?;
                return Err(e);
            }
        };
        self.put_number(parent.0, nk::SUBKEYS, above.subkeys.saturating_add(1))?;
        self.put_number(parent.0, nk::SUBKEY_LIST, list)?;
        self.raise_half(parent.0, nk::LONGEST_SUBKEY, 2 * units)?;
        self.put(parent.0, nk::TIME, &now())?;
        Ok(node)
    }

    /// Deletes a key and all that is below it.
    pub fn delete(&mut self, node: Node) -> Result<()> {
        if node == self.root() {
            return Err(Error::Argument("the key at the top cannot be deleted"));
        }
        let parent = self.parent(node)?;
        let above = self.key(parent)?;
        let gone = self.all_of(node)?;
        if [self.root().0, parent.0].iter().any(|kept| gone.nodes.contains(kept)) {
            return Err(damaged(node.0, "a key that is below itself"));
        }
        let list = self.remove_from_list(above.subkey_list, node)?;
        self.put_number(parent.0, nk::SUBKEYS, above.subkeys.saturating_sub(1))?;
        self.put_number(parent.0, nk::SUBKEY_LIST, list)?;
        self.put(parent.0, nk::TIME, &now())?;
        for (security, uses) in gone.security {
            self.release_security(security, uses)?;
        }
        gone.nodes.iter().chain(&gone.cells).try_for_each(|cell| self.free(*cell))
    }

    /// A key and all that is below it. Each key is gone through once, wherever lists lead.
    fn all_of(&self, node: Node) -> Result<Gone> {
        let mut gone = Gone::default();
        let mut left = vec![node];
        while let Some(node) = left.pop() {
            if !gone.nodes.insert(node.0) {
                continue;
            }
            let key = self.key(node)?;
            *gone.security.entry(key.security).or_default() += 1;
            gone.cells.extend([key.class].iter().filter(|class| **class != NONE));
            if key.subkeys > 0 {
                gone.cells.extend(self.leniently(self.list_cells(key.subkey_list))?);
                left.extend(self.children(node)?);
            }
            let values = self.values(node)?;
            if !values.is_empty() {
                gone.cells.insert(key.value_list);
            }
            for value in values {
                gone.cells.insert(value.0);
                gone.cells.extend(self.leniently(self.data_cells(value))?);
            }
        }
        Ok(gone)
    }

    /// Makes the lower half of a number in a cell at least this; the upper half is flags.
    fn raise_half(&mut self, cell: u32, at: usize, number: usize) -> Result<()> {
        let have = self.number(cell, at)?;
        let longest = (have & 0xffff).max(count(number)?.min(0xffff));
        self.put_number(cell, at, have & !0xffff | longest)
    }
}
