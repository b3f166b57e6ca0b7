// SPDX-License-Identifier: Apache-2.0
//! The header extension and the directory of persistent bitmaps (qcow2, "Bitmaps"). In: their
//! bytes. Out: where each bitmap is and what it says of itself, within limits, or what is wrong.
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::layout::header::{Header, autoclear, extension};

/// The longest directory in bytes (QEMU's limit).
const MAX_DIRECTORY: u64 = 64 << 20;
/// The most bytes that the tables of all bitmaps may have.
const MAX_TABLES: u64 = 256 << 20;
/// The longest name in bytes.
const MAX_NAME: usize = 1023;

/// The bitmap may not tell of all changes.
pub const IN_USE: u32 = 1;
/// The bitmap has to tell of all changes from now on.
pub const AUTO: u32 = 2;
/// The bitmap can be used without knowing its extra data.
pub const EXTRA_DATA_COMPATIBLE: u32 = 4;
/// The type of bitmaps that tell of changes.
pub const TRACKING: u8 = 1;

/// An entry of a bitmap's table that has no cluster, and stands for ones only.
pub const ALL_ONES: u64 = 1;

/// The header extension.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fields {
    count: U32,
    reserved: U32,
    directory_len: U64,
    directory: U64,
}

/// What each entry of the directory begins with. Extra data and the name follow.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    table: U64,
    table_entries: U32,
    flags: U32,
    kind: u8,
    granularity_bits: u8,
    name_len: U16,
    extra_len: U32,
}

/// Where the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The number of bitmaps.
    pub count: u32,
    /// Offset in the file, a multiple of a cluster.
    pub offset: u64,
    /// Length in bytes, a multiple of 8.
    pub len: u64,
}

/// A bitmap as the directory tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Where its entry begins in the directory, in bytes: a multiple of 8.
    pub place: u64,
    /// Offset of its table in the file, a multiple of a cluster.
    pub table: u64,
    /// The number of entries of that.
    pub table_entries: u32,
    /// [`IN_USE`] and others.
    pub flags: u32,
    /// [`TRACKING`], or something unknown.
    pub kind: u8,
    /// log2 of the bytes of the guest that a bit stands for.
    pub granularity_bits: u8,
    /// Whether there is extra data, none of which is known.
    pub extra: bool,
    /// Its name.
    pub name: String,
}

impl Directory {
    /// What the header says, where its bitmaps count: with the autoclear bit.
    ///
    /// # Errors
    /// What is wrong.
    pub fn of(header: &Header) -> Result<Option<Self>, String> {
        let Some(data) = header.extension(extension::BITMAPS) else { return Ok(None) };
        if header.autoclear & autoclear::BITMAPS == 0 {
            return Ok(None);
        }
        let Ok((fields, _)) = Fields::ref_from_prefix(data) else {
            return Err(format!("its header extension of bitmaps has {} bytes", data.len()));
        };
        let count = fields.count.get();
        let (offset, len) = (fields.directory.get(), fields.directory_len.get());
        if len > MAX_DIRECTORY || !len.is_multiple_of(8) {
            return Err(format!("its directory of {count} bitmaps has {len} bytes"));
        }
        if offset == 0 || !offset.is_multiple_of(header.cluster_size()) {
            return Err(format!(
                "its directory of bitmaps at {offset:#x} is not at a cluster of its own"
            ));
        }
        Ok(Some(Directory { count, offset, len }))
    }

    /// All bitmaps; `bytes` are the directory's.
    ///
    /// # Errors
    /// What is wrong.
    pub fn bitmaps(&self, bytes: &[u8], header: &Header) -> Result<Vec<Bitmap>, String> {
        let mut found = Vec::new();
        let (mut place, mut tables) = (0, 0);
        for index in 0..self.count {
            let rest = bytes.get(place..).unwrap_or_default();
            let (bitmap, len) = bitmap(place, rest).ok_or_else(|| {
                format!("its directory of {} bitmaps is cut off in bitmap {index}", self.count)
            })?;
            tables += bitmap.table_bytes();
            if tables > MAX_TABLES || !bitmap.table.is_multiple_of(header.cluster_size()) {
                return Err(format!(
                    "its bitmap {:?} has a table of {} entries at {:#x}",
                    bitmap.name, bitmap.table_entries, bitmap.table
                ));
            }
            found.push(bitmap);
            place += len;
        }
        Ok(found)
    }
}

/// The first bitmap of `bytes`, and the length of its entry.
fn bitmap(place: usize, bytes: &[u8]) -> Option<(Bitmap, usize)> {
    let (head, rest) = Head::ref_from_prefix(bytes).ok()?;
    let (extra, name) = (usize::try_from(head.extra_len.get()).ok()?, head.name_len.get().into());
    let text = rest.get(extra..)?.get(..name).filter(|_| name <= MAX_NAME)?;
    let bitmap = Bitmap {
        place: place as u64,
        table: head.table.get(),
        table_entries: head.table_entries.get(),
        flags: head.flags.get(),
        kind: head.kind,
        granularity_bits: head.granularity_bits,
        extra: extra > 0,
        name: String::from_utf8_lossy(text).into_owned(),
    };
    Some((bitmap, (size_of::<Head>() + extra + name).next_multiple_of(8)))
}

impl Bitmap {
    /// Length of its table in bytes.
    pub fn table_bytes(&self) -> u64 {
        u64::from(self.table_entries) * 8
    }

    /// Whether what it says is to be relied upon.
    pub fn is_valid(&self) -> bool {
        self.flags & IN_USE == 0
    }

    /// Whether all of it is known: then it can be used, and kept.
    pub fn is_known(&self) -> bool {
        let flags = IN_USE | AUTO | EXTRA_DATA_COMPATIBLE;
        self.kind == TRACKING
            && self.flags & !flags == 0
            && (9..32).contains(&self.granularity_bits)
            && (!self.extra || self.flags & EXTRA_DATA_COMPATIBLE != 0)
    }

    /// Whether it has to tell of all changes, or may have to.
    pub fn tracks(&self) -> bool {
        self.flags & !(IN_USE | EXTRA_DATA_COMPATIBLE) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(data: Vec<u8>) -> Header {
        let mut header = Header::new(3, 16, 1 << 30);
        header.extensions.push((extension::BITMAPS, data));
        header.autoclear = autoclear::BITMAPS;
        header
    }

    fn extension(count: u32, len: u64, offset: u64) -> Vec<u8> {
        let mut data = count.to_be_bytes().to_vec();
        data.extend([0; 4]);
        data.extend(len.to_be_bytes());
        data.extend(offset.to_be_bytes());
        data
    }

    fn entry(flags: u32, name: &[u8]) -> Vec<u8> {
        let mut bytes = 0x5_0000u64.to_be_bytes().to_vec();
        bytes.extend(2u32.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend([TRACKING, 16]);
        bytes.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        bytes.extend(0u32.to_be_bytes());
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn a_directory_lists_its_bitmaps() {
        let bytes = [entry(AUTO, b"first"), entry(0, b"the second")].concat();
        let header = header(extension(2, bytes.len() as u64, 0x4_0000));
        let directory = Directory::of(&header).unwrap().unwrap();
        let found = directory.bitmaps(&bytes, &header).unwrap();
        let told: Vec<_> = found.iter().map(|b| (&b.name[..], b.place, b.tracks())).collect();
        assert_eq!(told, [("first", 0, true), ("the second", 32, false)]);
        assert!(found.iter().all(|b| b.is_known() && b.is_valid() && b.table_bytes() == 16));
    }

    #[test]
    fn without_the_autoclear_bit_there_are_no_bitmaps() {
        let mut header = header(extension(1, 32, 0x4_0000));
        header.autoclear = 0;
        assert_eq!(Directory::of(&header).unwrap(), None);
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error() {
        for (len, offset) in [(64 << 20 | 8, 0x4_0000), (33, 0x4_0000), (32, 0x4_0200), (32, 0)] {
            let error = Directory::of(&header(extension(1, len, offset))).unwrap_err();
            assert!(error.to_string().contains("directory"), "{error}");
        }
        assert!(Directory::of(&header(vec![0; 23])).is_err());
        let bytes = entry(AUTO, b"name");
        let header = header(extension(2, bytes.len() as u64, 0x4_0000));
        let directory = Directory::of(&header).unwrap().unwrap();
        let error = directory.bitmaps(&bytes, &header).unwrap_err().to_string();
        assert!(error.contains("cut off in bitmap 1"), "{error}");
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let one = Directory { count: 1, ..directory };
                let _ = one.bitmaps(&bytes, &header).map(|found| found[0].is_known());
            }
        }
    }
}
