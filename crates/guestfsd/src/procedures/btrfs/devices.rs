// SPDX-License-Identifier: Apache-2.0
//! Devices that a filesystem is on.

use super::target::{argument, btrfs, open};
use crate::btrfs::members;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::Result;
use guest_fs::paths::GuestPath;
use std::fs::File;
use std::path::PathBuf;

/// All devices of the filesystem that is on this one.
pub(crate) fn btrfs_filesystem_show(s: &mut Session, device: Device) -> Result<Vec<PathBuf>> {
    members::all(s.settled_devices(), &device)
}

/// Adds devices; what was on them is lost.
pub(crate) fn btrfs_device_add(
    s: &mut Session,
    devices: &[Device],
    fs: GuestPath<'_>,
) -> Result<()> {
    let file = open(s, fs)?;
    if devices.is_empty() {
        return Ok(());
    }
    let tool = btrfs(&["device", "add", "--force", "--"]).args(devices.iter().map(Device::path));
    run(s, tool, &file, fs)
}

/// Takes devices away, after what is on them was moved to others.
pub(crate) fn btrfs_device_delete(
    s: &mut Session,
    devices: &[Device],
    fs: GuestPath<'_>,
) -> Result<()> {
    let file = open(s, fs)?;
    if devices.is_empty() {
        return Ok(());
    }
    let tool = btrfs(&["device", "delete", "--"]).args(devices.iter().map(Device::path));
    run(s, tool, &file, fs)
}

/// Moves what is on one device to another, which takes its place.
pub(crate) fn btrfs_replace(
    s: &mut Session,
    srcdev: Device,
    targetdev: Device,
    mntpoint: GuestPath<'_>,
) -> Result<()> {
    let file = open(s, mntpoint)?;
    let tool = btrfs(&["replace", "start", "-B", "-f", "--"]);
    run(s, tool.arg(srcdev.path()).arg(targetdev.path()), &file, mntpoint)
}

fn run(s: &mut Session, tool: Tool, file: &File, name: GuestPath<'_>) -> Result<()> {
    let done = tool.arg(argument(file)).ok().map_err(|e| e.within(name));
    s.udev().changed();
    done
}
