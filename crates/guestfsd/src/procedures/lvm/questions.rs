// SPDX-License-Identifier: Apache-2.0
//! Questions about LVM, the device mapper and software RAID, and names of volumes and groups.
//!
//! What the kernel's tables or a superblock say is answered from there; `lvm` is asked for the rest.

use crate::contents;
use crate::devices::Device;
use crate::listing;
use crate::mountable::Mountable;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Errno, Error, Result};
use probe::device_mapper;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

fn lvm(command: &str) -> Tool {
    Tool::new("lvm").arg(command)
}

/// Logical volumes that people see. Where there is no LVM there are none: tools that look for encrypted ones
/// ask without looking first whether there is LVM. They do so at every inspection, and `lvm` takes longer than the
/// rest of it: so it is not asked where no device has its label.
pub(crate) fn lvs(s: &mut Session) -> Result<Vec<PathBuf>> {
    s.settled_devices();
    if crate::tool::find("lvm").is_none() || !is_in_use() {
        return Ok(Vec::new());
    }
    let seen = "lv_role=public && lv_skip_activation!=yes";
    let columns = ["--noheadings", "-o", "vg_name,lv_name", "-S", seen, "--separator", "/"];
    let names = lvm("lvs").args(columns).output()?;
    let names = names.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|n| !n.is_empty());
    Ok(names.map(|name| Path::new("/dev").join(OsStr::from_bytes(name))).collect())
}

/// Whether there are physical volumes, or volumes that were made of some.
fn is_in_use() -> bool {
    let devices = std::fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    !device_mapper::volumes().is_empty()
        || devices.into_iter().any(|d| is_physical_volume(&d.path()))
}

/// Whether the device with this directory in sysfs has LVM's label, in one of its first four sectors (`man pvcreate`).
fn is_physical_volume(sysfs: &Path) -> bool {
    let Some(name) = sysfs.file_name().and_then(OsStr::to_str) else { return false };
    let has_size = std::fs::read_to_string(sysfs.join("size")).is_ok_and(|s| s.trim() != "0");
    // A floppy drive takes seconds to answer, and LVM does not look there either.
    if !has_size || name.starts_with("fd") {
        return false;
    }
    let mut sectors = [0; 4 * 512];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let path = Path::new("/dev").join(name.replace('!', "/"));
    // What cannot be read (or has no node for us) LVM cannot read either.
    rustix::fs::open(path, flags, Mode::empty())
        .and_then(|device| rustix::io::pread(device, &mut sectors, 0))
        .is_ok_and(|n| sectors[..n].chunks(512).any(|sector| sector.starts_with(b"LABELONE")))
}

/// Renames a logical volume.
pub(crate) fn lvrename(s: &mut Session, logvol: &OsStr, newlogvol: &OsStr) -> Result<()> {
    let tool = lvm("lvrename").arg("--").arg(logvol).arg(newlogvol);
    rename(s, tool, logvol)
}

/// Renames a volume group.
pub(crate) fn vgrename(s: &mut Session, volgroup: &OsStr, newvolgroup: &OsStr) -> Result<()> {
    let tool = lvm("vgrename").arg("--").arg(volgroup).arg(newvolgroup);
    rename(s, tool, volgroup)
}

fn rename(s: &mut Session, tool: Tool, what: &OsStr) -> Result<()> {
    let done = tool.ok().map_err(|e| e.within(what));
    s.udev().changed();
    done
}

/// UUID of a physical volume.
pub(crate) fn pvuuid(_: &mut Session, device: Device) -> Result<String> {
    let found = contents::of_device(&device)?.filter(|c| c.fstype() == "LVM2_member");
    let uuid = found.and_then(|c| c.uuid().map(|u| u.to_string_lossy().into_owned()));
    uuid.ok_or_else(|| Error::new(Errno::EINVAL, "not a physical volume").within(&device))
}

/// UUID of a volume group.
pub(crate) fn vguuid(_: &mut Session, vgname: &OsStr) -> Result<String> {
    let uuids = uuids_of_group("vg_uuid", vgname)?;
    uuids.into_iter().next().ok_or_else(|| Error::new(Errno::EIO, "no UUID").within(vgname))
}

/// UUIDs of the physical volumes of a group.
pub(crate) fn vgpvuuids(_: &mut Session, vgname: &OsStr) -> Result<Vec<String>> {
    uuids_of_group("pv_uuid", vgname)
}

/// UUIDs of the logical volumes of a group.
pub(crate) fn vglvuuids(_: &mut Session, vgname: &OsStr) -> Result<Vec<String>> {
    uuids_of_group("lv_uuid", vgname)
}

fn uuids_of_group(field: &str, vgname: &OsStr) -> Result<Vec<String>> {
    // An empty name would be that of all groups.
    if vgname.is_empty() {
        return Err(Error::argument("vgname", vgname, "not the name of a volume group"));
    }
    let tool = lvm("vgs").args(["--unbuffered", "--noheadings", "-o", field, "--"]);
    let output = tool.arg(vgname).output().map_err(|e| e.within(vgname))?;
    Ok(words(&output))
}

fn words(output: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(output).split_whitespace().map(str::to_owned).collect()
}

/// UUID of a logical volume.
pub(crate) fn lvuuid(_: &mut Session, device: Device) -> Result<String> {
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
    let others = device_mapper::all().into_iter().filter(|map| !map.uuid.starts_with("LVM-"));
    Ok(others.map(|map| map.path()).collect())
}

/// Arrays of software RAID.
pub(crate) fn list_md_devices(s: &mut Session) -> Result<Vec<PathBuf>> {
    s.settled_devices();
    listing::running_arrays()
}

/// Looks for physical volumes again.
pub(crate) fn vgscan(s: &mut Session) -> Result<()> {
    lvm_scan(s, false)
}

/// Looks for physical volumes again, and makes the volumes found there usable if it is told to.
pub(crate) fn lvm_scan(s: &mut Session, activate: bool) -> Result<()> {
    s.settled_devices();
    let activate: &[&str] = if activate { &["--activate", "ay"] } else { &[] };
    let done = lvm("pvscan").arg("--cache").args(activate).ok();
    s.udev().changed();
    done
}

/// Has LVM see all devices, and look at them. No filter is kept from command to command here, so that
/// there is nothing else to undo.
pub(crate) fn lvm_clear_filter(s: &mut Session) -> Result<()> {
    s.settled_devices();
    let done = lvm("vgscan").arg("--cache").ok().and_then(|()| match dm_is_there() {
        true => lvm("vgchange").arg("-ay").ok(),
        false => Ok(()),
    });
    s.udev().changed();
    done
}

fn dm_is_there() -> bool {
    std::path::Path::new("/sys/class/misc/device-mapper").exists()
}
