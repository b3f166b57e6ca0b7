// SPDX-License-Identifier: Apache-2.0
//! The text in which LVM keeps what a group is made of.

use crate::lvm;
use crate::scratch::Scratch;
use crate::session::Session;
use guest_error::{Context, Result};
use std::ffi::OsStr;

/// A group's metadata.
pub(crate) fn vgmeta(s: &mut Session, vgname: &OsStr) -> Result<Vec<u8>> {
    lvm::check_group("vgname", vgname)?;
    // It is written to a file only, and another one beside it.
    let mut scratch = Scratch::new()?;
    let file = scratch.directory("group")?.join("metadata");
    let tool = lvm::command(s, "vgcfgbackup")?.arg("--file").arg(&file).arg("--").arg(vgname);
    tool.ok().map_err(|e| e.within(vgname))?;
    std::fs::read(&file).on(vgname)
}
