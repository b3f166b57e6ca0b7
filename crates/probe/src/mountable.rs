// SPDX-License-Identifier: Apache-2.0
//! Where a filesystem is.

use std::ffi::OsString;
use std::path::PathBuf;

/// A place that can be mounted: a device of this machine, or a subvolume on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountableName {
    /// Path of the device on this machine.
    pub device: PathBuf,
    /// The btrfs subvolume, where it is one.
    pub volume: Option<OsString>,
}

impl From<PathBuf> for MountableName {
    fn from(device: PathBuf) -> Self {
        Self { device, volume: None }
    }
}
