// SPDX-License-Identifier: Apache-2.0
//! Windows' registry: a reader of hive files (`regf`), for questions only.
//!
//! A hive is the guest's, and it may be anything: every offset and count in it is checked where it is read,
//! cells are read one at a time and only up to a limit, and no list is followed deeper than the format has
//! it. Nothing is written and no log is replayed.

use guest_fs::casefold;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of the file's header; offsets of cells count from its end.
const HEADER: u64 = 4096;
/// Most bytes of a cell that are read.
const MAX_CELL: usize = 1 << 20;
/// Most subkeys or values of a key that are looked at.
const MAX_CHILDREN: usize = 1 << 16;
/// Offset that means none.
const NONE: u32 = u32::MAX;

/// Where the bytes of a hive are.
pub(crate) trait Source {
    /// Fills the buffer from this offset on; an error if there are fewer bytes.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl Source for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        let from = from.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }
}

/// A hive.
#[derive(Debug)]
pub(crate) struct Hive<S> {
    source: S,
    root: u32,
}

/// A key of a hive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    subkeys: u32,
    subkey_list: u32,
    values: u32,
    value_list: u32,
}

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// Its name; empty for the default value.
    pub name: String,
    /// Its type.
    pub kind: u32,
    /// Its data.
    pub data: Vec<u8>,
}

impl Value {
    /// `REG_SZ`, `REG_EXPAND_SZ`: text up to a NUL.
    pub(crate) fn text(&self) -> Option<String> {
        if !matches!(self.kind, 1 | 2) {
            return None;
        }
        let text = utf16(&self.data);
        Some(text.split('\0').next().unwrap_or_default().to_owned())
    }

    /// `REG_DWORD`.
    pub(crate) fn number(&self) -> Option<u32> {
        let data: [u8; 4] = self.data.get(..4)?.try_into().ok()?;
        (self.kind == 4).then(|| u32::from_le_bytes(data))
    }
}

impl<S: Source> Hive<S> {
    /// The hive in this file; none if it is not one.
    pub(crate) fn open(source: S) -> Option<Self> {
        let mut header = [0; 0x28];
        source.read_exact_at(&mut header, 0).ok()?;
        let root = word(&header, 0x24)?;
        header.starts_with(b"regf").then_some(Self { source, root })
    }

    /// The key at the top.
    pub(crate) fn root(&self) -> Option<Key> {
        self.key(self.root).map(|(key, _)| key)
    }

    /// The key of this path below the top.
    pub(crate) fn find(&self, path: &[&str]) -> Option<Key> {
        path.iter().try_fold(self.root()?, |key, name| self.child(key, name))
    }

    /// The subkey of this name; case does not matter.
    pub(crate) fn child(&self, key: Key, name: &str) -> Option<Key> {
        let mut found = None;
        self.for_each_subkey(key, &mut |key, this| {
            let same = casefold::same(this.as_bytes(), name.as_bytes());
            if same {
                found = Some(key);
            }
            !same
        });
        found
    }

    /// Whether a key has subkeys.
    pub(crate) fn has_children(&self, key: Key) -> bool {
        let mut any = false;
        self.for_each_subkey(key, &mut |_, _| {
            any = true;
            false
        });
        any
    }

    /// The value of this name; case does not matter.
    pub(crate) fn value(&self, key: Key, name: &str) -> Option<Value> {
        self.values(key).find(|v| casefold::same(v.name.as_bytes(), name.as_bytes()))
    }

    /// The values of a key, as far as they make sense.
    pub(crate) fn values(&self, key: Key) -> impl Iterator<Item = Value> {
        let count = size(key.values).min(MAX_CHILDREN);
        let list = if count == 0 { None } else { self.cell(key.value_list) };
        let list = list.unwrap_or_default();
        let offsets: Vec<u32> = (0..count).map_while(|i| word(&list, 4 * i)).collect();
        offsets.into_iter().filter_map(|offset| self.value_at(offset))
    }

    /// The contents of a cell, up to the limit.
    fn cell(&self, offset: u32) -> Option<Vec<u8>> {
        if offset == NONE {
            return None;
        }
        let at = HEADER + u64::from(offset);
        let mut size = [0; 4];
        self.source.read_exact_at(&mut size, at).ok()?;
        // A cell in use has its size negated.
        let size = i32::from_le_bytes(size).checked_neg().filter(|size| *size > 4)?;
        let size = usize::try_from(size).ok()?.saturating_sub(4).min(MAX_CELL);
        let mut cell = vec![0; size];
        self.source.read_exact_at(&mut cell, at + 4).ok()?;
        Some(cell)
    }

    fn key(&self, offset: u32) -> Option<(Key, String)> {
        let cell = self.cell(offset).filter(|c| c.starts_with(b"nk"))?;
        let name = cell.get(0x4c..)?.get(..usize::from(half(&cell, 0x48)?))?;
        let narrow = half(&cell, 2)? & 0x20 != 0;
        let key = Key {
            subkeys: word(&cell, 0x14)?,
            subkey_list: word(&cell, 0x1c)?,
            values: word(&cell, 0x24)?,
            value_list: word(&cell, 0x28)?,
        };
        Some((key, if narrow { latin1(name) } else { utf16(name) }))
    }

    /// Calls for each subkey until told not to go on.
    fn for_each_subkey(&self, key: Key, each: &mut dyn FnMut(Key, &str) -> bool) {
        if key.subkeys == 0 {
            return;
        }
        let mut left = MAX_CHILDREN;
        self.subkey_list(key.subkey_list, true, &mut left, each);
    }

    /// Goes through a list of subkeys, or a list of such lists; false if told to stop.
    fn subkey_list(
        &self,
        offset: u32,
        may_nest: bool,
        left: &mut usize,
        each: &mut dyn FnMut(Key, &str) -> bool,
    ) -> bool {
        let Some(list) = self.cell(offset) else { return true };
        let Some(count) = half(&list, 2) else { return true };
        let (step, nested) = match list.get(..2) {
            Some(b"lf" | b"lh") => (8, false),
            Some(b"li") => (4, false),
            Some(b"ri") if may_nest => (4, true),
            _ => return true,
        };
        for i in 0..usize::from(count) {
            let Some(entry) = word(&list, 4 + step * i) else { break };
            if *left == 0 {
                return false;
            }
            *left -= 1;
            let go_on = if nested {
                self.subkey_list(entry, false, left, each)
            } else {
                self.key(entry).is_none_or(|(key, name)| each(key, &name))
            };
            if !go_on {
                return false;
            }
        }
        true
    }

    fn value_at(&self, offset: u32) -> Option<Value> {
        /// Set in the length when the data is where its offset would be.
        const INLINE: u32 = 1 << 31;
        let cell = self.cell(offset).filter(|c| c.starts_with(b"vk"))?;
        let name = cell.get(0x14..)?.get(..usize::from(half(&cell, 2)?))?;
        let narrow = half(&cell, 0x10)? & 1 != 0;
        let name = if narrow { latin1(name) } else { utf16(name) };
        let len = word(&cell, 4)?;
        let data = if len & INLINE != 0 {
            cell.get(8..12)?.get(..size(len & !INLINE))?.to_vec()
        } else {
            self.data(word(&cell, 8)?, size(len))?
        };
        Some(Value { name, kind: word(&cell, 0xc)?, data })
    }

    /// Data of a value: a cell, or for what is long a list of them.
    fn data(&self, offset: u32, len: usize) -> Option<Vec<u8>> {
        /// What one segment of long data holds.
        const SEGMENT: usize = 16344;
        if len == 0 {
            return Some(Vec::new());
        }
        let cell = self.cell(offset)?;
        if len <= SEGMENT || !cell.starts_with(b"db") {
            return cell.get(..len).map(<[u8]>::to_vec);
        }
        let list = self.cell(word(&cell, 4)?)?;
        let mut data = Vec::new();
        for i in 0..usize::from(half(&cell, 2)?) {
            let segment = self.cell(word(&list, 4 * i)?)?;
            data.extend_from_slice(&segment[..segment.len().min(SEGMENT)]);
            if data.len() >= len.min(MAX_CELL) {
                break;
            }
        }
        data.truncate(len);
        Some(data)
    }
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
pub(crate) mod tests;
