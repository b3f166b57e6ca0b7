// SPDX-License-Identifier: Apache-2.0
//! Labels and UUIDs of filesystems of any type, and how small they can be made.

use crate::contents;
use crate::devices::Device;
use crate::drivers::{self, NewUuid};
use crate::mountable::Mountable;
use crate::session::Session;
use guest_error::{Error, Result};
use std::ffi::OsStr;

/// Sets the label of a filesystem.
pub(crate) fn set_label(s: &mut Session, mountable: Mountable, label: &OsStr) -> Result<()> {
    let device = &mountable.device;
    let fstype = fstype(device)?;
    let set = drivers::of(&fstype).and_then(|driver| driver.set_label);
    let done = set.ok_or_else(|| no_way("the label", &fstype))?(device, label);
    s.udev().changed();
    done
}

/// Sets the UUID of a filesystem.
pub(crate) fn set_uuid(s: &mut Session, device: Device, uuid: &OsStr) -> Result<()> {
    change_uuid(s, &device, NewUuid::To(uuid))
}

/// Sets the UUID of a filesystem to a random one.
pub(crate) fn set_uuid_random(s: &mut Session, device: Device) -> Result<()> {
    change_uuid(s, &device, NewUuid::Random)
}

fn change_uuid(s: &mut Session, device: &Device, uuid: NewUuid<'_>) -> Result<()> {
    let fstype = fstype(device)?;
    let set = drivers::of(&fstype).and_then(|driver| driver.set_uuid);
    let done = set.ok_or_else(|| no_way("the UUID", &fstype))?(device, uuid);
    s.udev().changed();
    done
}

/// The size in bytes that a filesystem can be made smaller to.
pub(crate) fn vfs_minimum_size(s: &mut Session, mountable: Mountable) -> Result<i64> {
    let device = &mountable.device;
    let fstype = fstype(device)?;
    let size = drivers::of(&fstype).and_then(|driver| driver.minimum_size);
    let size = size.ok_or_else(|| {
        let what = format!("don't know how to get the minimum size of '{fstype}' filesystems");
        Error::not_supported(what)
    })?;
    size(s, device)
}

fn fstype(device: &Device) -> Result<String> {
    Ok(contents::of_device(device)?.map(|c| c.fstype().to_owned()).unwrap_or_default())
}

fn no_way(what: &str, fstype: &str) -> Error {
    Error::not_supported(format!("don't know how to set {what} for '{fstype}' filesystems"))
}
