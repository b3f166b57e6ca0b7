// SPDX-License-Identifier: Apache-2.0
//! What is on a device: the type, label and UUID of the filesystem, or of what else fills it. The one place
//! that answers this for all procedures.
//!
//! A device's first and last blocks come in, [`Contents`] go out. What is common is recognized here, from the
//! superblocks themselves, in microseconds. Where two signatures are found, or none on a device that is not
//! blank, or one whose meaning is not certain, the program `blkid` is asked: both answer the same, with
//! the same names.

mod checksum;
mod linux;
mod medium;
mod members;
mod microsoft;
pub(crate) mod partition;
mod program;
mod signatures;

use crate::devices::Device;
use crate::error::{Context, Result};
use medium::Medium;
use rustix::fs::{Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use uuid::Uuid;

/// What was found on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    tags: Vec<(String, OsString)>,
}

impl Contents {
    fn new(tags: Vec<(String, OsString)>) -> Self {
        Self { tags }
    }

    /// The type, as `blkid` names it: `ext4`, `swap`, `LVM2_member`, ...
    pub(crate) fn fstype(&self) -> &str {
        self.get("TYPE").and_then(OsStr::to_str).unwrap_or_default()
    }

    /// `filesystem`, `raid`, `crypto` or `other`.
    pub(crate) fn usage(&self) -> &str {
        self.get("USAGE").and_then(OsStr::to_str).unwrap_or_default()
    }

    /// The label, if it has one.
    pub(crate) fn label(&self) -> Option<&OsStr> {
        self.get("LABEL")
    }

    /// The UUID or serial number, if it has one.
    pub(crate) fn uuid(&self) -> Option<&OsStr> {
        self.get("UUID")
    }

    /// All that is known, by the names that `blkid` gives it, in its order.
    pub(crate) fn tags(&self) -> &[(String, OsString)] {
        &self.tags
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.tags.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str())
    }

    fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.tags.push((name.to_owned(), OsString::from_vec(value.into())));
        self
    }

    /// A tag that is left out when it is empty.
    fn with_text(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        let value = value.into();
        if value.is_empty() { self } else { self.with(name, value) }
    }

    fn ending(self, fstype: &str, usage: &str) -> Self {
        self.with("TYPE", fstype).with("USAGE", usage)
    }
}

/// What the quick look at superblocks found out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Quick {
    /// This, and nothing else.
    Known(Contents),
    /// Nothing: where superblocks could be, the device is blank.
    Blank,
    /// Something that it is not sure about.
    Unsure,
}

/// What is on a device; none if it is nothing known, or if it is not clear which of two things it is.
pub(crate) fn device(device: &Device) -> Result<Option<Contents>> {
    // Not exclusively, and it may be a drive that is read-only.
    contents(device.path(), device.name())
}

/// What is on a device, open, where that is recognized here, and no partition table could be there as well:
/// all that there is to know.
pub(crate) fn alone(file: &File) -> std::io::Result<Option<Contents>> {
    let medium = Medium::of_file(file)?;
    let Quick::Known(contents) = quick(&medium) else { return Ok(None) };
    // FAT's own boot sector ends as an MBR does.
    let fat = contents.fstype() == "vfat";
    Ok(Some(contents).filter(|_| fat || !signatures::partition_table(&medium)))
}

/// What is on the device of this path; `name` is what errors say.
pub(crate) fn contents(path: &Path, name: &OsStr) -> Result<Option<Contents>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from).on(name)?;
    match quick(&Medium::of_file(&file).on(name)?) {
        Quick::Known(contents) => Ok(Some(contents)),
        Quick::Blank => Ok(None),
        Quick::Unsure => program::contents(path, name),
    }
}

/// A recognizer: none where its signature is not, unsure where it is there but not all is as expected.
type Recognizer = fn(&Medium<'_>) -> Option<Quick>;

const RECOGNIZERS: &[Recognizer] = &[
    members::linux_raid,
    members::lvm2,
    members::luks,
    microsoft::ntfs,
    microsoft::fat,
    linux::swap,
    linux::xfs,
    linux::ext,
    linux::squashfs,
    linux::btrfs,
    linux::f2fs,
];

fn quick(medium: &Medium<'_>) -> Quick {
    if signatures::others(medium) {
        return Quick::Unsure;
    }
    let mut found = None;
    for recognize in RECOGNIZERS {
        if let Some(this) = recognize(medium) {
            if found.is_some() || this == Quick::Unsure {
                return Quick::Unsure;
            }
            found = Some(this);
        }
    }
    match found {
        Some(found) => found,
        None if medium.is_blank() => Quick::Blank,
        None => Quick::Unsure,
    }
}

/// Text up to its first NUL.
fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes[..end].trim_ascii_end()
}

/// A UUID as text; empty if it is all zeros.
fn uuid(bytes: &[u8]) -> String {
    let uuid = Uuid::from_slice(bytes).unwrap_or_default();
    if uuid.is_nil() { String::new() } else { uuid.to_string() }
}

/// UTF-16, little endian, up to its first NUL, as UTF-8.
fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let units = units.take_while(|&u| u != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Whether it is certain what these bytes are: for `fuzz/`.
pub(crate) fn recognize(bytes: &[u8]) -> bool {
    !matches!(quick(&Medium::of_bytes(bytes)), Quick::Unsure)
}

#[cfg(test)]
mod tests;
