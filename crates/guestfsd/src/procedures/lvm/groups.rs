// SPDX-License-Identifier: Apache-2.0
//! Volume groups: made, renamed, activated, removed.

use super::{change, change_named};
use crate::devices::Device;
use crate::kernel;
use crate::lvm::{self, Groups};
use crate::session::Session;
use guest_error::{Error, Result};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Makes a group of physical volumes, which become such if they are not yet.
pub(crate) fn vgcreate(s: &mut Session, volgroup: &OsStr, physvols: &[Device]) -> Result<()> {
    if physvols.is_empty() {
        return Err(Error::argument("physvols", "", "a group needs physical volumes"));
    }
    let tool = lvm::command(s, "vgcreate")?.arg("--").arg(volgroup);
    change(s, tool.args(physvols.iter().map(Device::path)), volgroup)
}

/// Renames a group.
pub(crate) fn vgrename(s: &mut Session, volgroup: &OsStr, newvolgroup: &OsStr) -> Result<()> {
    let tool = lvm::command(s, "vgrename")?.arg("--").arg(volgroup).arg(newvolgroup);
    change(s, tool, volgroup)
}

/// Removes a group with all its volumes.
pub(crate) fn vgremove(s: &mut Session, vgname: &OsStr) -> Result<()> {
    lvm::check_group("vgname", vgname)?;
    let tool = lvm::command(s, "vgremove")?.args(["--force", "--"]).arg(vgname);
    change(s, tool, vgname)
}

/// Gives a group another UUID, at random.
pub(crate) fn vgchange_uuid(s: &mut Session, vg: &OsStr) -> Result<()> {
    lvm::check_group("vg", vg)?;
    let tool = lvm::command(s, "vgchange")?.args(["--uuid", "--"]).arg(vg);
    change(s, tool, vg)
}

/// The same for all groups.
pub(crate) fn vgchange_uuid_all(s: &mut Session) -> Result<()> {
    if !lvm::is_in_use(s) {
        return Ok(());
    }
    lvm::need_program()?;
    let tool = lvm::command(s, "vgchange")?.arg("--uuid");
    change(s, tool, "all volume groups")
}

/// Makes the volumes of all groups usable, or not.
pub(crate) fn vg_activate_all(s: &mut Session, activate: bool) -> Result<()> {
    vg_activate(s, activate, &[])
}

/// Makes the volumes of these groups usable, or not; of all groups if none is named. Where a physical volume is missing,
/// those of its group that do without it become usable, and the rest is an error.
pub(crate) fn vg_activate(s: &mut Session, activate: bool, volgroups: &[&OsStr]) -> Result<()> {
    for name in volgroups {
        lvm::check_group("volgroups", name)?;
    }
    if volgroups.is_empty() && !lvm::is_in_use(s) {
        return Ok(());
    }
    lvm::need_program()?;
    let names = volgroups.join(OsStr::new(" "));
    let what = if names.is_empty() { OsStr::new("all volume groups") } else { &names };
    if activate && !kernel::has_device_mapper() {
        return Err(Error::not_supported(lvm::NO_DEVICE_MAPPER).within(what));
    }
    let apart = change_activation(s, activate, volgroups, what)?;
    // In this session they are not active.
    apart.filter(|_| activate).map_or(Ok(()), Err)
}

/// Makes the volumes of these groups usable, or not; of all groups if none is named. Yields why not those of groups that
/// are not the session's alone.
fn change_activation(
    s: &mut Session,
    activate: bool,
    names: &[&OsStr],
    what: &OsStr,
) -> Result<Option<Error>> {
    let how = if activate { "y" } else { "n" };
    let apart = lvm::groups_apart(s, names)?;
    let tool = lvm::command(s, "vgchange")?.args(["--activate", how, "--"]);
    match apart {
        None => change(s, tool.args(names), what).map(|()| None),
        Some(Groups { free, taken }) if free.is_empty() => Ok(taken),
        Some(Groups { free, taken }) => {
            change_named(s, tool.args(&free), what)?;
            Ok(taken)
        }
    }
}

/// Removes all volumes, groups and physical volumes.
pub(crate) fn lvm_remove_all(s: &mut Session) -> Result<()> {
    if !lvm::is_in_use(s) {
        return Ok(());
    }
    lvm::need_program()?;
    // What is in use is not removed, and then nothing is.
    activate_if_possible(s, false)?;
    // A group goes with its physical volumes, whatever state it is in.
    let labelled: Vec<PathBuf> = lvm::labelled(s).collect();
    if labelled.is_empty() {
        return Ok(());
    }
    let tool = lvm::command(s, "pvremove")?.args(["--force", "--force", "--yes", "--"]);
    change(s, tool.args(labelled), "all physical volumes")
}

/// Makes the volumes of all groups usable, or not, where there are any and the kernel has the device mapper.
pub(super) fn activate_if_possible(s: &mut Session, activate: bool) -> Result<()> {
    if !lvm::is_in_use(s) || !kernel::has_device_mapper() {
        return Ok(());
    }
    lvm::need_program()?;
    // As at the beginning of the session, the rest stays inactive.
    if let Some(e) = change_activation(s, activate, &[], OsStr::new("all volume groups"))? {
        tracing::warn!("{e}");
    }
    Ok(())
}
