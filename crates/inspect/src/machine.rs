// SPDX-License-Identifier: Apache-2.0
//! What inspection asks of the machine whose disks it looks at.

use guest_error::{Error, Result};
use guest_fs::paths::Root;
use probe::mountable::MountableName;
use std::ffi::OsString;
use std::path::PathBuf;

/// What inspection asks of the machine whose disks it looks at.
pub trait Machine {
    /// Everything that holds a filesystem, or could, and its type as `blkid` names it.
    fn filesystems(&mut self) -> Result<Vec<(MountableName, String)>>;

    /// Why something that may hold filesystems cannot be used, if there is such a thing.
    fn unusable(&mut self) -> Option<Error>;

    /// Mounts a filesystem, to be read only, while no other is mounted.
    fn mount(&mut self, filesystem: &MountableName, fstype: &str) -> Result<()>;

    /// The root directory of what is mounted.
    fn root(&self) -> Result<&Root>;

    /// Unmounts whatever is mounted.
    fn unmount(&mut self) -> Result<()>;

    /// The device that has this.
    fn find(&mut self, tag: &Tag) -> Option<PathBuf>;

    /// Whole disks, in the order in which a guest that has them names them.
    fn disks(&mut self) -> Vec<PathBuf>;

    /// Partitions of all disks.
    fn partitions(&mut self) -> Vec<PathBuf>;
}

/// By what a filesystem or partition is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// UUID of a filesystem.
    Uuid(OsString),
    /// Label of a filesystem.
    Label(OsString),
    /// UUID of a partition.
    PartUuid(OsString),
    /// Name of a partition.
    PartLabel(OsString),
}
