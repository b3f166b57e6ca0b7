// SPDX-License-Identifier: Apache-2.0
//! Where what is in headers and objects.

/// How a file begins.
pub(crate) const SIGNATURE: &[u8; 8] = b"LPKSHHRH";
/// Bytes of a header that every file has.
pub(crate) const HEADER: usize = 208;
/// What a file of the last state, which is archived, says.
pub(crate) const ARCHIVED: u8 = 2;
/// Bits of features without which a file cannot be read. Here are all that are known: compression by XZ, LZ4 and
/// Zstandard, hashes with a key, and 32-bit offsets.
pub(crate) const FEATURES: u32 = 0b11111;
pub(crate) const COMPACT: u32 = 1 << 4;

/// Fields of the header.
pub(crate) mod header {
    pub(crate) const INCOMPATIBLE: usize = 12;
    pub(crate) const STATE: usize = 16;
    pub(crate) const SEQNUM_ID: usize = 72;
    pub(crate) const HEADER_SIZE: usize = 88;
    pub(crate) const ARENA_SIZE: usize = 96;
    pub(crate) const N_ENTRIES: usize = 152;
    pub(crate) const ENTRY_ARRAY: usize = 176;
}

/// Fields that all objects have.
pub(crate) mod object {
    pub(crate) const KIND: usize = 0;
    pub(crate) const FLAGS: usize = 1;
    pub(crate) const SIZE: usize = 8;
    pub(crate) const HEAD: usize = 16;
    pub(crate) const DATA: u8 = 1;
    pub(crate) const ENTRY: u8 = 3;
    pub(crate) const ENTRY_ARRAY: u8 = 6;
}

/// Fields of an entry.
pub(crate) mod entry {
    pub(crate) const SEQNUM: usize = 16;
    pub(crate) const REALTIME: usize = 24;
    pub(crate) const MONOTONIC: usize = 32;
    pub(crate) const BOOT_ID: usize = 40;
    pub(crate) const XOR_HASH: usize = 56;
    pub(crate) const ITEMS: usize = 64;
}

/// Fields of an array of entries' offsets.
pub(crate) mod array {
    pub(crate) const NEXT: usize = 16;
    pub(crate) const ITEMS: usize = 24;
}

/// Where the content of a field begins, in compact files too.
pub(crate) const PAYLOAD: usize = 64;
pub(crate) const PAYLOAD_COMPACT: usize = 72;

pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

pub(crate) fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn id(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).unwrap_or_default()
}
