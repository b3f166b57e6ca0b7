// SPDX-License-Identifier: Apache-2.0
//! Values that are set.

use super::{count, now};
use crate::error::{Error, Result};
use crate::format::{NONE, SEGMENT, header, nk, size, vk};
use crate::keys::Node;
use crate::values::{Entry, MAX_DATA, MAX_VALUES};
use crate::{Hive, text};

/// Most characters of a value's name.
const MAX_NAME: usize = 16383;

impl Hive<Vec<u8>> {
    /// Sets a value of a key: in place of the one of this name, or behind all others.
    pub fn set_value(&mut self, node: Node, name: &str, kind: u32, data: &[u8]) -> Result<()> {
        let key = self.key(node)?;
        let units = name.encode_utf16().count();
        if units > MAX_NAME {
            return Err(Error::Argument("the name of a value has at most 16,383 characters"));
        }
        if data.len() > MAX_DATA {
            return Err(Error::TooMuch("a value's data is longer than 8,000,000 bytes"));
        }
        let entries = self.values(node)?;
        let old = self.value(node, name)?;
        if old.is_none() && entries.len() >= size(MAX_VALUES) {
            return Err(Error::TooMuch("too many values"));
        }
        let old_cells = old.map_or(Ok(Vec::new()), |old| self.leniently(self.data_cells(old)))?;
        let new = Entry(self.allocate_value(name, kind, data)?);
        let replaced = entries.iter().map(|entry| if Some(*entry) == old { new } else { *entry });
        let added = old.is_none().then_some(new);
        let list: Vec<u8> = replaced.chain(added).flat_map(|entry| entry.0.to_le_bytes()).collect();
        let values = list.len() / 4;
        let cell = match entries.is_empty() {
            true => self.allocate(&list)?,
            false => self.replace_cell(key.value_list, list)?,
        };
        self.put_number(node.0, nk::VALUE_LIST, cell)?;
        self.put_number(node.0, nk::VALUES, count(values)?)?;
        self.raise(node.0, nk::LONGEST_VALUE_NAME, count(2 * units)?)?;
        self.raise(node.0, nk::LONGEST_VALUE, count(data.len())?)?;
        self.put(node.0, nk::TIME, &now())?;
        for cell in old.iter().map(|old| old.0).chain(old_cells) {
            self.free(cell)?;
        }
        Ok(())
    }

    fn allocate_value(&mut self, name: &str, kind: u32, data: &[u8]) -> Result<u32> {
        let (bytes, narrow) = text::encoded(name);
        let len = count(data.len())?;
        let (len, at) = match data {
            data if data.len() <= 4 => {
                let mut inline = [0; 4];
                inline[..data.len()].copy_from_slice(data);
                (len | vk::INLINE, u32::from_le_bytes(inline))
            }
            data => (len, self.allocate_data(data)?),
        };
        let mut cell = b"vk".to_vec();
        let name_len = u16::try_from(bytes.len()).map_err(|_| Error::TooMuch("too long a name"))?;
        cell.extend(name_len.to_le_bytes());
        cell.extend([len, at, kind].map(u32::to_le_bytes).concat());
        cell.extend(if narrow { vk::NARROW } else { 0 }.to_le_bytes());
        cell.extend([0; 2]);
        cell.extend(bytes);
        self.allocate(&cell)
    }

    fn allocate_data(&mut self, data: &[u8]) -> Result<u32> {
        // Windows reads what is longer as segments from version 1.4 on.
        if data.len() <= SEGMENT || self.header_field(header::MINOR) < 4 {
            return self.allocate(data);
        }
        let mut list = Vec::new();
        for segment in data.chunks(SEGMENT) {
            list.extend(self.allocate(segment)?.to_le_bytes());
        }
        let segments =
            u16::try_from(list.len() / 4).map_err(|_| Error::TooMuch("data too long"))?;
        let list = self.allocate(&list)?;
        let mut cell = b"db".to_vec();
        cell.extend(segments.to_le_bytes());
        cell.extend(list.to_le_bytes());
        cell.extend(NONE.to_le_bytes());
        self.allocate(&cell)
    }
}
