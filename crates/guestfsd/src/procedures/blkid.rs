//! All that is known of what is on a device, as blkid(8) tells it.
//!
//! Where it is a filesystem that is recognized here, and the partition is one of an MBR or a GPT, all of that
//! is told from the superblock, the partition table and sysfs; else the program is asked.

use crate::devices::Device;
use crate::error::{Context, Result};
use crate::probe::{self, partition};
use crate::session::Session;
use crate::tool::Tool;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Names and values.
type Tags = Vec<(String, OsString)>;

/// All that is known of what is on a device: of the filesystem, the device and the partition.
pub(crate) fn blkid(_: &mut Session, device: Device) -> Result<Tags> {
    if let Some(tags) = known(&device)? {
        return Ok(tags);
    }
    let tool = Tool::new("blkid").args(["-c", "/dev/null", "-p", "-i", "-o", "export", "--"]);
    let output = tool.arg(device.path()).run()?;
    // 2: nothing was found; 8: more than one thing was. Facts of the device itself are told all the same.
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
    if let Some(contents) = probe::device(&device)? {
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
    let Some(contents) = probe::alone(device)? else { return Ok(None) };
    let mut tags = vec![("DEVNAME".to_owned(), device.name().to_owned())];
    tags.extend_from_slice(contents.tags());
    let sysfs = device.sysfs()?;
    let Some(limits) = limits(&sysfs) else { return Ok(None) };
    tags.extend(limits);
    if sysfs.join("partition").exists() {
        let Some(entry) = entry(device, &sysfs)? else { return Ok(None) };
        tags.extend(entry);
    }
    Ok(Some(tags))
}

/// Sizes of sectors and of input and output, without those that are 0.
fn limits(sysfs: &Path) -> Option<Tags> {
    const FILES: &[(&str, &str)] = &[
        ("ALIGNMENT_OFFSET", "alignment_offset"),
        ("MINIMUM_IO_SIZE", "minimum_io_size"),
        ("OPTIMAL_IO_SIZE", "optimal_io_size"),
        ("PHYSICAL_SECTOR_SIZE", "physical_block_size"),
        ("LOGICAL_SECTOR_SIZE", "logical_block_size"),
        ("DAX", "dax"),
    ];
    // Of a partition, its disk knows them.
    let own = sysfs.join("queue");
    let queue = if own.exists() { own } else { sysfs.join("../queue") };
    let mut tags = Vec::new();
    for (name, file) in FILES {
        let dir = if *file == "alignment_offset" { sysfs } else { &queue };
        let value = number(&dir.join(file))?;
        if value != 0 {
            tags.push(((*name).to_owned(), value.to_string().into()));
        }
    }
    Some(tags)
}

/// What a partition table says of the device.
fn entry(device: &Device, sysfs: &Path) -> Result<Option<Tags>> {
    let Some((disk, number)) = partition::of_device(device.path()) else { return Ok(None) };
    let Some(entry) = partition::entry(&disk, number)? else { return Ok(None) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let (scheme, kind, flags) = match &entry {
        // Without a signature its partitions have no UUIDs.
        partition::Entry::Mbr { disk: 0, .. } => return Ok(None),
        partition::Entry::Mbr { kind, flags, .. } => ("dos", format!("{kind:#x}"), *flags),
        partition::Entry::Gpt { kind, flags, .. } => ("gpt", kind.clone(), *flags),
    };
    // What `blkid` makes of other characters is its own affair.
    if !entry.name().chars().all(plain) {
        return Ok(None);
    }
    let start = self::number(&sysfs.join("start"));
    let (Some(start), Some(size)) = (start, self::number(&sysfs.join("size"))) else {
        return Ok(None);
    };
    let number_of_disk = rustix::fs::stat(&disk).on(device)?.st_rdev;
    let (major, minor) = (rustix::fs::major(number_of_disk), rustix::fs::minor(number_of_disk));
    let tags = [
        ("SCHEME", scheme.to_owned()),
        ("NAME", entry.name().to_owned()),
        ("UUID", entry.uuid(number)),
        ("TYPE", kind),
        ("FLAGS", if flags == 0 { String::new() } else { format!("{flags:#x}") }),
        ("NUMBER", number.to_string()),
        ("OFFSET", start.to_string()),
        ("SIZE", size.to_string()),
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
