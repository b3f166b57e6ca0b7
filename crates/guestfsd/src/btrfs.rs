// SPDX-License-Identifier: Apache-2.0
//! btrfs that is mounted: what the kernel is asked and told about subvolumes, quotas and scrubbing, and which
//! devices a filesystem is on.
//!
//! No program is run here: the kernel's answers are numbers and names of known length, which a subvolume's name
//! cannot make look like something else. What the program `btrfs` does is in the procedures.

mod fields;
mod ioctl;
pub(crate) mod members;
pub(crate) mod qgroups;
pub(crate) mod scrubs;
pub(crate) mod subvolumes;

pub(crate) use ioctl::{balance, filesystem_uuid, quotas, subvolumes as subvolume, sync};
