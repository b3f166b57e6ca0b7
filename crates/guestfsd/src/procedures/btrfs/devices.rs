// SPDX-License-Identifier: Apache-2.0
//! Devices that a filesystem is on.

use super::super::change::change;
use super::target::{btrfs, open};
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
    device(s, &["device", "add", "--force", "--"], devices, fs)
}

/// Takes devices away, after what is on them was moved to others.
pub(crate) fn btrfs_device_delete(
    s: &mut Session,
    devices: &[Device],
    fs: GuestPath<'_>,
) -> Result<()> {
    device(s, &["device", "delete", "--"], devices, fs)
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

/// Runs a command that takes devices, if there are any.
fn device(s: &mut Session, command: &[&str], devices: &[Device], fs: GuestPath<'_>) -> Result<()> {
    let file = open(s, fs)?;
    if devices.is_empty() {
        return Ok(());
    }
    let tool = btrfs(command).args(devices.iter().map(Device::path));
    run(s, tool, &file, fs)
}

fn run(s: &mut Session, tool: Tool, file: &File, name: GuestPath<'_>) -> Result<()> {
    change(s, name, tool.file(file, name))
}
