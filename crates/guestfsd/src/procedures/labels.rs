// SPDX-License-Identifier: Apache-2.0
//! Labels and UUIDs of filesystems of any type, and how small they can be made.

use super::{ext, ntfs, xfs};
use crate::devices::Device;
use crate::error::{Error, Result};
use crate::mountable::Mountable;
use crate::probe;
use crate::session::Session;
use crate::tool::Tool;
use partitions::guid::Guid;
use std::ffi::{OsStr, OsString};

/// Bytes that a label may have.
const MAX_BTRFS: usize = 255;
const MAX_SWAP: usize = 16;
/// Characters that a label may have.
const MAX_NTFS: usize = 128;

/// What a UUID is set to.
enum Uuid<'a> {
    To(&'a OsStr),
    Random,
}

/// Sets the label of a filesystem.
pub(crate) fn set_label(s: &mut Session, mountable: Mountable, label: &OsStr) -> Result<()> {
    let device = &mountable.device;
    let fstype = fstype(device)?;
    let tool = match fstype.as_str() {
        "ext2" | "ext3" | "ext4" | "ext4dev" => {
            ext::check_label("label", label)?;
            Tool::new("tune2fs").arg("-L").arg(label).arg(device.path())
        }
        "btrfs" => {
            check_length("label", label, MAX_BTRFS, "btrfs")?;
            let tool = Tool::new("btrfs").args(["filesystem", "label", "--"]);
            tool.arg(device.path()).arg(label)
        }
        "vfat" | "msdos" if label.is_empty() => {
            Tool::new("fatlabel").arg("--reset").arg(device.path())
        }
        "vfat" | "msdos" => Tool::new("fatlabel").arg("--").arg(device.path()).arg(label),
        "ntfs" => {
            if label.to_string_lossy().encode_utf16().count() > MAX_NTFS {
                let why = "labels of ntfs filesystems have at most 128 characters";
                return Err(Error::argument("label", label, why));
            }
            Tool::new("ntfslabel").arg(device.path()).arg(label)
        }
        "swap" => {
            check_length("label", label, MAX_SWAP, "Linux swap")?;
            Tool::new("swaplabel").arg("-L").arg(label).arg(device.path())
        }
        "xfs" => {
            s.udev().changed();
            return xfs::change_label(device, label);
        }
        _ => return Err(no_way("the label", &fstype)),
    };
    ext::change(s, device, tool)
}

/// Sets the UUID of a filesystem.
pub(crate) fn set_uuid(s: &mut Session, device: Device, uuid: &OsStr) -> Result<()> {
    change_uuid(s, &device, &Uuid::To(uuid))
}

/// Sets the UUID of a filesystem to a random one.
pub(crate) fn set_uuid_random(s: &mut Session, device: Device) -> Result<()> {
    change_uuid(s, &device, &Uuid::Random)
}

fn change_uuid(s: &mut Session, device: &Device, uuid: &Uuid<'_>) -> Result<()> {
    let fstype = fstype(device)?;
    let to = |random: &str| match uuid {
        Uuid::To(uuid) => (*uuid).to_owned(),
        Uuid::Random => OsString::from(random),
    };
    let tool = match fstype.as_str() {
        "ext2" | "ext3" | "ext4" | "ext4dev" => Tool::new("tune2fs").arg("-U").arg(to("random")),
        "xfs" => {
            s.udev().changed();
            return xfs::change_uuid(device, &to("generate"));
        }
        "swap" => {
            let uuid = match uuid {
                Uuid::To(uuid) => check_uuid(uuid)?.to_owned(),
                Uuid::Random => uuid::Uuid::new_v4().to_string().into(),
            };
            Tool::new("swaplabel").arg("-U").arg(uuid)
        }
        "btrfs" => match uuid {
            Uuid::To(uuid) => Tool::new("btrfstune").args(["-f", "-U"]).arg(check_uuid(uuid)?),
            Uuid::Random => Tool::new("btrfstune").args(["-f", "-u"]),
        },
        _ => return Err(no_way("the UUID", &fstype)),
    };
    ext::change(s, device, tool.arg(device.path()))
}

/// The size in bytes that a filesystem can be made smaller to.
pub(crate) fn vfs_minimum_size(s: &mut Session, mountable: Mountable) -> Result<i64> {
    let device = &mountable.device;
    let fstype = fstype(device)?;
    match fstype.as_str() {
        "ext2" | "ext3" | "ext4" | "ext4dev" => ext::minimum_size(device),
        "ntfs" => ntfs::minimum_size(device),
        "btrfs" => btrfs_minimum_size(device),
        "xfs" => xfs::minimum_size(s, device),
        _ => {
            let what = format!("don't know how to get the minimum size of '{fstype}' filesystems");
            Err(Error::not_supported(what))
        }
    }
}

fn btrfs_minimum_size(device: &Device) -> Result<i64> {
    let mount =
        crate::mounts::Detached::new(device.path(), "btrfs").map_err(|e| e.within(device))?;
    let tool = Tool::new("btrfs").args(["inspect-internal", "min-dev-size", "--"]);
    let output = tool.arg(mount.path()).output().map_err(|e| e.within(device))?;
    let text = String::from_utf8_lossy(&output);
    let bytes = text.split_whitespace().next().and_then(|n| n.parse().ok());
    bytes.ok_or_else(|| ext::unreadable("btrfs inspect-internal min-dev-size", device))
}

fn fstype(device: &Device) -> Result<String> {
    Ok(probe::device(device)?.map(|c| c.fstype().to_owned()).unwrap_or_default())
}

fn no_way(what: &str, fstype: &str) -> Error {
    Error::not_supported(format!("don't know how to set {what} for '{fstype}' filesystems"))
}

/// An error for a label that is too long.
pub(super) fn check_length(argument: &str, label: &OsStr, most: usize, fstype: &str) -> Result<()> {
    if label.len() <= most {
        return Ok(());
    }
    Err(Error::argument(argument, label, &format!("{fstype} labels are limited to {most} bytes")))
}

/// An error for what is no UUID: some programs take anything.
pub(super) fn check_uuid(uuid: &OsStr) -> Result<&OsStr> {
    match uuid.to_str().and_then(Guid::parse) {
        Some(_) => Ok(uuid),
        None => Err(Error::argument("uuid", uuid, "not a UUID")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_uuid_is_refused() {
        assert!(check_uuid(OsStr::new("a3a61220-882b-4f61-89f4-cf24dcc7297d")).is_ok());
        for bad in [
            "",
            "xx",
            "a3a61220-882b-4f61-89f4-cf24dcc7297",
            "a3a61220x882b-4f61-89f4-cf24dcc7297d",
        ] {
            assert!(check_uuid(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
