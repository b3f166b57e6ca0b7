// SPDX-License-Identifier: Apache-2.0
//! What is swapped to: /proc/swaps, as far as it is a session's.

use crate::kernel;
use crate::layers::above;
use crate::watch::watched;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const TABLE: &str = "/proc/swaps";

/// Whether the kernel swaps to anything.
pub fn is_swapping() -> bool {
    !parse(&fs::read_to_string(TABLE).unwrap_or_default()).is_empty()
}

/// Has the kernel stop swapping to these disks (directories of sysfs), to what lies on them, and to files below
/// `sysroot`, if filesystems are mounted there. What fails is logged.
///
/// The table has paths as whoever switched them on had them. Devices whose paths mean nothing here, because that
/// machine's /dev has gone, are found by the kernel's own names.
pub fn switch_off(disks: &[PathBuf], sysroot: Option<&Path>) {
    let table = fs::read_to_string(TABLE).unwrap_or_default();
    let all = parse(&table);
    if all.is_empty() {
        return;
    }
    let devices = devices(disks);
    for path in all {
        // A file of another session may seem to have the same path: then it is not swapped to here, which is an error.
        let is_ours = match fs::metadata(&path) {
            Ok(found) if found.file_type().is_block_device() => devices.contains_key(&found.rdev()),
            Ok(_) => sysroot.is_some_and(|sysroot| path.starts_with(sysroot)),
            Err(_) => false,
        };
        if is_ours {
            log(&path, off(&path));
        }
    }
    for (number, name) in devices {
        let path = Path::new("/dev").join(name);
        if fs::metadata(&path).is_ok_and(|found| found.rdev() == number) {
            match off(&path) {
                // Nobody swaps to it.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                done => log(&path, done),
            }
        }
    }
}

fn off(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    watched(&format!("swapping off {}", path.display()), || kernel::swapoff(&name))
}

fn log(path: &Path, done: io::Result<()>) {
    match done {
        Ok(()) => tracing::info!(path = %path.display(), "swapped off"),
        Err(e) => tracing::error!(path = %path.display(), error = %e, "swapping off"),
    }
}

/// The numbers of disks, of their partitions, and of what lies on them, with the kernel's names.
fn devices(disks: &[PathBuf]) -> BTreeMap<u64, OsString> {
    let layers = above(disks).into_iter().map(|layer| layer.directory);
    let all = disks.iter().cloned().chain(layers);
    let with_partitions = all.flat_map(|dir| {
        let inner = fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path());
        inner.filter(|p| p.join("partition").exists()).chain([dir]).collect::<Vec<_>>()
    });
    with_partitions
        .filter_map(|dir| {
            let text = fs::read_to_string(dir.join("dev")).ok()?;
            let (major, minor) = text.trim().split_once(':')?;
            let number = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
            Some((number, dir.file_name()?.to_owned()))
        })
        .collect()
}

/// The paths in the table, the last one first.
pub(crate) fn parse(table: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(crate::mounts::unescape)
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_table_are_found() {
        let table = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                     /dev/dm-1                               partition\t65532\t\t0\t\t-2\n\
                     /sysroot/a\\040b                       file\t\t65532\t\t0\t\t-3\n";
        assert_eq!(parse(table), [Path::new("/sysroot/a b"), Path::new("/dev/dm-1")]);
        assert!(parse("").is_empty());
    }
}
