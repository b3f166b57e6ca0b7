// SPDX-License-Identifier: Apache-2.0
//! What is on a device: the type, label and UUID of the filesystem, or of what else fills it. The one place
//! that answers this for all procedures.
//!
//! Superblocks that are recognized ([`probe`]) are the answer; the program `blkid` is asked where they are not certain.

use crate::devices::Device;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use probe::blkid;
use probe::contents::Contents;
use probe::superblock::{self, Found};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

/// What is on a device; none if it is nothing known, or if it is not clear which of two things it is.
pub(crate) fn of_device(device: &Device) -> Result<Option<Contents>> {
    // Not exclusively, and it may be a drive that is read-only.
    of_path(device.path(), device.name())
}

/// What is on the device of this path; `name` is what errors say.
pub(crate) fn of_path(path: &Path, name: &OsStr) -> Result<Option<Contents>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from).on(name)?;
    match superblock::read(&file).on(name)? {
        Found::Known(contents) => Ok(Some(contents)),
        Found::Blank => Ok(None),
        Found::Unsure => ask(path, name),
    }
}

fn ask(path: &Path, name: &OsStr) -> Result<Option<Contents>> {
    let output = Tool::new("blkid").args(blkid::ARGUMENTS).arg(path).run()?;
    match output.code {
        0 => Ok(blkid::parse(&output.stdout)),
        code if blkid::NOTHING.contains(&code) => Ok(None),
        _ => Err(Error::new(Errno::EIO, output.failure().message()).within(name)),
    }
}
