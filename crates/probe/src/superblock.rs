// SPDX-License-Identifier: Apache-2.0
//! Superblocks, read in microseconds from a device's first and last blocks.
//!
//! Where two signatures are found, or none on a device that is not blank, or one whose meaning is not certain, that
//! is [`Found::Unsure`], and the program `blkid` is to be asked: both answer the same, with the same names.

pub mod btrfs;
mod found;
mod linux;
mod members;
mod microsoft;
mod signatures;

use crate::contents::Contents;
use crate::medium::Medium;
pub use found::Found;
use std::fs::File;
use std::io;

/// What is on a device that is open.
pub fn read(file: &File) -> io::Result<Found> {
    Medium::of_file(file).map(|medium| recognize(&medium))
}

/// What these bytes are, which are all of a device.
pub fn of_bytes(bytes: &[u8]) -> Found {
    recognize(&Medium::of_bytes(bytes))
}

/// What is on a device, open, where that is recognized here, and no partition table could be there as well:
/// all that there is to know.
pub fn alone(file: &File) -> io::Result<Option<Contents>> {
    Medium::of_file(file).map(|medium| alone_on(&medium))
}

/// Whether a device is of this type, and nothing else could be there as well.
pub(crate) fn is_only(medium: &Medium<'_>, fstype: &str) -> bool {
    alone_on(medium).is_some_and(|contents| contents.fstype() == fstype)
}

fn alone_on(medium: &Medium<'_>) -> Option<Contents> {
    let Found::Known(contents) = recognize(medium) else { return None };
    // FAT's own boot sector ends as an MBR does.
    let fat = contents.fstype() == "vfat";
    Some(contents).filter(|_| fat || !signatures::partition_table(medium))
}

/// A recognizer: none where its signature is not, unsure where it is there but not all is as expected.
type Recognizer = fn(&Medium<'_>) -> Option<Found>;

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

fn recognize(medium: &Medium<'_>) -> Found {
    if signatures::others(medium) {
        return Found::Unsure;
    }
    let mut found = None;
    for recognize in RECOGNIZERS {
        if let Some(this) = recognize(medium) {
            if found.is_some() || this == Found::Unsure {
                return Found::Unsure;
            }
            found = Some(this);
        }
    }
    match found {
        Some(found) => found,
        None if medium.is_blank() => Found::Blank,
        None => Found::Unsure,
    }
}

#[cfg(test)]
mod tests;
