// SPDX-License-Identifier: Apache-2.0
//! Swap space: made, switched on and off. What is on when the session ends is switched off.

use crate::devices::Device;
use crate::filesystems;
use crate::session::Session;
use crate::swap::Swaps;
use crate::tool::Tool;
use guest_error::{Context, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use guestfs_api::options;
use probe::contents::Contents;
use probe::partition_table::guid::Guid;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Most bytes of a label.
const MAX_LABEL: usize = 16;

/// Makes swap space of a device.
pub(crate) fn mkswap(s: &mut Session, device: Device, options: &options::Mkswap) -> Result<()> {
    make(s, device.path(), &device, options.label, options.uuid)
}

/// Makes swap space with this label.
pub(crate) fn mkswap_l(s: &mut Session, label: &OsStr, device: Device) -> Result<()> {
    make(s, device.path(), &device, Some(label), None)
}

/// Makes swap space with this UUID.
pub(crate) fn mkswap_u(s: &mut Session, uuid: &OsStr, device: Device) -> Result<()> {
    make(s, device.path(), &device, None, Some(uuid))
}

/// Makes swap space of a file.
pub(crate) fn mkswap_file(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let file = s.open(path, OFlags::RDWR)?;
    make(s, &proc_path(file.as_fd()), path, None, None)
}

fn make(
    s: &mut Session,
    path: &Path,
    name: impl AsRef<OsStr>,
    label: Option<&OsStr>,
    uuid: Option<&OsStr>,
) -> Result<()> {
    let mut tool = Tool::new("mkswap").arg("-f");
    if let Some(label) = label {
        if label.len() > MAX_LABEL {
            let why = "labels of swap space are limited to 16 bytes";
            return Err(Error::argument("label", label, why));
        }
        tool = tool.arg("-L").arg(label);
    }
    if let Some(uuid) = uuid {
        // Looked at before anything is written.
        let known = uuid.to_str().is_some_and(|text| {
            matches!(text, "clear" | "random" | "time") || Guid::parse(text).is_some()
        });
        if !known {
            return Err(Error::argument("uuid", uuid, "is not a UUID"));
        }
        tool = tool.arg("-U").arg(uuid);
    }
    s.udev().changed();
    tool.arg("--").arg(path).ok().map_err(|e| e.within(name))
}

/// Swaps to a device.
pub(crate) fn swapon_device(s: &mut Session, device: Device) -> Result<()> {
    let file = device.open(OFlags::PATH)?;
    s.state::<Swaps>().switch_on(file, device.name())
}

/// Swaps to a device no more.
pub(crate) fn swapoff_device(s: &mut Session, device: Device) -> Result<()> {
    let file = device.open(OFlags::PATH)?;
    s.state::<Swaps>().switch_off(&file, device.name())
}

/// Swaps to a file.
pub(crate) fn swapon_file(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let file = s.open(path, OFlags::PATH)?;
    s.state::<Swaps>().switch_on(file, path.as_os_str())
}

/// Swaps to a file no more.
pub(crate) fn swapoff_file(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let file = s.open(path, OFlags::PATH)?;
    s.state::<Swaps>().switch_off(&file, path.as_os_str())
}

/// Swaps to the device with this label.
pub(crate) fn swapon_label(s: &mut Session, label: &OsStr) -> Result<()> {
    let file = labelled(s, label)?;
    s.state::<Swaps>().switch_on(file, label)
}

/// Stops swapping to the device with this label.
pub(crate) fn swapoff_label(s: &mut Session, label: &OsStr) -> Result<()> {
    let file = labelled(s, label)?;
    s.state::<Swaps>().switch_off(&file, label)
}

/// Swaps to the device with this UUID.
pub(crate) fn swapon_uuid(s: &mut Session, uuid: &OsStr) -> Result<()> {
    let file = identified(s, uuid)?;
    s.state::<Swaps>().switch_on(file, uuid)
}

/// Stops swapping to the device with this UUID.
pub(crate) fn swapoff_uuid(s: &mut Session, uuid: &OsStr) -> Result<()> {
    let file = identified(s, uuid)?;
    s.state::<Swaps>().switch_off(&file, uuid)
}

fn labelled(s: &mut Session, label: &OsStr) -> Result<File> {
    find(s, "label", label, |c| c.label() == Some(label))
}

fn identified(s: &mut Session, uuid: &OsStr) -> Result<File> {
    find(s, "uuid", uuid, |c| c.uuid().is_some_and(|u| u.eq_ignore_ascii_case(uuid)))
}

/// The client's device with swap space of which this is so.
fn find(
    s: &mut Session,
    argument: &str,
    value: &OsStr,
    is: impl Fn(&Contents) -> bool,
) -> Result<File> {
    let path =
        filesystems::find(s.settled_devices(), argument, value, |c| c.fstype() == "swap" && is(c))?;
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    file.map(File::from).on(value)
}
