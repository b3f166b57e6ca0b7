// SPDX-License-Identifier: Apache-2.0
//! What the program `blkid` says of a device: how it is asked, and its answer as [`Contents`]. It is run by others.

use crate::contents::Contents;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Names as `blkid -o udev` gives them, and as it gives them elsewhere. Those that end in `_ENC` come
/// after ones in which characters are replaced, and say the same exactly.
const NAMES: &[(&str, &str)] = &[
    ("ID_FS_LABEL_FATBOOT_ENC", "LABEL_FATBOOT"),
    ("ID_FS_LABEL_ENC", "LABEL"),
    ("ID_FS_UUID_ENC", "UUID"),
    ("ID_FS_UUID_SUB_ENC", "UUID_SUB"),
    ("ID_FS_EXT_JOURNAL", "EXT_JOURNAL"),
    ("ID_FS_SYSTEM_ID", "SYSTEM_ID"),
    ("ID_FS_VOLUME_ID", "VOLUME_ID"),
    ("ID_FS_VOLUME_SET_ID", "VOLUME_SET_ID"),
    ("ID_FS_PUBLISHER_ID", "PUBLISHER_ID"),
    ("ID_FS_APPLICATION_ID", "APPLICATION_ID"),
    ("ID_FS_BOOT_SYSTEM_ID", "BOOT_SYSTEM_ID"),
    ("ID_FS_LOGUUID", "LOGUUID"),
    ("ID_FS_SEC_TYPE", "SEC_TYPE"),
    ("ID_FS_VERSION", "VERSION"),
    ("ID_FS_BLOCK_SIZE", "BLOCK_SIZE"),
    ("ID_FS_TYPE", "TYPE"),
    ("ID_FS_USAGE", "USAGE"),
];

/// What `blkid` is told, before the path: to look at one device, whatever it remembers, and say all that it sees.
pub const ARGUMENTS: &[&str] = &["-c", "/dev/null", "-p", "-o", "udev", "--"];
/// Its exit statuses when there is nothing to be said: nothing was found; more than one thing was.
pub const NOTHING: &[i32] = &[2, 8];

/// What it has said. None where nothing but a partition table was found.
pub fn parse(text: &[u8]) -> Option<Contents> {
    let tags: Vec<(String, OsString)> = text
        .split(|&b| b == b'\n')
        .filter_map(|line| {
            let equals = line.iter().position(|&b| b == b'=')?;
            let key = std::str::from_utf8(&line[..equals]).ok()?;
            let (_, name) = NAMES.iter().find(|(k, _)| *k == key)?;
            Some(((*name).to_owned(), OsString::from_vec(decode(&line[equals + 1..]))))
        })
        .collect();
    let contents = Contents::new(tags);
    (!contents.fstype().is_empty()).then_some(contents)
}

/// `a\x20b` is `a b`.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.strip_prefix(b"x").and_then(|h| std::str::from_utf8(h.get(..2)?).ok());
        match hex.filter(|_| first == b'\\').and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn what_blkid_says_is_read_as_it_was_on_the_device() {
        let text = b"ID_FS_LABEL=a_b\nID_FS_LABEL_ENC=a\\x20b\\x5c\nID_FS_TYPE=hfsplus\nID_FS_USAGE=filesystem\n";
        let contents = parse(text).unwrap();
        assert_eq!(contents.label(), Some(OsStr::new("a b\\")));
        assert_eq!((contents.fstype(), contents.usage()), ("hfsplus", "filesystem"));
    }

    #[test]
    fn a_partition_table_alone_is_nothing() {
        assert_eq!(parse(b"ID_PART_TABLE_UUID=722310a0\nID_PART_TABLE_TYPE=dos\n"), None);
    }
}
