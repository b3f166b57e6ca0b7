// SPDX-License-Identifier: Apache-2.0
//! Dynamic disks of Windows: the Logical Disk Manager's disk groups and volumes.
//!
//! The program `ldmtool` reads their database and has the device mapper make devices of them; it is shown the disks of
//! the session and no others. Which devices there are is asked of the kernel.

use crate::devices::Device;
use crate::listing;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Errno, Error, Result};
use probe::{device_mapper, partition};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// How the names of devices begin that `ldmtool` makes: of volumes, and of the partitions that those are made of.
const VOLUME: &str = "ldm_vol_";
const PARTITION: &str = "ldm_part_";

/// Devices of volumes.
pub(crate) fn list_ldm_volumes(s: &mut Session) -> Result<Vec<PathBuf>> {
    Ok(made(s, VOLUME))
}

/// Devices of what volumes are made of.
pub(crate) fn list_ldm_partitions(s: &mut Session) -> Result<Vec<PathBuf>> {
    Ok(made(s, PARTITION))
}

fn made(s: &mut Session, prefix: &str) -> Vec<PathBuf> {
    s.settled_devices();
    let maps = device_mapper::all().into_iter().filter(|map| map.name.starts_with(prefix));
    maps.map(|map| map.path()).collect()
}

/// Makes the devices of all volumes that have all of their disks; the others are an error.
pub(crate) fn ldmtool_create_all(s: &mut Session) -> Result<()> {
    change(s, "create")
}

/// Removes the devices of all volumes.
pub(crate) fn ldmtool_remove_all(s: &mut Session) -> Result<()> {
    change(s, "remove")
}

fn change(s: &mut Session, action: &str) -> Result<()> {
    let Some(tool) = tool(s, &[]) else { return Ok(()) };
    let output = s.noting(|_| tool.args([action, "all"]).run())?;
    s.udev().changed();
    // It ends well though it could not do it.
    let refusal = format!("Unable to {action} ");
    let refusals: Vec<&str> =
        output.stderr.lines().filter(|line| line.starts_with(&refusal)).collect();
    match refusals[..] {
        [] => output.success().map(drop),
        _ => Err(Error::new(Errno::EIO, refusals.join("\n")).within("ldmtool")),
    }
}

/// GUIDs of the disk groups.
pub(crate) fn ldmtool_scan(s: &mut Session) -> Result<Vec<String>> {
    ldmtool_scan_devices(s, &[])
}

/// GUIDs of the disk groups on these devices, or on all if none is named.
pub(crate) fn ldmtool_scan_devices(s: &mut Session, devices: &[Device]) -> Result<Vec<String>> {
    let devices: Vec<PathBuf> = devices.iter().map(|d| d.path().to_owned()).collect();
    strings(ask(s, &devices, &["scan".as_ref()])?)
}

/// The name of a disk group.
pub(crate) fn ldmtool_diskgroup_name(s: &mut Session, diskgroup: &OsStr) -> Result<String> {
    string(field(s, &group(diskgroup)?, "name")?)
}

/// Names of the volumes of a disk group.
pub(crate) fn ldmtool_diskgroup_volumes(s: &mut Session, diskgroup: &OsStr) -> Result<Vec<String>> {
    strings(field(s, &group(diskgroup)?, "volumes")?)
}

/// Names of the disks of a disk group, as Windows has them.
pub(crate) fn ldmtool_diskgroup_disks(s: &mut Session, diskgroup: &OsStr) -> Result<Vec<PathBuf>> {
    names(field(s, &group(diskgroup)?, "disks")?)
}

/// `simple`, `spanned`, `striped`, `mirrored`, `raid5`, ...
pub(crate) fn ldmtool_volume_type(
    s: &mut Session,
    diskgroup: &OsStr,
    volume: &OsStr,
) -> Result<String> {
    string(field(s, &self::volume(diskgroup, volume)?, "type")?)
}

/// Where Windows mounts a volume (`E:`), as a rule; empty where that is not known.
pub(crate) fn ldmtool_volume_hint(
    s: &mut Session,
    diskgroup: &OsStr,
    volume: &OsStr,
) -> Result<String> {
    match field(s, &self::volume(diskgroup, volume)?, "hint")? {
        Value::Null => Ok(String::new()),
        hint => string(hint),
    }
}

/// Names of the partitions that a volume is made of.
pub(crate) fn ldmtool_volume_partitions(
    s: &mut Session,
    diskgroup: &OsStr,
    volume: &OsStr,
) -> Result<Vec<PathBuf>> {
    names(field(s, &self::volume(diskgroup, volume)?, "partitions")?)
}

/// What `ldmtool` shows of a disk group.
fn group(diskgroup: &OsStr) -> Result<[&OsStr; 3]> {
    Ok(["show".as_ref(), "diskgroup".as_ref(), guid(diskgroup)?])
}

/// What `ldmtool` shows of a volume.
fn volume<'a>(diskgroup: &'a OsStr, volume: &'a OsStr) -> Result<[&'a OsStr; 4]> {
    if volume.as_encoded_bytes().starts_with(b"-") {
        return Err(Error::argument("volume", volume, "not the name of a volume"));
    }
    Ok(["show".as_ref(), "volume".as_ref(), guid(diskgroup)?, volume])
}

/// A GUID: nothing that could be an option.
fn guid(diskgroup: &OsStr) -> Result<&OsStr> {
    let is_guid = diskgroup.to_str().is_some_and(|text| uuid::Uuid::try_parse(text).is_ok());
    match is_guid {
        true => Ok(diskgroup),
        false => Err(Error::argument("diskgroup", diskgroup, "not a GUID")),
    }
}

/// A field of what is shown; null where it is not there.
fn field(s: &mut Session, show: &[&OsStr], name: &str) -> Result<Value> {
    match ask(s, &[], show)? {
        Value::Object(mut fields) => Ok(fields.remove(name).unwrap_or_default()),
        // No disk has a database.
        _ => Err(Error::new(Errno::ENOENT, "there is no such disk group")),
    }
}

/// What `ldmtool` answers.
fn ask(s: &mut Session, devices: &[PathBuf], action: &[&OsStr]) -> Result<Value> {
    let Some(tool) = tool(s, devices) else { return Ok(Value::Array(Vec::new())) };
    let output = tool.args(action).output()?;
    serde_json::from_slice(&output).map_err(|_| not_understood())
}

/// The program, which is shown these devices, or all of the session's that may have a database; none without any: it
/// would look at all of the machine's then.
fn tool(s: &mut Session, devices: &[PathBuf]) -> Option<Tool> {
    let all = if devices.is_empty() { dynamic_disks(s) } else { devices.to_vec() };
    let shown = all.iter().flat_map(|device| [Path::new("--device"), device]);
    (!all.is_empty()).then(|| Tool::new("ldmtool").args(shown))
}

fn dynamic_disks(s: &mut Session) -> Vec<PathBuf> {
    let mut found = s.settled_devices().list();
    found.extend(listing::running_arrays().unwrap_or_default());
    found.retain(|disk| File::open(disk).is_ok_and(|disk| partition::is_dynamic_disk(&disk)));
    found
}

fn string(value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(not_understood()),
    }
}

fn strings(value: Value) -> Result<Vec<String>> {
    match value {
        Value::Array(list) => list.into_iter().map(string).collect(),
        _ => Err(not_understood()),
    }
}

fn names(value: Value) -> Result<Vec<PathBuf>> {
    Ok(strings(value)?.into_iter().map(PathBuf::from).collect())
}

fn not_understood() -> Error {
    Error::new(Errno::EIO, "ldmtool: what it says cannot be understood")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_never_an_option() {
        for text in ["", "-h", "--device=/dev/x", "06495a84-fbfd-11e1-8cf9-52540061f5dg"] {
            assert_eq!(guid(OsStr::new(text)).unwrap_err().errno(), Errno::EINVAL, "{text}");
        }
        let good = OsStr::new("06495a84-fbfd-11e1-8cf9-52540061f5db");
        assert_eq!(guid(good).unwrap(), good);
        assert!(volume(good, OsStr::new("--help")).is_err());
        assert!(volume(good, OsStr::new("Volume1")).is_ok());
    }

    #[test]
    fn what_is_said_is_a_list_of_strings_or_an_error() {
        let list = serde_json::json!(["Volume1", "Volume2"]);
        assert_eq!(strings(list).unwrap(), ["Volume1", "Volume2"]);
        for value in [serde_json::json!(["a", 1]), serde_json::json!({}), Value::Null] {
            assert_eq!(strings(value).unwrap_err().errno(), Errno::EIO);
        }
    }
}
