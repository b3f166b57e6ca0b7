// SPDX-License-Identifier: Apache-2.0
//! Cpio archives of the SVR4 formats, without (`newc`) and with checksums (`crc`): made from the guest
//! ([`mod@write`]), and read ([`mod@read`]).
//!
//! A member is a header of hexadecimal digits, its name with a NUL, and its content, each padded to 4 bytes. The
//! last is called `TRAILER!!!`.

pub mod read;
pub mod write;

/// Length of a header: the magic number and 13 fields of 8 digits each.
const HEADER: usize = 6 + FIELDS * 8;
const FIELDS: usize = 13;
const MAGIC_NEWC: &[u8; 6] = b"070701";
const MAGIC_CRC: &[u8; 6] = b"070702";
/// Name of the member that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// What names and contents are padded to.
const ALIGN: u64 = 4;

/// Whether this is how an archive begins.
pub fn is_archive(head: &[u8]) -> bool {
    head.starts_with(MAGIC_NEWC) || head.starts_with(MAGIC_CRC)
}

/// A member of an archive, for tests.
#[cfg(test)]
pub fn member(name: &str, mode: usize, content: &[u8]) -> Vec<u8> {
    let mut out = MAGIC_NEWC.to_vec();
    let fields = [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
    fields.iter().for_each(|f| out.extend_from_slice(format!("{f:08X}").as_bytes()));
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
