// SPDX-License-Identifier: Apache-2.0
//! Values of keys: their names, types and data.

use crate::error::{Error, Result};
use crate::format::{NONE, SEGMENT, damaged, half, size, vk, word};
use crate::keys::{Node, cell};
use crate::{Hive, text};
use guest_fs::source::Source;

/// Most values of a key, and most bytes of a value's data: as other programs have it.
pub(crate) const MAX_VALUES: u32 = 110_000;
pub(crate) const MAX_DATA: usize = 8_000_000;

/// A value of a key, where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry(pub(crate) u32);

/// A value of a key, with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name; empty for the default value.
    pub name: String,
    /// Its type.
    pub kind: u32,
    /// Its data.
    pub data: Vec<u8>,
}

impl Value {
    /// `REG_SZ`, `REG_EXPAND_SZ`: text up to a NUL.
    pub fn text(&self) -> Option<String> {
        if !matches!(self.kind, 1 | 2) {
            return None;
        }
        let text = text::utf16(&self.data);
        Some(text.split('\0').next().unwrap_or_default().to_owned())
    }

    /// `REG_DWORD`.
    pub fn number(&self) -> Option<u32> {
        (self.kind == 4).then(|| word(&self.data, 0)).flatten()
    }
}

impl Entry {
    /// The number by which others know it: its offset in the file.
    pub fn handle(self) -> i64 {
        Node(self.0).handle()
    }

    /// What may be a value; whether it is one shows when it is used.
    pub fn from_handle(handle: i64) -> Result<Self> {
        cell(handle).map(Self).ok_or(Error::Argument("not the handle of a value"))
    }
}

/// What is in the cell of a value, but for its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    name_len: u16,
    narrow: bool,
    pub(crate) len: usize,
    /// The data itself if it is not in a cell of its own.
    inline: Option<[u8; 4]>,
    pub(crate) data: u32,
    kind: u32,
}

impl<S: Source + ?Sized> Hive<S> {
    /// A key's values, in their order.
    pub fn values(&self, node: Node) -> Result<Vec<Entry>> {
        let key = self.key(node)?;
        let entries = self.value_list(key.values, key.value_list)?;
        let is_value = |entry: &Entry| match self.head(entry.0) {
            Ok((id, _)) if id == *b"vk" => Ok(()),
            Ok(_) => Err(damaged(entry.0, "no value where one should be")),
            Err(e) => Err(e),
        };
        if self.lenient {
            return Ok(entries.into_iter().filter(|entry| is_value(entry).is_ok()).collect());
        }
        entries.iter().try_for_each(is_value)?;
        Ok(entries)
    }

    fn value_list(&self, count: u32, list: u32) -> Result<Vec<Entry>> {
        if count == 0 || (count == NONE && list == NONE) {
            return Ok(Vec::new());
        }
        if count > MAX_VALUES {
            return Err(Error::TooMuch("too many values"));
        }
        let list = self.part(list, 0, 4 * size(count))?;
        Ok(list.chunks_exact(4).filter_map(|entry| word(entry, 0)).map(Entry).collect())
    }

    /// The value of this name; case does not matter.
    pub fn value(&self, node: Node, name: &str) -> Result<Option<Entry>> {
        for entry in self.values(node)? {
            let this = self.leniently(self.value_name(entry).map(Some))?;
            if this.is_some_and(|this| text::same(&this, name)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Everything that is in a value.
    pub fn read_value(&self, entry: Entry) -> Result<Value> {
        let (kind, data) = self.value_data(entry)?;
        Ok(Value { name: self.value_name(entry)?, kind, data })
    }

    /// What is in the cell of a value that the caller named.
    pub(crate) fn value_head(&self, entry: Entry) -> Result<Head> {
        if self.head(entry.0).map_or(true, |(id, _)| id != *b"vk") {
            return Err(Error::Argument("not the handle of a value"));
        }
        let bytes = self.part(entry.0, 0, vk::NAME)?;
        let short = || damaged(entry.0, "too short");
        let number = |at| word(&bytes, at).ok_or_else(short);
        let flags = half(&bytes, vk::FLAGS).ok_or_else(short)?;
        let (len, data) = (number(vk::LEN)?, number(vk::DATA)?);
        Ok(Head {
            name_len: half(&bytes, vk::NAME_LEN).ok_or_else(short)?,
            narrow: flags & vk::NARROW != 0,
            len: size(len & !vk::INLINE),
            inline: (len & vk::INLINE != 0).then(|| data.to_le_bytes()),
            data,
            kind: number(vk::KIND)?,
        })
    }

    /// A value's name; empty for the default value.
    pub fn value_name(&self, entry: Entry) -> Result<String> {
        let head = self.value_head(entry)?;
        let bytes = self.part(entry.0, vk::NAME, usize::from(head.name_len))?;
        Ok(text::name(&bytes, head.narrow))
    }

    /// A value's type.
    pub fn value_kind(&self, entry: Entry) -> Result<u32> {
        Ok(self.value_head(entry)?.kind)
    }

    /// A value's type and data.
    pub fn value_data(&self, entry: Entry) -> Result<(u32, Vec<u8>)> {
        let head = self.value_head(entry)?;
        if let Some(inline) = head.inline {
            let data = inline.get(..head.len);
            let data = data.ok_or_else(|| damaged(entry.0, "data longer than its place"))?;
            return Ok((head.kind, data.to_vec()));
        }
        if head.len > MAX_DATA {
            return Err(Error::TooMuch("a value's data is longer than 8,000,000 bytes"));
        }
        Ok((head.kind, self.data(head.data, head.len)?))
    }

    /// Data in a cell, or, where it is long, in several.
    fn data(&self, cell: u32, len: usize) -> Result<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        if len <= SEGMENT || !self.is_segmented(cell)? {
            return self.part(cell, 0, len);
        }
        let mut data = Vec::new();
        for segment in self.segments(cell)? {
            let room = self.room(segment)?.min(SEGMENT).min(len - data.len());
            data.extend(self.part(segment, 0, room)?);
            if data.len() == len {
                return Ok(data);
            }
        }
        Err(damaged(cell, "data that is shorter than its value says"))
    }

    /// Whether what a value leads to are cells of long data.
    fn is_segmented(&self, cell: u32) -> Result<bool> {
        Ok(self.head(cell)?.0 == *b"db")
    }

    /// The cells that long data is in.
    fn segments(&self, cell: u32) -> Result<Vec<u32>> {
        let (_, count) = self.head(cell)?;
        let list = self.part(self.number(cell, 4)?, 0, 4 * usize::from(count))?;
        Ok(list.chunks_exact(4).filter_map(|at| word(at, 0)).collect())
    }

    /// All cells that a value's data is in.
    pub(crate) fn data_cells(&self, entry: Entry) -> Result<Vec<u32>> {
        let head = self.value_head(entry)?;
        if head.inline.is_some() || head.len == 0 {
            return Ok(Vec::new());
        }
        let mut cells = vec![head.data];
        if head.len > SEGMENT && self.is_segmented(head.data)? {
            cells.push(self.number(head.data, 4)?);
            cells.extend(self.segments(head.data)?);
        }
        Ok(cells)
    }
}
