// SPDX-License-Identifier: Apache-2.0
//! The disks that the daemon's own `/` is on, through whatever lies between: no client may have them.

use probe::sysfs;
use std::collections::BTreeSet;
use std::path::Path;

/// Most devices that lie on each other: what is made of more is not followed.
const MAX_DEPTH: u32 = 16;

/// Numbers of these disks; none where `/` is not on a device: an overlay, a tmpfs, btrfs.
pub(super) fn disks() -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    if let Ok(root) = rustix::fs::stat("/")
        && rustix::fs::major(root.st_dev) != 0
    {
        add_disks(root.st_dev, MAX_DEPTH, &mut found);
    }
    found
}

/// Whether a device is one of these disks, or on one.
pub(super) fn is_on(device: u64, disks: &BTreeSet<u64>) -> bool {
    if disks.is_empty() {
        return false;
    }
    let mut below = BTreeSet::new();
    add_disks(device, MAX_DEPTH, &mut below);
    !below.is_disjoint(disks)
}

/// Adds the disks that a device is on.
fn add_disks(device: u64, depth: u32, found: &mut BTreeSet<u64>) {
    let disk = disk_number(device);
    let slaves = std::fs::read_dir(sysfs::directory(disk).join("slaves"));
    let slaves = slaves.into_iter().flatten().flatten().filter_map(|slave| number(&slave.path()));
    let mut below = slaves.peekable();
    if below.peek().is_none() || depth == 0 {
        found.insert(disk);
    }
    for device in below {
        if depth > 0 {
            add_disks(device, depth - 1, found);
        }
    }
}

/// The device number of the disk that a partition is on; of a disk, its own.
fn disk_number(device: u64) -> u64 {
    let here = sysfs::directory(device);
    if !here.join("partition").exists() {
        return device;
    }
    let disk = std::fs::canonicalize(&here).ok().and_then(|p| number(p.parent()?));
    disk.unwrap_or(device)
}

/// The number of the device with this directory in sysfs.
fn number(directory: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(directory.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_disk_of_its_own_nothing_is_hidden() {
        assert!(!is_on(rustix::fs::makedev(8, 0), &BTreeSet::new()));
    }

    #[test]
    fn a_disk_is_on_itself_and_a_device_that_is_not_there_on_no_other() {
        let device = rustix::fs::makedev(4095, 1);
        assert!(is_on(device, &BTreeSet::from([device])));
        assert!(!is_on(device, &BTreeSet::from([rustix::fs::makedev(4095, 2)])));
    }
}
