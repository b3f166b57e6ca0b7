// SPDX-License-Identifier: Apache-2.0
//! What is a part of something larger, or a container: LUKS, physical volumes of LVM, members of Linux RAIDs.

use super::found::Found;
use crate::contents::Contents;
use crate::device_mapper::dashed;
use crate::fields::{be16, le32, le64, text, uuid};
use crate::lvm::label;
use crate::medium::Medium;

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

pub(super) fn lvm2(m: &Medium<'_>) -> Option<Found> {
    let head = m.at(0, label::HEAD).or_else(|| m.at(0, usize::try_from(m.size()).ok()?))?;
    let Ok(label) = label::find(&head)? else { return Some(Found::Unsure) };
    let id = dashed(&label.id().map(char::from).iter().collect::<String>());
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
