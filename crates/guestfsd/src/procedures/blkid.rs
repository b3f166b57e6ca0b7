// SPDX-License-Identifier: Apache-2.0
//! All that is known of what is on a device, as blkid(8) tells it.
//!
//! Where it is a filesystem that is recognized here, and the partition is one of an MBR or a GPT, all of that
//! is told from the superblock, the partition table and sysfs; else the program is asked.

use crate::block;
use crate::contents;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Result};
use probe::partition_table::Entry;
use probe::{partition, superblock};
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Bytes of the sectors that partitions are counted in.
const SECTOR: u64 = 512;

/// Names and values.
type Tags = Vec<(String, OsString)>;

/// All that is known of what is on a device: of the filesystem, the device and the partition.
pub(crate) fn blkid(_: &mut Session, device: Device) -> Result<Tags> {
    if let Some(tags) = known(&device)? {
        return Ok(tags);
    }
    let tool = Tool::new("blkid").args(["-c", "/dev/null", "-p", "-i", "-o", "export", "--"]);
    let output = tool.arg(device.path()).run()?;
    // 2: nothing was found; 8: more than one thing was. Facts about the device itself are reported anyway.
    if !matches!(output.code, 0 | 2 | 8) {
        return Err(output.failure().within(&device));
    }
    let mut tags = vec![("DEVNAME".to_owned(), device.name().to_owned())];
    for line in output.stdout.split(|&b| b == b'\n') {
        let Some(equals) = line.iter().position(|&b| b == b'=') else { continue };
        let name = String::from_utf8_lossy(&line[..equals]).into_owned();
        if name != "DEVNAME" {
            tags.push((name, OsString::from_vec(unescape(&line[equals + 1..]))));
        }
    }
    // What characters `blkid` has replaced by others, the superblock says.
    if let Some(contents) = contents::of_device(&device)? {
        for (name, value) in &mut tags {
            if let Some((_, exact)) = contents.tags().iter().find(|(n, _)| n == name) {
                value.clone_from(exact);
            }
        }
    }
    Ok(tags)
}

/// What is told without the program; none if it is not all that the program would tell.
fn known(device: &Device) -> Result<Option<Tags>> {
    let file = device.open(OFlags::RDONLY)?;
    let Some(contents) = superblock::alone(&file).on(device)? else { return Ok(None) };
    let mut tags = vec![("DEVNAME".to_owned(), device.name().to_owned())];
    tags.extend_from_slice(contents.tags());
    let sysfs = device.sysfs()?;
    let limits = block::limits(&file).on(device)?;
    let numbers = [
        ("ALIGNMENT_OFFSET", limits.alignment_offset),
        ("MINIMUM_IO_SIZE", limits.minimum_io),
        ("OPTIMAL_IO_SIZE", limits.optimal_io),
        ("PHYSICAL_SECTOR_SIZE", limits.physical_sector),
        ("LOGICAL_SECTOR_SIZE", limits.logical_sector),
    ];
    if limits.alignment_offset < 0 {
        return Ok(None);
    }
    let told = numbers.iter().filter(|(_, number)| *number != 0);
    tags.extend(told.map(|(name, number)| ((*name).to_owned(), number.to_string().into())));
    let partition = partition::of_device(device.path());
    // Of a partition, its disk knows it.
    let queue = if partition.is_some() { "../queue/dax" } else { "queue/dax" };
    match number(&sysfs.join(queue)) {
        Some(0) => {}
        Some(dax) => tags.push(("DAX".to_owned(), dax.to_string().into())),
        None => return Ok(None),
    }
    if let Some((disk, number)) = partition {
        let sectors = block::size(&file).on(device)? / SECTOR;
        let Some(entry) = entry(&disk, number, &sysfs, sectors)? else { return Ok(None) };
        tags.extend(entry);
    }
    Ok(Some(tags))
}

/// What the partition table of a disk says of a partition with so many sectors.
fn entry(disk: &Path, number: u32, sysfs: &Path, sectors: u64) -> Result<Option<Tags>> {
    let Some(entry) = partition::entry(disk, number).on(disk)? else { return Ok(None) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let (scheme, kind, flags) = match &entry {
        // Without a signature its partitions have no UUIDs.
        Entry::Mbr { disk: 0, .. } => return Ok(None),
        Entry::Mbr { partition: p, .. } => {
            ("dos", format!("{:#x}", p.id), if p.active { 0x80 } else { 0 })
        }
        Entry::Gpt(p) => ("gpt", p.type_guid.to_string().to_ascii_lowercase(), p.attributes),
    };
    // How `blkid` writes other characters is not imitated.
    if !entry.name().chars().all(plain) {
        return Ok(None);
    }
    let Some(start) = self::number(&sysfs.join("start")) else { return Ok(None) };
    let number_of_disk = rustix::fs::stat(disk).on(disk)?.st_rdev;
    let (major, minor) = (rustix::fs::major(number_of_disk), rustix::fs::minor(number_of_disk));
    let tags = [
        ("SCHEME", scheme.to_owned()),
        ("NAME", entry.name().to_owned()),
        ("UUID", entry.uuid()),
        ("TYPE", kind),
        ("FLAGS", if flags == 0 { String::new() } else { format!("{flags:#x}") }),
        ("NUMBER", number.to_string()),
        ("OFFSET", start.to_string()),
        ("SIZE", sectors.to_string()),
        ("DISK", format!("{major}:{minor}")),
    ];
    let told = tags.into_iter().filter(|(_, value)| !value.is_empty());
    Ok(Some(told.map(|(name, value)| (format!("PART_ENTRY_{name}"), value.into())).collect()))
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `a\ b` is `a b`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut escaped = false;
    for &b in text {
        escaped = b == b'\\' && !escaped;
        if !escaped {
            out.push(b);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_characters_are_themselves() {
        assert_eq!(unescape(b"a\\ b\\\\c"), b"a b\\c");
        assert_eq!(unescape(b"a\\"), b"a");
    }
}
