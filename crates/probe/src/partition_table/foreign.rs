// SPDX-License-Identifier: Apache-2.0
//! Signatures of what is at the beginning of a disk and is neither an MBR nor a GPT.

/// Tables of other kinds, by their offsets in bytes.
pub(crate) const TABLES: &[(u64, &[u8])] = &[
    (0, &[0xc9, 0xc2, 0xd4, 0xc1]),   // AIX
    (0, &[0x0b, 0xe5, 0xa9, 0x41]),   // SGI volume header
    (0, b"ER"),                       // Apple
    (4, b"IPL1"),                     // PC-98
    (64, &[0x57, 0x45, 0x56, 0x82]),  // BSD
    (508, &[0xda, 0xbe]),             // Sun
    (512, &[0x57, 0x45, 0x56, 0x82]), // BSD
    (512, b"PM"),                     // Apple
];

/// Filesystems whose boot sectors end like an MBR.
pub(super) const FILESYSTEMS: &[(u64, &[u8])] =
    &[(3, b"NTFS    "), (3, b"EXFAT   "), (54, b"FAT"), (82, b"FAT")];

/// Whether the first sectors have one of these.
pub(super) fn in_first_sectors(first: &[u8]) -> bool {
    TABLES.iter().chain(FILESYSTEMS).any(|(at, magic)| {
        let at = usize::try_from(*at).unwrap_or(usize::MAX);
        first.get(at..).is_some_and(|rest| rest.starts_with(magic))
    })
}
