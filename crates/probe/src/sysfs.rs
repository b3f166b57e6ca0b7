// SPDX-License-Identifier: Apache-2.0
//! Where the kernel tells of a block device.

use std::path::PathBuf;

/// The directory in sysfs of the block device of this number.
pub fn directory(device: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}
