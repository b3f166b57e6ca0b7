// SPDX-License-Identifier: Apache-2.0
//! What is swapped to: /proc/swaps, as far as it is a session's.

use crate::kernel;
use crate::layers::above;
use crate::watch::watched;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Has the kernel stop swapping to these disks (directories of sysfs), to what lies on them, and to files below
/// `sysroot`. What fails is logged.
pub fn switch_off(disks: &[PathBuf], sysroot: &Path) {
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let all = parse(&table);
    if all.is_empty() {
        return;
    }
    let numbers = numbers(disks);
    for path in all {
        // A file of another session may seem to have the same path: then it is not swapped to here, which is an error.
        let is_ours = match fs::metadata(&path) {
            Ok(found) if found.file_type().is_block_device() => numbers.contains(&found.rdev()),
            Ok(_) => path.starts_with(sysroot),
            Err(_) => false,
        };
        let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { continue };
        if is_ours {
            let what = format!("swapping off {}", path.display());
            match watched(&what, || kernel::swapoff(&name)) {
                Ok(()) => tracing::info!(path = %path.display(), "swapped off"),
                Err(e) => tracing::error!(path = %path.display(), error = %e, "swapping off"),
            }
        }
    }
}

/// The numbers of disks, of their partitions, and of what lies on them.
fn numbers(disks: &[PathBuf]) -> BTreeSet<u64> {
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
            Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
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
