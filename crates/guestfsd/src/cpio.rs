//! Cpio archives of the SVR4 formats, without (`newc`) and with checksums (`crc`): made from the guest
//! ([`write`]), and initramfs images taken apart ([`read`]).
//!
//! A member is a header of hexadecimal digits, its name with a NUL, and its content, each padded to 4 bytes. The
//! last is called `TRAILER!!!`.

pub(crate) mod read;
pub(crate) mod write;

/// Length of a header: the magic number and 13 fields of 8 digits each.
const HEADER: usize = 6 + FIELDS * 8;
const FIELDS: usize = 13;
const MAGIC_NEWC: &[u8; 6] = b"070701";
const MAGIC_CRC: &[u8; 6] = b"070702";
/// Name of the member that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// What names and contents are padded to.
const ALIGN: u64 = 4;
