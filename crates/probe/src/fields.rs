// SPDX-License-Identifier: Apache-2.0
//! Fields of superblocks: numbers, texts, UUIDs.

use uuid::Uuid;

/// A field of a superblock, little endian.
pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

/// A field of a superblock, little endian.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// A field of a superblock, little endian.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// A field of a superblock, big endian.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

/// A field of a superblock, big endian.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

/// Zeros where the bytes end before.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

/// Text up to its first NUL.
pub(crate) fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes[..end].trim_ascii_end()
}

/// A UUID as text; empty if it is all zeros.
pub(crate) fn uuid(bytes: &[u8]) -> String {
    let uuid = Uuid::from_slice(bytes).unwrap_or_default();
    if uuid.is_nil() { String::new() } else { uuid.to_string() }
}

/// UTF-16, little endian, up to its first NUL, as UTF-8.
pub(crate) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let units = units.take_while(|&u| u != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
