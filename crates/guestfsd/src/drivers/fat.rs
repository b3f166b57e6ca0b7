// SPDX-License-Identifier: Apache-2.0
//! FAT.

use super::driver::{Block, Driver, Maker};
use crate::devices::Device;
use crate::tool::Tool;
use guest_error::Result;
use std::ffi::OsStr;

/// Its driver.
pub(super) const DRIVER: Driver = Driver {
    set_label: Some(set_label),
    ..Driver::made(
        &["vfat", "msdos", "fat"],
        Maker {
            always: &["-I"],
            label: Some("-n"),
            block: Block::Sectors,
            fake_mbr: true,
            ..Maker::USUAL
        },
    )
};

fn set_label(device: &Device, label: &OsStr) -> Result<()> {
    let tool = Tool::new("fatlabel");
    let tool = match label.is_empty() {
        true => tool.arg("--reset").arg(device.path()),
        false => tool.arg("--").arg(device.path()).arg(label),
    };
    tool.ok().map_err(|e| e.within(device))
}
