// SPDX-License-Identifier: Apache-2.0
//! ext2, ext3 and ext4.

use super::driver::{Driver, Maker, NewUuid, check_length, unreadable};
use crate::contents;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::Result;
use std::ffi::OsStr;

/// Names of the family's types.
pub(crate) const TYPES: &[&str] = &["ext2", "ext3", "ext4", "ext4dev"];
/// Bytes that a label may have.
const MAX_LABEL: usize = 16;

/// Theirs.
pub(super) const DRIVER: Driver = Driver {
    types: TYPES,
    set_label: Some(set_label),
    set_uuid: Some(set_uuid),
    minimum_size: Some(minimum_size),
    twin: None,
    maker: Maker {
        program: Some("mke2fs"),
        always: &["-F"],
        label: Some("-L"),
        check_label,
        inode: Some("-I"),
        ..Maker::USUAL
    },
};

/// An error for a label that is too long.
pub(crate) fn check_label(label: &OsStr) -> Result<()> {
    check_length(label, MAX_LABEL, "ext2/3/4")
}

/// Sets the label.
pub(crate) fn set_label(device: &Device, label: &OsStr) -> Result<()> {
    check_label(label)?;
    let tool = Tool::new("tune2fs").arg("-L").arg(label).arg(device.path());
    tool.ok().map_err(|e| e.within(device))
}

/// Sets the UUID: to one, or to what `clear`, `random` or `time` make.
pub(crate) fn set_uuid(device: &Device, uuid: NewUuid<'_>) -> Result<()> {
    let uuid = match uuid {
        NewUuid::To(uuid) => uuid,
        NewUuid::Random => OsStr::new("random"),
    };
    let tool = Tool::new("tune2fs").arg("-U").arg(uuid).arg(device.path());
    tool.ok().map_err(|e| e.within(device))
}

/// The size in bytes that a filesystem can be made smaller to.
fn minimum_size(_: &mut Session, device: &Device) -> Result<i64> {
    const SAYS: &str = "Estimated minimum size of the filesystem:";
    let output = Tool::new("resize2fs").args(["-P", "-f"]).arg(device.path()).run()?;
    let text = output.success().map_err(|e| e.within(device))?.text();
    let blocks = text.lines().find_map(|l| l.strip_prefix(SAYS)?.trim().parse::<i64>().ok());
    let size = contents::of_device(device)?.and_then(|c| {
        let (_, value) = c.tags().iter().find(|(name, _)| name == "BLOCK_SIZE")?;
        value.to_str()?.parse::<i64>().ok()
    });
    blocks
        .zip(size)
        .and_then(|(blocks, size)| blocks.checked_mul(size))
        .ok_or_else(|| unreadable("resize2fs -P", device))
}
