// SPDX-License-Identifier: Apache-2.0
//! Where what is in a header and in cells, and numbers in bytes.

use crate::error::{Error, Result};

/// Bytes of the header; offsets of cells count from its end.
pub(crate) const HEADER: usize = 4096;
/// Bins are of so many bytes, or a multiple.
pub(crate) const BIN: u32 = 4096;
/// Bytes at the beginning of a bin that say what it is.
pub(crate) const BIN_HEAD: u32 = 32;
/// Offset that means none.
pub(crate) const NONE: u32 = u32::MAX;
/// What one segment of long data holds.
pub(crate) const SEGMENT: usize = 16344;

/// Fields of the header.
pub(crate) mod header {
    pub(crate) const SEQUENCE_1: usize = 0x4;
    pub(crate) const SEQUENCE_2: usize = 0x8;
    pub(crate) const TIME: usize = 0xc;
    pub(crate) const MAJOR: usize = 0x14;
    pub(crate) const MINOR: usize = 0x18;
    pub(crate) const FORMAT: usize = 0x20;
    pub(crate) const ROOT: usize = 0x24;
    pub(crate) const BINS: usize = 0x28;
    pub(crate) const CLUSTER: usize = 0x2c;
    pub(crate) const CHECKSUM: usize = 0x1fc;
}

/// Fields of a key (`nk`).
pub(crate) mod nk {
    pub(crate) const FLAGS: usize = 0x2;
    pub(crate) const TIME: usize = 0x4;
    pub(crate) const PARENT: usize = 0x10;
    pub(crate) const SUBKEYS: usize = 0x14;
    pub(crate) const SUBKEY_LIST: usize = 0x1c;
    pub(crate) const VOLATILE_LIST: usize = 0x20;
    pub(crate) const VALUES: usize = 0x24;
    pub(crate) const VALUE_LIST: usize = 0x28;
    pub(crate) const SECURITY: usize = 0x2c;
    pub(crate) const CLASS: usize = 0x30;
    pub(crate) const LONGEST_SUBKEY: usize = 0x34;
    pub(crate) const LONGEST_VALUE_NAME: usize = 0x3c;
    pub(crate) const LONGEST_VALUE: usize = 0x40;
    pub(crate) const NAME_LEN: usize = 0x48;
    pub(crate) const NAME: usize = 0x4c;
    /// The name is Latin-1.
    pub(crate) const NARROW: u16 = 0x20;
}

/// Fields of a value (`vk`).
pub(crate) mod vk {
    pub(crate) const NAME_LEN: usize = 0x2;
    pub(crate) const LEN: usize = 0x4;
    pub(crate) const DATA: usize = 0x8;
    pub(crate) const KIND: usize = 0xc;
    pub(crate) const FLAGS: usize = 0x10;
    pub(crate) const NAME: usize = 0x14;
    /// The name is Latin-1.
    pub(crate) const NARROW: u16 = 1;
    /// Set in the length when the data is where its offset would be.
    pub(crate) const INLINE: u32 = 1 << 31;
}

/// Fields of a security descriptor (`sk`), which are in a ring.
pub(crate) mod sk {
    pub(crate) const NEXT: usize = 0x4;
    pub(crate) const PREVIOUS: usize = 0x8;
    pub(crate) const USES: usize = 0xc;
    pub(crate) const LEN: usize = 0x10;
    pub(crate) const DESCRIPTOR: usize = 0x14;
}

/// The offset of a cell in the file.
pub(crate) fn in_file(cell: u32) -> u64 {
    HEADER as u64 + u64::from(cell)
}

/// The error of a cell.
pub(crate) fn damaged(cell: u32, what: &'static str) -> Error {
    Error::Damaged { at: in_file(cell), what }
}

pub(crate) fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The offset of the key at the top, if this is a header.
pub(crate) fn offset_of_root(header: &[u8]) -> Result<u32> {
    if !header.starts_with(b"regf") {
        return Err(Error::Unsupported("it does not begin with \"regf\""));
    }
    word(header, header::ROOT).ok_or(Error::NotAHive("too short"))
}

/// An error if the header is of another version or damaged.
pub(crate) fn check_header(header: &[u8]) -> Result<()> {
    if word(header, header::MAJOR) != Some(1) {
        return Err(Error::Unsupported("of an unknown version"));
    }
    if word(header, header::CHECKSUM) != Some(checksum(header)) {
        return Err(Error::NotAHive("the checksum of its header is wrong"));
    }
    Ok(())
}

/// The checksum of a header. Zero and all ones stand for nothing.
pub(crate) fn checksum(header: &[u8]) -> u32 {
    let words = header[..header::CHECKSUM].chunks_exact(4);
    let sum = words.fold(0, |sum, w| sum ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    }
}
