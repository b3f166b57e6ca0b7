// SPDX-License-Identifier: Apache-2.0
//! What is mounted below a directory of this mount namespace.

use crate::watch::watched;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const TABLE: &str = "/proc/self/mountinfo";

/// Unmounts everything on a directory and below, the last mounted first. What is in use is gone when it no longer is;
/// what fails is logged.
pub fn detach_below(directory: &Path) {
    let table = fs::read_to_string(TABLE).unwrap_or_default();
    let mut found: Vec<(PathBuf, &str)> = mounts(&table).collect();
    found.retain(|(at, _)| at.starts_with(directory));
    for (at, number) in found.iter().rev() {
        let what = format!("unmounting {} (device {number})", at.display());
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        if let Err(e) = watched(&what, || unmount(at, flags)) {
            tracing::error!(path = %at.display(), device = number, error = %e, "unmounting");
        }
    }
}

/// Where something is mounted, and the number of its device (proc_pid_mountinfo(5)).
pub(crate) fn mounts(table: &str) -> impl Iterator<Item = (PathBuf, &str)> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let number = fields.nth(2)?;
        Some((unescape(fields.nth(1)?), number))
    })
}

/// `a\040b` is `a b`.
pub(crate) fn unescape(text: &str) -> PathBuf {
    let mut bytes = text.bytes().peekable();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut digits = bytes.clone().take(3);
        let code = (byte == b'\\').then(|| {
            digits.by_ref().try_fold((0u32, 0), |(n, len), digit| {
                char::from(digit).to_digit(8).map(|d| (n * 8 + d, len + 1))
            })
        });
        match code.flatten() {
            Some((code, 3)) if code < 256 => {
                out.push(u8::try_from(code).unwrap_or(b'?'));
                bytes.nth(2);
            }
            _ => out.push(byte),
        }
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_with_its_device() {
        let table = "36 35 253:1 / /sysroot/a\\040b rw,noatime shared:2 - ext4 /dev/dm-1 rw\n\nx\n";
        let found: Vec<_> = mounts(table).collect();
        assert_eq!(found, [("/sysroot/a b".into(), "253:1")]);
    }

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        assert_eq!(unescape("a\\04"), Path::new("a\\04"));
        assert_eq!(unescape("a\\\\134x\\777"), Path::new("a\\\\x\\777"));
    }
}
