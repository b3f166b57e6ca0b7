// SPDX-License-Identifier: Apache-2.0
//! NTFS: checking, resizing and cloning it.

use super::change::change;
use super::numbers::not_negative;
use super::send::send;
use crate::devices::Device;
use crate::mountable::Mountable;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::{FileIn, FileOut};
use guest_error::{Error, Result};
use guestfs_api::options;
use std::ffi::OsStr;
use std::io;

/// Whether a filesystem can be mounted: 0, or the exit status of `ntfs-3g.probe`.
pub(crate) fn ntfs_3g_probe(_: &mut Session, rw: bool, device: Device) -> Result<i32> {
    let mode = if rw { "-w" } else { "-r" };
    let output = Tool::new("ntfs-3g.probe").arg(mode).arg(device.path()).run()?;
    match output.code {
        -1 => Err(output.failure().within(&device)),
        status => Ok(status),
    }
}

/// Makes a filesystem as large as it is told, or as its device.
pub(crate) fn ntfsresize(
    s: &mut Session,
    device: Device,
    options: &options::Ntfsresize,
) -> Result<()> {
    // -P: no bar that moves.
    let mut tool = Tool::new("ntfsresize").arg("-P").explains_on_stdout();
    if let Some(size) = options.size {
        if size <= 0 {
            return Err(Error::argument("size", size.to_string(), "must be larger than zero"));
        }
        tool = tool.arg("--size").arg(size.to_string());
    }
    if options.force == Some(true) {
        tool = tool.arg("--force");
    }
    change(s, &device, tool.arg(device.path()))
}

/// Makes a filesystem as large as this many bytes.
pub(crate) fn ntfsresize_size(s: &mut Session, device: Device, size: i64) -> Result<()> {
    let options = options::Ntfsresize { size: Some(size), ..options::Ntfsresize::default() };
    ntfsresize(s, device, &options)
}

/// Repairs common faults, and has Windows check the rest.
pub(crate) fn ntfsfix(s: &mut Session, device: Device, options: &options::Ntfsfix) -> Result<()> {
    let bad = (options.clearbadsectors == Some(true)).then_some("-b");
    change(s, &device, Tool::new("ntfsfix").args(bad).arg(device.path()).explains_on_stdout())
}

/// Sends what is in use of a filesystem, in the format of `ntfsclone`.
pub(crate) fn ntfsclone_out(
    _: &mut Session,
    device: Device,
    backupfile: &mut FileOut<'_>,
    options: &options::NtfscloneOut,
) -> Result<()> {
    let switches = [
        ("--metadata", options.metadataonly),
        ("--rescue", options.rescue),
        ("--ignore-fs-check", options.ignorefscheck),
        ("--preserve-timestamps", options.preservetimestamps),
        ("--force", options.force),
    ];
    let given = switches.iter().filter(|(_, v)| *v == Some(true)).map(|(name, _)| name);
    let tool = Tool::new("ntfsclone").args(["-o", "-", "--save-image"]).args(given);
    send(tool.arg(device.path()), &mut io::empty(), &device, backupfile)
}

/// Writes what `ntfsclone_out` sent onto a device.
pub(crate) fn ntfsclone_in(
    s: &mut Session,
    backupfile: &mut FileIn<'_>,
    device: Device,
) -> Result<()> {
    let tool = Tool::new("ntfsclone").arg("-O").arg(device.path()).args(["--restore-image", "-"]);
    let output = tool.run_with(backupfile, None);
    s.udev().changed();
    output?.success().map_err(|e| e.within(&device)).map(drop)
}

/// Sends a file that is known by the number of its inode.
pub(crate) fn ntfscat_i(
    _: &mut Session,
    device: Mountable,
    inode: i64,
    filename: &mut FileOut<'_>,
) -> Result<()> {
    let inode: u64 = not_negative("inode", inode)?;
    let tool = Tool::new("ntfscat").arg("-i").arg(inode.to_string());
    send(tool.arg(device.device.path()), &mut io::empty(), &device.device, filename)
}

/// Changes permissions of a file, or of all in a directory, on a filesystem that is not mounted.
pub(crate) fn ntfs_chmod(
    _: &mut Session,
    device: Device,
    mode: i32,
    path: &OsStr,
    options: &options::NtfsChmod,
) -> Result<()> {
    if !(0..=0o7777).contains(&mode) {
        let shown = format!("{mode:o}");
        return Err(Error::argument("mode", shown, "must be from 0 to 7777 (octal)"));
    }
    let all = (options.recursive == Some(true)).then_some("-r");
    let tool = Tool::new("ntfssecaudit").args(all).arg(device.path()).arg(format!("{mode:04o}"));
    tool.arg(path).ok().map_err(|e| e.within(&device))
}
