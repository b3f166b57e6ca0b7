// SPDX-License-Identifier: Apache-2.0
//! btrfs: subvolumes, quotas, devices, and what keeps a filesystem in order.
//!
//! What the kernel can be asked or told by an ioctl is not left to a program. The program `btrfs` does what takes long,
//! so that it can be killed, and `mkfs.btrfs`, `btrfstune` and `btrfs-image` what is done to filesystems that are not
//! mounted.

mod devices;
mod offline;
mod quotas;
mod show;
mod subvolumes;
mod target;
mod upkeep;

pub(crate) use devices::*;
pub(crate) use offline::*;
pub(crate) use quotas::*;
pub(crate) use show::*;
pub(crate) use subvolumes::*;
pub(crate) use upkeep::*;
