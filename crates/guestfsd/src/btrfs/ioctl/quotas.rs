// SPDX-License-Identifier: Apache-2.0
//! Quotas and their groups.

use super::{call, read, read_write, write};
use rustix::io::Result;
use std::os::fd::AsFd;

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

/// Enables or disables quotas.
pub(crate) fn enable(filesystem: impl AsFd, enable: bool) -> Result<()> {
    let mut args = QuotaControl { command: if enable { 1 } else { 2 }, status: 0 };
    call::<{ read_write::<QuotaControl>(40) }, _>(filesystem, &mut args).map(drop)
}

/// `struct btrfs_ioctl_quota_rescan_args`.
#[repr(C)]
struct QuotaRescan {
    flags: u64,
    progress: u64,
    reserved: [u64; 6],
}

/// Starts counting again what each qgroup uses.
pub(crate) fn start_rescan(filesystem: impl AsFd) -> Result<()> {
    let mut args = QuotaRescan { flags: 0, progress: 0, reserved: [0; 6] };
    call::<{ write::<QuotaRescan>(44) }, _>(filesystem, &mut args).map(drop)
}

/// Whether that goes on.
pub(crate) fn is_rescanning(filesystem: impl AsFd) -> Result<bool> {
    let mut args = QuotaRescan { flags: 0, progress: 0, reserved: [0; 6] };
    call::<{ read::<QuotaRescan>(45) }, _>(filesystem, &mut args)?;
    Ok(args.flags != 0)
}

/// Makes a qgroup, or destroys it.
pub(crate) fn create_qgroup(filesystem: impl AsFd, qgroup: u64, create: bool) -> Result<()> {
    let mut args = [u64::from(create), qgroup];
    call::<{ write::<[u64; 2]>(42) }, _>(filesystem, &mut args).map(drop)
}

/// Makes a qgroup a member of another, or no more. Returns whether what they use has to be counted again.
pub(crate) fn assign_qgroup(
    filesystem: impl AsFd,
    member: u64,
    parent: u64,
    assign: bool,
) -> Result<bool> {
    let mut args = [u64::from(assign), member, parent];
    Ok(call::<{ write::<[u64; 3]>(41) }, _>(filesystem, &mut args)? > 0)
}

/// Limits what the subvolume that a file or directory is in refers to.
pub(crate) fn limit_subvolume(file: impl AsFd, bytes: u64) -> Result<()> {
    const MAX_RFER: u64 = 1;
    // `struct btrfs_ioctl_qgroup_limit_args`: the qgroup (0 for the subvolume's own), flags, limits.
    let mut args = [0, MAX_RFER, bytes, 0, 0, 0];
    call::<{ read::<[u64; 6]>(43) }, _>(file, &mut args).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<QuotaControl>(), 16);
        assert_eq!(size_of::<QuotaRescan>(), 64);
    }
}
