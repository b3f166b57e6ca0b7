// SPDX-License-Identifier: Apache-2.0
//! How streams are compressed, by their first bytes.

/// How compressed streams begin, and the programs that decompress them (linux, lib/decompress.c).
const COMPRESSIONS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    // What was LZMA alone once is known to xz as well.
    (b"\x5d\0\0", "xz"),
    (b"\x89LZO", "lzop"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

/// The program that decompresses what begins so, with the option `-dc`; none if it is not compressed.
pub(crate) fn program(head: &[u8]) -> Option<&'static str> {
    COMPRESSIONS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, program)| *program)
}
