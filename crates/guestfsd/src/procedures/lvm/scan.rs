// SPDX-License-Identifier: Apache-2.0
//! Which devices LVM sees, and looking at them again.
//!
//! No LVM of today keeps what it has seen from command to command (with the settings that a session has), so looking
//! again means to activate what is there.

use super::change;
use super::groups::activate_if_possible;
use crate::devices::Device;
use crate::lvm;
use crate::session::Session;
use guest_error::Result;
use probe::device_mapper;
use std::path::PathBuf;

/// Looks for physical volumes again.
pub(crate) fn vgscan(s: &mut Session) -> Result<()> {
    lvm_scan(s, false)
}

/// Looks for physical volumes again, and makes the volumes found there usable if it is told to.
pub(crate) fn lvm_scan(s: &mut Session, activate: bool) -> Result<()> {
    if !lvm::is_in_use(s) {
        return Ok(());
    }
    lvm::need_program()?;
    let activate: &[&str] = if activate { &["--activate", "ay"] } else { &[] };
    let tool = lvm::command(s, "pvscan")?.arg("--cache").args(activate);
    change(s, tool, "physical volumes")
}

/// Has LVM see only these devices and their partitions.
pub(crate) fn lvm_set_filter(s: &mut Session, devices: &[Device]) -> Result<()> {
    let devices = devices.iter().map(|d| d.path().to_owned()).collect();
    see(s, Some(devices))
}

/// Has LVM see all devices of the session.
pub(crate) fn lvm_clear_filter(s: &mut Session) -> Result<()> {
    see(s, None)
}

/// Has LVM see other devices than before: volumes on those that it no longer sees could not be deactivated any more,
/// so that all are deactivated before, and what is seen is activated then.
fn see(s: &mut Session, devices: Option<Vec<PathBuf>>) -> Result<()> {
    let before = active();
    if let Err(e) = activate_if_possible(s, false) {
        // Some are in use; the others are to be as they were.
        let still = active();
        let lost: Vec<&String> = before.iter().filter(|name| !still.contains(name)).collect();
        if !lost.is_empty() {
            let tool = lvm::command(s, "lvchange")?.args(["--activate", "y", "--"]).args(lost);
            change(s, tool, "volumes that were active")?;
        }
        return Err(e);
    }
    lvm::narrow(s, devices);
    activate_if_possible(s, true)
}

/// The volumes that are active, as `lvm` calls them.
fn active() -> Vec<String> {
    let volumes = device_mapper::volumes().into_iter();
    volumes.map(|(volume, _)| format!("{}/{}", volume.group, volume.volume)).collect()
}
