// SPDX-License-Identifier: Apache-2.0
//! Filesystems of Microsoft: FAT and NTFS.

use super::found::Found;
use crate::contents::Contents;
use crate::fields::{be16, le16, le32, le64, utf16};
use crate::medium::Medium;

/// Directory entries that are looked at for the label: the largest root directory there can be.
const MAX_ENTRIES: usize = 65536;

/// The text that says in a boot sector that it is that of a FAT, and whether it is at its FAT32 place.
pub(super) fn fat_text(sector: &[u8; 512]) -> Option<bool> {
    const OLD: &[&[u8]] = &[b"FAT12   ", b"FAT16   ", b"MSDOS"];
    const NEW: &[&[u8]] = &[b"FAT32   ", b"MSWIN"];
    let has = |at: usize, texts: &[&[u8]]| texts.iter().any(|t| sector[at..].starts_with(t));
    if has(0x52, NEW) {
        return Some(true);
    }
    has(0x36, OLD).then_some(false)
}

/// Where things are on a FAT filesystem, in bytes.
struct Fat {
    table: u64,
    root: u64,
    root_entries: usize,
    data: u64,
    cluster: u64,
}

pub(super) fn fat(m: &Medium<'_>) -> Option<Found> {
    let boot = m.array::<512>(0)?;
    let is_32 = fat_text(&boot)?;
    let sector = u64::from(le16(&boot, 11));
    let (per_cluster, reserved, tables) = (boot[13], le16(&boot, 14), boot[16]);
    let entries = usize::from(le16(&boot, 17));
    let short = |at| u64::from(le16(&boot, at));
    let total = if short(19) != 0 { short(19) } else { u64::from(le32(&boot, 32)) };
    let table_sectors = if short(22) != 0 { short(22) } else { u64::from(le32(&boot, 36)) };
    let media = boot[21];
    let sound = matches!(sector, 512 | 1024 | 2048 | 4096)
        && per_cluster.is_power_of_two()
        && reserved != 0
        && tables != 0
        && (media == 0xf0 || media >= 0xf8)
        && be16(&boot, 510) == 0x55aa
        && is_32 == (short(22) == 0)
        && table_sectors != 0;
    if !sound {
        return Some(Found::Unsure);
    }
    let root_sectors = (entries as u64 * 32).div_ceil(sector);
    let table = u64::from(reserved) * sector;
    let root = table + u64::from(tables) * table_sectors * sector;
    let data = root + root_sectors * sector;
    let Some(data_sectors) = total.checked_sub(data / sector) else { return Some(Found::Unsure) };
    let clusters = data_sectors / u64::from(per_cluster);
    let version = match clusters {
        _ if is_32 => "FAT32",
        0..=4084 => "FAT12",
        4085..=65524 => "FAT16",
        _ => return Some(Found::Unsure),
    };
    let cluster = u64::from(per_cluster) * sector;
    let fat = Fat { table, root, root_entries: entries, data, cluster };
    let label = match is_32 {
        false => fixed_root_label(m, &fat),
        true => chained_root_label(m, &fat, le32(&boot, 44)),
    };
    let (serial, boot_label) = if is_32 { (67, 71) } else { (39, 43) };
    let serial = le32(&boot, serial);
    let boot_label = boot[boot_label..boot_label + 11].trim_ascii_end();
    let mut tags = Contents::default();
    if !is_32 {
        tags = tags.with("SEC_TYPE", "msdos");
    }
    if boot_label != b"NO NAME" {
        tags = tags.with_text("LABEL_FATBOOT", boot_label);
    }
    tags = tags.with_text("LABEL", label.unwrap_or_default());
    if serial != 0 {
        tags = tags.with("UUID", format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    }
    let tags = tags.with("VERSION", version).with("BLOCK_SIZE", sector.to_string());
    Some(Found::Known(tags.ending("vfat", "filesystem")))
}

/// The label in a root directory: its entry that is neither a file nor a directory.
fn label_in(directory: &[u8]) -> Search {
    const LONG_NAME: u8 = 0x0f;
    const VOLUME: u8 = 0x08;
    for entry in directory.chunks_exact(32) {
        let attributes = entry[11];
        match entry[0] {
            0 => return Search::End,
            0xe5 => {}
            _ if attributes & LONG_NAME == LONG_NAME => {}
            _ if attributes & (VOLUME | 0x10) == VOLUME
                && le16(entry, 20) == 0
                && le16(entry, 26) == 0 =>
            {
                let mut label = entry[..11].trim_ascii_end().to_vec();
                // 0xe5 as a first character is written so.
                if let Some(first @ 0x05) = label.first_mut() {
                    *first = 0xe5;
                }
                return Search::Found(label);
            }
            _ => {}
        }
    }
    Search::On
}

enum Search {
    Found(Vec<u8>),
    End,
    On,
}

fn fixed_root_label(m: &Medium<'_>, fat: &Fat) -> Option<Vec<u8>> {
    match label_in(&m.at(fat.root, fat.root_entries.min(MAX_ENTRIES) * 32)?) {
        Search::Found(label) => Some(label),
        _ => None,
    }
}

fn chained_root_label(m: &Medium<'_>, fat: &Fat, first: u32) -> Option<Vec<u8>> {
    let mut cluster = first;
    let most = (MAX_ENTRIES as u64 * 32).div_ceil(fat.cluster);
    for _ in 0..most {
        let number = u64::from(cluster).checked_sub(2)?;
        let at = fat.data.checked_add(number.checked_mul(fat.cluster)?)?;
        match label_in(&m.at(at, usize::try_from(fat.cluster).ok()?)?) {
            Search::Found(label) => return Some(label),
            Search::End => return None,
            Search::On => {}
        }
        let entry: [u8; 4] = m.array(fat.table + u64::from(cluster) * 4)?;
        cluster = u32::from_le_bytes(entry) & 0x0fff_ffff;
        if cluster >= 0x0fff_fff0 {
            return None;
        }
    }
    None
}

pub(super) fn ntfs(m: &Medium<'_>) -> Option<Found> {
    let boot = m.array::<512>(0).filter(|b| &b[3..11] == b"NTFS    ")?;
    let sector = u64::from(le16(&boot, 11));
    // Above 128 it is a power of two: 2^(256 - n).
    let per_cluster = match boot[13] {
        n @ 1..=128 if n.is_power_of_two() => u64::from(n),
        n @ 244..=255 => 1 << (256 - u32::from(n)),
        _ => return Some(Found::Unsure),
    };
    if !matches!(sector, 256 | 512 | 1024 | 2048 | 4096) {
        return Some(Found::Unsure);
    }
    let Some(label) = ntfs_label(m, &boot, sector * per_cluster) else {
        return Some(Found::Unsure);
    };
    let tags = Contents::default()
        .with_text("LABEL", label)
        .with("BLOCK_SIZE", sector.to_string())
        .with("UUID", format!("{:016X}", le64(&boot, 72)));
    Some(Found::Known(tags.ending("ntfs", "filesystem")))
}

/// The name in the record of $Volume, the fourth of the MFT; none where that makes no sense.
fn ntfs_label(m: &Medium<'_>, boot: &[u8; 512], cluster: u64) -> Option<String> {
    const VOLUME_NAME: u32 = 0x60;
    const END: u32 = 0xffff_ffff;
    let record_size = match i8::from_le_bytes([boot[64]]) {
        n @ -31..=-1 => 1u64 << n.unsigned_abs(),
        n @ 1.. => u64::try_from(n).ok()?.checked_mul(cluster)?,
        _ => return None,
    };
    if !(512..=65536).contains(&record_size) {
        return None;
    }
    let mft = le64(boot, 48).checked_mul(cluster)?;
    let record = m.at(mft.checked_add(3 * record_size)?, usize::try_from(record_size).ok()?)?;
    if !record.starts_with(b"FILE") {
        return None;
    }
    let mut at = usize::from(le16(&record, 20));
    while at + 24 <= record.len() {
        let (kind, len) = (le32(&record, at), usize::try_from(le32(&record, at + 4)).ok()?);
        if kind == END || kind > VOLUME_NAME {
            return Some(String::new());
        }
        if kind == VOLUME_NAME {
            let size = usize::try_from(le32(&record, at + 16)).ok()?;
            let begin = at.checked_add(usize::from(le16(&record, at + 20)))?;
            let value = record.get(begin..begin.checked_add(size)?)?;
            // Update sequence numbers sit in the last two bytes of each sector.
            let crosses = begin / 512 != begin.saturating_add(size + 1) / 512;
            return (!crosses).then(|| utf16(value));
        }
        if len < 16 || !len.is_multiple_of(8) {
            return None;
        }
        at = at.checked_add(len)?;
    }
    None
}
