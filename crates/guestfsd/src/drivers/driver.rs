// SPDX-License-Identifier: Apache-2.0
//! What a driver has to say, and what all of them check.

use crate::devices::Device;
use crate::session::Session;
use guest_error::{Errno, Error, Result};
use probe::partition_table::guid::Guid;
use std::ffi::OsStr;

/// What can be done to filesystems of some types. What is none cannot be done, or is not known here.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Types as `blkid` names them, and others by which they are made.
    pub types: &'static [&'static str],
    /// Sets the label.
    pub set_label: Option<fn(&Device, &OsStr) -> Result<()>>,
    /// Sets the UUID.
    pub set_uuid: Option<fn(&Device, NewUuid<'_>) -> Result<()>>,
    /// The size in bytes that it can be made smaller to.
    pub minimum_size: Option<fn(&mut Session, &Device) -> Result<i64>>,
    /// How the kernel takes a second one of the same UUID; none: as any other.
    pub twin: Option<Twin>,
    /// How it is made.
    pub maker: Maker,
}

/// How the kernel takes a second filesystem of a UUID while the first one is mounted, here or in any other namespace:
/// clones of one image have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    /// Only with this option. It is not given without need: a filesystem that has it does not prevent mounting
    /// others, which would hide that one disk is attached twice.
    MountedWith(&'static str),
    /// Never (before Linux 6.7).
    Refused,
}

/// What a UUID is set to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewUuid<'a> {
    /// This one.
    To(&'a OsStr),
    /// Any that nothing else has.
    Random,
}

/// What a type calls the size of its blocks.
#[derive(Debug)]
pub(crate) enum Block {
    /// An option, and the size in bytes.
    Bytes(&'static str),
    /// `-b size=`, and the size in bytes.
    Named,
    /// `-s`, and the number of sectors that a cluster has.
    Sectors,
    /// Nothing: why, and what to do.
    No(&'static str),
}

/// How filesystems of some types are made.
#[derive(Debug)]
pub(crate) struct Maker {
    /// The program that makes all of these types and is told which; none for `mkfs.TYPE`.
    pub program: Option<&'static str>,
    /// Always given: do it, whatever is there, without asking.
    pub always: &'static [&'static str],
    /// The option for the label.
    pub label: Option<&'static str>,
    /// Refuses labels that the program would cut.
    pub check_label: fn(&OsStr) -> Result<()>,
    /// The size of blocks.
    pub block: Block,
    /// The option for the size of inodes.
    pub inode: Option<&'static str>,
    /// The option for the size of sectors.
    pub sector: Option<&'static str>,
    /// Whether the option for features is to be had.
    pub features: bool,
    /// Whether the program may write a partition table of its own, and is to be told not to.
    pub fake_mbr: bool,
}

impl Maker {
    /// What is so for most, and for types that have no driver.
    pub(crate) const USUAL: Self = Self {
        program: None,
        always: &[],
        label: None,
        check_label: |_| Ok(()),
        block: Block::Bytes("-b"),
        inode: None,
        sector: None,
        features: true,
        fake_mbr: false,
    };
}

impl Driver {
    /// One whose filesystems are made in this way, and for which nothing else is known.
    pub(super) const fn made(types: &'static [&'static str], maker: Maker) -> Self {
        Self { types, set_label: None, set_uuid: None, minimum_size: None, twin: None, maker }
    }
}

/// An error for a label that is too long.
pub(super) fn check_length(label: &OsStr, most: usize, fstype: &str) -> Result<()> {
    if label.len() <= most {
        return Ok(());
    }
    Err(Error::argument("label", label, &format!("{fstype} labels are limited to {most} bytes")))
}

/// An error for what is no UUID: some programs take anything.
pub(super) fn check_uuid(uuid: &OsStr) -> Result<&OsStr> {
    match uuid.to_str().and_then(Guid::parse) {
        Some(_) => Ok(uuid),
        None => Err(Error::argument("uuid", uuid, "not a UUID")),
    }
}

/// The output of a program is not as expected.
pub(super) fn unreadable(program: &str, device: impl AsRef<OsStr>) -> Error {
    let why = format!("the output of {program} is not understood");
    Error::new(Errno::EIO, why).within(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_uuid_is_refused() {
        assert!(check_uuid(OsStr::new("a3a61220-882b-4f61-89f4-cf24dcc7297d")).is_ok());
        for bad in [
            "",
            "xx",
            "a3a61220-882b-4f61-89f4-cf24dcc7297",
            "a3a61220x882b-4f61-89f4-cf24dcc7297d",
        ] {
            assert!(check_uuid(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
