// SPDX-License-Identifier: Apache-2.0
//! Hives made from nothing: for tests and fuzzing, here and in other crates.

use crate::format::{BIN, BIN_HEAD, HEADER, NONE, checksum, header, nk, sk};
use crate::{Hive, Result};

/// A hive with nothing but a key at the top, of version 1.`minor`.
pub fn empty(minor: u32) -> Vec<u8> {
    /// Bytes of the cell of the key at the top.
    const ROOT: u32 = 0x58;
    const TOP: &[u8] = b"ROOT";
    let mut out = vec![0; HEADER + BIN as usize];
    let (security, end) = (BIN_HEAD + ROOT, BIN);
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"regf");
    for (at, number) in [
        (header::SEQUENCE_1, 1),
        (header::SEQUENCE_2, 1),
        (header::MAJOR, 1),
        (header::MINOR, minor),
        (header::FORMAT, 1),
        (header::ROOT, BIN_HEAD),
        (header::BINS, BIN),
        (header::CLUSTER, 1),
    ] {
        put(at, &number.to_le_bytes());
    }
    let mut key = vec![0; nk::NAME];
    key[..4].copy_from_slice(b"nk\x2c\0");
    for (at, number) in [
        (nk::PARENT, NONE),
        (nk::SUBKEY_LIST, NONE),
        (nk::VOLATILE_LIST, NONE),
        (nk::VALUE_LIST, NONE),
        (nk::SECURITY, security),
        (nk::CLASS, NONE),
        (nk::NAME_LEN, 4),
    ] {
        key[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    key.extend(TOP);
    let mut descriptor = vec![0; sk::DESCRIPTOR];
    descriptor[..2].copy_from_slice(b"sk");
    for (at, number) in
        [(sk::NEXT, security), (sk::PREVIOUS, security), (sk::USES, 1), (sk::LEN, 20)]
    {
        descriptor[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    descriptor.extend([1, 0, 0, 0x80]);
    descriptor.extend([0; 16]);
    const SECURITY: u32 = 0x30;
    let at = |offset: u32| HEADER + offset as usize;
    put(at(0), b"hbin");
    put(at(8), &BIN.to_le_bytes());
    for (cell, size, content) in [
        (BIN_HEAD, ROOT.wrapping_neg(), &key[..]),
        (security, SECURITY.wrapping_neg(), &descriptor[..]),
        (security + SECURITY, end - security - SECURITY, &[]),
    ] {
        put(at(cell), &size.to_le_bytes());
        put(at(cell) + 4, content);
    }
    let sum = checksum(&out[..HEADER]);
    out[header::CHECKSUM..header::CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
    out
}

/// A hive with these keys, each of a path, and a value in each.
pub fn with(keys: &[(&[&str], &str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut hive = Hive::checked(empty(5), false)?;
    for (path, name, kind, data) in keys {
        let mut node = hive.root();
        for part in *path {
            node = match hive.child(node, part)? {
                Some(child) => child,
                None => hive.add_child(node, part)?,
            };
        }
        hive.set_value(node, name, *kind, data)?;
    }
    Ok(hive.to_be_written()?.to_vec())
}

/// Text as the registry has it.
pub fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}
