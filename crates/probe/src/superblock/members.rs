// SPDX-License-Identifier: Apache-2.0
//! What is a part of something larger, or a container: LUKS, physical volumes of LVM, members of Linux RAIDs.

use super::checksum::crc32;
use super::fields::{be16, le32, le64, text, uuid};
use super::found::Found;
use super::medium::Medium;
use crate::contents::Contents;
use std::os::fd::AsFd;

/// What LVM's label begins with, and the sectors in which it may be (`man pvcreate`).
const LVM_LABEL: &[u8] = b"LABELONE";
const LVM_SECTORS: usize = 4;
/// What the checksum of an LVM label begins with.
const LVM_SEED: u32 = 0xf597_a6cf;

pub(super) fn luks(m: &Medium<'_>) -> Option<Found> {
    let header = m.array::<512>(0).filter(|h| h.starts_with(b"LUKS\xba\xbe"))?;
    let version = be16(&header, 6);
    let tags = Contents::default().with("VERSION", version.to_string());
    let tags = tags.with_text("UUID", text(&header[168..208]));
    Some(match version {
        1 => Found::Known(tags.ending("crypto_LUKS", "crypto")),
        2 => {
            let (label, subsystem) = (text(&header[24..72]), text(&header[208..256]));
            let tags = tags.with_text("LABEL", label).with_text("SUBSYSTEM", subsystem);
            Found::Known(tags.ending("crypto_LUKS", "crypto"))
        }
        _ => Found::Unsure,
    })
}

/// Whether LVM takes a device for a physical volume: it has a label, whatever that says.
pub fn is_physical_volume(device: impl AsFd) -> bool {
    let mut sectors = [0; LVM_SECTORS * 512];
    // What cannot be read LVM cannot read either.
    rustix::io::pread(device, &mut sectors, 0)
        .is_ok_and(|n| sectors[..n].chunks(512).any(|sector| sector.starts_with(LVM_LABEL)))
}

pub(super) fn lvm2(m: &Medium<'_>) -> Option<Found> {
    let labels = (0..LVM_SECTORS as u64).filter_map(|n| Some((n, m.array::<512>(n * 512)?)));
    let (number, label) = labels.into_iter().find(|(_, s)| s.starts_with(LVM_LABEL))?;
    let begin = usize::try_from(le32(&label, 20)).unwrap_or(usize::MAX);
    let sound = number < 2
        && &label[24..32] == b"LVM2 001"
        && le64(&label, 8) == number
        && crc32(LVM_SEED, &label[20..]) == le32(&label, 16)
        && begin <= 512 - 32;
    if !sound {
        return Some(Found::Unsure);
    }
    let mut id = String::new();
    for (i, b) in label[begin..begin + 32].iter().enumerate() {
        if matches!(i, 6 | 10 | 14 | 18 | 22 | 26) {
            id.push('-');
        }
        id.push(char::from(*b));
    }
    let tags = Contents::default().with("UUID", id).with("VERSION", "LVM2 001");
    Some(Found::Known(tags.ending("LVM2_member", "raid")))
}

pub(super) fn linux_raid(m: &Medium<'_>) -> Option<Found> {
    const MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";
    let size = m.size();
    // At the end it may be that of a partition which ends where the disk does: not for us to tell.
    let end = [(size & !0xffff).saturating_sub(0x10000), (size & !0xfff).saturating_sub(0x2000)];
    if size > 0x20000 && end.iter().any(|at| m.has(*at, MAGIC) || m.has(*at, b"\xa9\x2b\x4e\xfc")) {
        return Some(Found::Unsure);
    }
    let at = [0, 0x1000].into_iter().find(|at| m.has(*at, MAGIC))?;
    let sb = m.array::<256>(at)?;
    if le32(&sb, 4) != 1 || le64(&sb, 0x90) != at / 512 {
        return Some(Found::Unsure);
    }
    let tags = Contents::default()
        .with_text("UUID", uuid(&sb[0x10..0x20]))
        .with_text("UUID_SUB", uuid(&sb[0xa8..0xb8]))
        .with_text("LABEL", text(&sb[0x20..0x40]))
        .with("VERSION", if at == 0 { "1.1" } else { "1.2" });
    Some(Found::Known(tags.ending("linux_raid_member", "raid")))
}
