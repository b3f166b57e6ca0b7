// SPDX-License-Identifier: Apache-2.0
//! Questions about LVM, the device mapper and software RAID.

use crate::contents;
use crate::devices::Device;
use crate::listing;
use crate::lvm;
use crate::lvm::report::Report;
use crate::mountable::Mountable;
use crate::session::Session;
use guest_error::{Errno, Error, Result};
use probe::device_mapper;
use std::ffi::OsStr;
use std::path::PathBuf;

/// Devices that are physical volumes.
pub(crate) fn pvs(s: &mut Session) -> Result<Vec<PathBuf>> {
    lvm::physical_volumes(s)
}

/// Names of volume groups.
pub(crate) fn vgs(s: &mut Session) -> Result<Vec<String>> {
    lvm::groups(s)
}

/// Logical volumes that people see. Tools that look for encrypted ones ask at every inspection, without looking first
/// whether there is LVM: where its program is missing, none can be used, and that is no reason to give up.
pub(crate) fn lvs(s: &mut Session) -> Result<Vec<PathBuf>> {
    match lvm::need_program() {
        Ok(()) => lvm::volumes(s),
        Err(_) => Ok(Vec::new()),
    }
}

/// UUID of a physical volume.
pub(crate) fn pvuuid(_: &mut Session, device: Device) -> Result<String> {
    let found = contents::of_device(&device)?.filter(|c| c.fstype() == "LVM2_member");
    let uuid = found.and_then(|c| c.uuid().map(|u| u.to_string_lossy().into_owned()));
    uuid.ok_or_else(|| Error::new(Errno::EINVAL, "not a physical volume").within(&device))
}

/// UUID of a volume group.
pub(crate) fn vguuid(s: &mut Session, vgname: &OsStr) -> Result<String> {
    let uuids = uuids_of_group(s, "vg_uuid", vgname)?;
    uuids.into_iter().next().ok_or_else(|| Error::new(Errno::EIO, "no UUID").within(vgname))
}

/// UUIDs of the physical volumes of a group.
pub(crate) fn vgpvuuids(s: &mut Session, vgname: &OsStr) -> Result<Vec<String>> {
    uuids_of_group(s, "pv_uuid", vgname)
}

/// UUIDs of the logical volumes of a group.
pub(crate) fn vglvuuids(s: &mut Session, vgname: &OsStr) -> Result<Vec<String>> {
    uuids_of_group(s, "lv_uuid", vgname)
}

fn uuids_of_group(s: &mut Session, field: &str, vgname: &OsStr) -> Result<Vec<String>> {
    lvm::check_group("vgname", vgname)?;
    let report = Report::run(lvm::command(s, "vgs")?, &[field], &[vgname]);
    let mut uuids = report.map_err(|e| e.within(vgname))?.column(field)?;
    uuids.retain(|id| !id.is_empty());
    Ok(uuids)
}

/// UUID of a logical volume, active or not.
pub(crate) fn lvuuid(s: &mut Session, device: &OsStr) -> Result<String> {
    let device = match s.device("device", device) {
        Err(e) if e.errno() == Errno::ENODEV => {
            return lvm::field_of_inactive(s, device, "lv_uuid").ok_or(e);
        }
        found => found?,
    };
    let map = device_mapper::of_device(device.path()).filter(|map| map.volume().is_some());
    map.and_then(|map| map.volume_uuid()).ok_or_else(|| not_a_volume("device", device.name()))
}

fn not_a_volume(argument: &str, name: &OsStr) -> Error {
    Error::argument(argument, name, "not a logical volume")
}

/// Whether a mountable is a logical volume.
pub(crate) fn is_lv(_: &mut Session, mountable: Mountable) -> Result<bool> {
    let map = device_mapper::of_device(mountable.device.path());
    Ok(mountable.volume.is_none() && map.is_some_and(|map| map.volume().is_some()))
}

/// The name `/dev/VG/LV` of a logical volume that has another.
pub(crate) fn lvm_canonical_lv_name(s: &mut Session, lvname: &OsStr) -> Result<PathBuf> {
    let device = s.device("lvname", lvname)?;
    let volume = device_mapper::of_device(device.path()).and_then(|map| map.volume());
    volume.map(|v| v.path()).ok_or_else(|| not_a_volume("lvname", lvname))
}

/// Devices of the device mapper that are no logical volumes.
pub(crate) fn list_dm_devices(s: &mut Session) -> Result<Vec<PathBuf>> {
    s.settled_devices();
    let others = device_mapper::all().into_iter().filter(|map| !map.is_of_lvm());
    Ok(others.map(|map| map.path()).collect())
}

/// Arrays of software RAID.
pub(crate) fn list_md_devices(s: &mut Session) -> Result<Vec<PathBuf>> {
    s.settled_devices();
    listing::running_arrays()
}
