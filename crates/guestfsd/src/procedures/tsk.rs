// SPDX-License-Identifier: Apache-2.0
//! The Sleuth Kit: files that were deleted, and what is left of them.

use super::numbers::not_negative;
use super::send::send;
use crate::mountable::Mountable;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::FileOut;
use guest_error::{Error, Result};
use guestfs_api::options;
use std::os::unix::ffi::OsStrExt;

/// Sends all files of a filesystem that is not mounted, deleted ones too.
pub(crate) fn internal_filesystem_walk(
    _: &mut Session,
    device: Mountable,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    walk(&device, "", filename)
}

/// Sends those files that have this inode.
pub(crate) fn internal_find_inode(
    _: &mut Session,
    device: Mountable,
    inode: i64,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    let inode: u64 = not_negative("inode", inode)?;
    walk(&device, &inode.to_string(), filename)
}

fn walk(device: &Mountable, inode: &str, to: &mut FileOut<'_>) -> Result<()> {
    let mut request = format!("{inode}\n").into_bytes();
    request.extend_from_slice(device.device.path().as_os_str().as_bytes());
    send(Tool::helper("tsk"), &mut &*request, &device.device, to)
}

/// Sends what is in an inode.
pub(crate) fn download_inode(
    _: &mut Session,
    device: Mountable,
    inode: i64,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    let inode: u64 = not_negative("inode", inode)?;
    let tool = Tool::new("icat").args(["-r", "-i", "raw"]).arg(device.device.path());
    send(tool.arg(inode.to_string()), &mut std::io::empty(), &device.device, filename)
}

/// Sends blocks of a filesystem: all of a range, or those that are not in use.
pub(crate) fn download_blocks(
    _: &mut Session,
    device: Mountable,
    start: i64,
    stop: i64,
    filename: &mut FileOut<'_>,
    optional: &options::DownloadBlocks,
) -> Result<()> {
    let (first, last): (u64, u64) = (not_negative("start", start)?, not_negative("stop", stop)?);
    if last <= first {
        return Err(Error::argument("stop", stop.to_string(), "must be greater than start"));
    }
    let mut tool = Tool::new("blkls").args(["-i", "raw"]);
    if !optional.unallocated.unwrap_or(false) {
        tool = tool.arg("-e");
    }
    let tool = tool.arg(device.device.path()).arg(format!("{first}-{last}"));
    send(tool, &mut std::io::empty(), &device.device, filename)
}
