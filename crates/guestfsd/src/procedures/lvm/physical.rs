// SPDX-License-Identifier: Apache-2.0
//! Physical volumes: made, resized, removed.

use super::change;
use crate::devices::Device;
use crate::lvm;
use crate::procedures::numbers::not_negative;
use crate::session::Session;
use guest_error::Result;

/// Makes a device a physical volume.
pub(crate) fn pvcreate(s: &mut Session, device: Device) -> Result<()> {
    // What was on it is not asked about: there is nobody to answer.
    one(s, "pvcreate", &["--force", "--yes"], &device)
}

/// Has LVM no longer know a physical volume, which must be in no group.
pub(crate) fn pvremove(s: &mut Session, device: Device) -> Result<()> {
    one(s, "pvremove", &["--force"], &device)
}

/// Makes a physical volume as large as its device.
pub(crate) fn pvresize(s: &mut Session, device: Device) -> Result<()> {
    one(s, "pvresize", &[], &device)
}

/// Makes a physical volume of this size, in bytes.
pub(crate) fn pvresize_size(s: &mut Session, device: Device, size: i64) -> Result<()> {
    let size = format!("{}b", not_negative::<u64, _>("size", size)?);
    one(s, "pvresize", &["--yes", "--setphysicalvolumesize", &size], &device)
}

/// Gives a physical volume another UUID, at random.
pub(crate) fn pvchange_uuid(s: &mut Session, device: Device) -> Result<()> {
    one(s, "pvchange", &["--uuid"], &device)
}

/// The same for all physical volumes.
pub(crate) fn pvchange_uuid_all(s: &mut Session) -> Result<()> {
    if !lvm::is_in_use(s) {
        return Ok(());
    }
    lvm::need_program()?;
    let tool = lvm::command(s, "pvchange")?.args(["--uuid", "--all"]);
    change(s, tool, "all physical volumes")
}

/// Runs a command on one device.
fn one(s: &mut Session, command: &str, options: &[&str], device: &Device) -> Result<()> {
    let tool = lvm::command(s, command)?.args(options).arg("--").arg(device.path());
    change(s, tool, device)
}
