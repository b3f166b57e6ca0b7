// SPDX-License-Identifier: Apache-2.0
//! Logical volumes: made, renamed, resized, removed.

use super::{change, percent_free};
use crate::devices::Device;
use crate::lvm;
use crate::procedures::numbers::not_negative;
use crate::session::Session;
use guest_error::Result;
use std::ffi::OsStr;

/// Makes a volume of so many MiB.
pub(crate) fn lvcreate(
    s: &mut Session,
    logvol: &OsStr,
    volgroup: &OsStr,
    mbytes: i32,
) -> Result<()> {
    let size = format!("{}m", not_negative::<u32, _>("mbytes", mbytes)?);
    create(s, logvol, volgroup, ["--size", &size])
}

/// Makes a volume of so much of what is free in its group.
pub(crate) fn lvcreate_free(
    s: &mut Session,
    logvol: &OsStr,
    volgroup: &OsStr,
    percent: i32,
) -> Result<()> {
    create(s, logvol, volgroup, ["--extents", &percent_free(percent)?])
}

fn create(s: &mut Session, logvol: &OsStr, volgroup: &OsStr, size: [&str; 2]) -> Result<()> {
    lvm::check_group("volgroup", volgroup)?;
    // What was there before in that place is not asked about: there is nobody to answer.
    let tool = lvm::command(s, "lvcreate")?.arg("--yes").args(size).arg("--name").arg(logvol);
    change(s, tool.arg("--").arg(volgroup), logvol)
}

/// Renames a volume.
pub(crate) fn lvrename(s: &mut Session, logvol: &OsStr, newlogvol: &OsStr) -> Result<()> {
    let tool = lvm::command(s, "lvrename")?.arg("--").arg(logvol).arg(newlogvol);
    change(s, tool, logvol)
}

/// Removes a volume.
pub(crate) fn lvremove(s: &mut Session, device: Device) -> Result<()> {
    let tool = lvm::command(s, "lvremove")?.args(["--force", "--"]);
    change(s, tool.arg(lvm::volume_argument(&device)), &device)
}

/// Makes a volume this many MiB large; what is cut off is lost.
pub(crate) fn lvresize(s: &mut Session, device: Device, mbytes: i32) -> Result<()> {
    let size = format!("{}m", not_negative::<u32, _>("mbytes", mbytes)?);
    resize(s, &device, ["--size", &size])
}

/// Makes a volume larger by so much of what is free in its group.
pub(crate) fn lvresize_free(s: &mut Session, lv: Device, percent: i32) -> Result<()> {
    resize(s, &lv, ["--extents", &format!("+{}", percent_free(percent)?)])
}

fn resize(s: &mut Session, volume: &Device, size: [&str; 2]) -> Result<()> {
    let tool = lvm::command(s, "lvresize")?.arg("--force").args(size).arg("--");
    let output = tool.arg(lvm::volume_argument(volume)).run()?;
    s.udev().changed();
    // To `lvm` it is an error that a volume is as large as it is to be.
    if output.stderr.contains("matches existing size") {
        return Ok(());
    }
    output.success().map_err(|e| e.within(volume)).map(drop)
}
