// SPDX-License-Identifier: Apache-2.0
//! btrfs.

use super::driver::{Block, Driver, Maker, NewUuid, Twin, check_length, check_uuid, unreadable};
use crate::btrfs::members::{self, Access};
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::Result;
use std::ffi::OsStr;

/// Bytes that a label may have.
const MAX_LABEL: usize = 255;

/// Its driver.
pub(super) const DRIVER: Driver = Driver {
    types: &["btrfs"],
    set_label: Some(set_label),
    set_uuid: Some(set_uuid),
    minimum_size: Some(minimum_size),
    twin: Some(Twin::Refused),
    maker: Maker {
        always: &["-f"],
        label: Some("-L"),
        block: Block::No("cannot be set on btrfs filesystems, use 'mkfs-btrfs'"),
        ..Maker::USUAL
    },
};

fn set_label(device: &Device, label: &OsStr) -> Result<()> {
    check_length(label, MAX_LABEL, "btrfs")?;
    let tool = Tool::new("btrfs").args(["filesystem", "label", "--"]);
    tool.arg(device.path()).arg(label).ok().map_err(|e| e.within(device))
}

fn set_uuid(device: &Device, uuid: NewUuid<'_>) -> Result<()> {
    let tool = Tool::new("btrfstune").arg("-f");
    let tool = match uuid {
        NewUuid::To(uuid) => tool.arg("-U").arg(check_uuid(uuid)?),
        NewUuid::Random => tool.arg("-u"),
    };
    tool.arg(device.path()).ok().map_err(|e| e.within(device))
}

fn minimum_size(s: &mut Session, device: &Device) -> Result<i64> {
    let mount = members::mount(s.settled_devices(), device.path(), None, Access::Reading);
    let mount = mount.map_err(|e| e.within(device))?;
    let tool = Tool::new("btrfs").args(["inspect-internal", "min-dev-size", "--"]);
    let output = tool.arg(mount.path()).output().map_err(|e| e.within(device))?;
    let text = String::from_utf8_lossy(&output);
    let bytes = text.split_whitespace().next().and_then(|n| n.parse().ok());
    bytes.ok_or_else(|| unreadable("btrfs inspect-internal min-dev-size", device))
}
