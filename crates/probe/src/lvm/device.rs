// SPDX-License-Identifier: Apache-2.0
//! A device that is a physical volume.

use super::Doubt;
use super::area::{self, Text};
use super::label::{self, HEAD, Header};
use crate::medium::Medium;
use crate::superblock;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::num::NonZeroU64;

/// Bytes below which LVM does not look at a device, if its configuration says nothing else.
const MIN_SIZE: u64 = 2 << 20;
/// Bytes from the beginning on in which labels and metadata are.
const METADATA: Option<NonZeroU64> = NonZeroU64::new(2 << 20);
/// Metadata areas of a physical volume: it has at most two.
const MAX_AREAS: usize = 2;

/// A physical volume: what it says of itself, and the texts in its metadata areas.
#[derive(Debug)]
pub struct Physical {
    pub(super) header: Header,
    pub(super) texts: Vec<Text>,
    /// Bytes of the device.
    pub(super) size: u64,
}

/// Reads a device that is open; none if it is no physical volume.
pub fn read(file: &File) -> Result<Option<Physical>, Doubt> {
    // LVM reads past the page cache. What was written to this device's disk or through another name is not in it.
    fadvise(file, 0, METADATA, Advice::DontNeed).ok();
    let mut head = Vec::with_capacity(HEAD);
    let unreadable = Doubt("a device cannot be read");
    rustix::io::pread(file, rustix::buffer::spare_capacity(&mut head), 0)
        .map_err(|_| unreadable)?;
    if label::find(&head).is_none() {
        return Ok(None);
    }
    Medium::of_file(file).map_err(|_| unreadable).and_then(|medium| of_medium(&medium))
}

/// What these bytes are, which are all of a device.
pub fn of_bytes(bytes: &[u8]) -> Result<Option<Physical>, Doubt> {
    of_medium(&Medium::of_bytes(bytes))
}

fn of_medium(medium: &Medium<'_>) -> Result<Option<Physical>, Doubt> {
    let head = medium.at(0, HEAD).ok_or(Doubt("a device is very small"))?;
    let Some(label) = label::find(&head) else { return Ok(None) };
    let header = label?.header()?;
    if medium.size() < MIN_SIZE {
        return Err(Doubt("a physical volume is smaller than LVM looks at"));
    }
    // A member of a RAID has the array's contents, and so has one of several paths; what has a partition table is no
    // physical volume to LVM.
    if !superblock::is_only(medium, "LVM2_member") {
        return Err(Doubt("a physical volume may be something else as well"));
    }
    if header.areas.len() > MAX_AREAS {
        return Err(Doubt("a physical volume has more metadata areas than there can be"));
    }
    let mut texts = Vec::new();
    for area in &header.areas {
        texts.extend(area::read(medium, *area)?);
    }
    Ok(Some(Physical { header, texts, size: medium.size() }))
}
