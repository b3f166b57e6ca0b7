// SPDX-License-Identifier: Apache-2.0
//! Partition tables.
//!
//! Questions are answered from the table's own bytes ([`probe::partition_table`]); of kinds of tables that we
//! do not read, and of any that is not beyond doubt, by parted. Partitions are made, moved and deleted by parted;
//! fields of a GPT are changed in place.

mod guid_table;
mod parted;
mod sfdisk;
mod table;

pub(crate) use guid_table::{
    part_expand_gpt, part_get_disk_guid, part_get_gpt_attributes, part_get_gpt_guid,
    part_get_gpt_type, part_set_disk_guid, part_set_disk_guid_random, part_set_gpt_attributes,
    part_set_gpt_guid, part_set_gpt_type,
};
pub(crate) use sfdisk::{
    sfdisk, sfdisk_disk_geometry, sfdisk_kernel_geometry, sfdisk_l, sfdisk_m, sfdisk_n,
};

use crate::block;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::structs;
use parted::{Listed, Listing};
use probe::partition_table::{Table, gpt, mbr};
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use table::{check_number, listing, no_partition, not_mbr, open};

/// What clients call kinds of tables, and parted's name.
const LABELS: &[(&str, &str)] = &[
    ("aix", "aix"),
    ("amiga", "amiga"),
    ("bsd", "bsd"),
    ("dasd", "dasd"),
    ("dvh", "dvh"),
    ("efi", "gpt"),
    ("gpt", "gpt"),
    ("mac", "mac"),
    ("mbr", "msdos"),
    ("msdos", "msdos"),
    ("pc98", "pc98"),
    ("rdb", "amiga"),
    ("sun", "sun"),
];

/// Kinds of tables whose partitions are all of one type, and have no names.
const PLAIN: &[&str] = &["bsd", "sun"];

/// What clients call types of partitions, and parted's name.
const TYPES: &[(&str, &str)] = &[
    ("p", "primary"),
    ("primary", "primary"),
    ("l", "logical"),
    ("logical", "logical"),
    ("e", "extended"),
    ("extended", "extended"),
];

fn label(parttype: &OsStr) -> Result<&'static str> {
    let found = LABELS.iter().find(|(name, _)| parttype == *name);
    found.map(|(_, label)| *label).ok_or_else(|| {
        let why = "unknown partition type: common choices are \"gpt\" and \"msdos\"";
        Error::argument("parttype", parttype, why)
    })
}

fn listed(device: &Device, partnum: i32) -> Result<(String, Listed)> {
    let number = check_number(partnum)?;
    let Listing { label, partitions } = listing(device)?;
    let found = partitions.into_iter().find(|p| p.number == number);
    Ok((label, found.ok_or_else(|| no_partition(device, number))?))
}

/// The type byte and kind of an MBR partition.
fn mbr_partition(device: &Device, partnum: i32) -> Result<(u8, mbr::Kind)> {
    let number = check_number(partnum)?;
    match open(device, OFlags::RDONLY)?.table {
        Some(Table::Mbr(table)) => {
            let p = table.partition(number).ok_or_else(|| no_partition(device, number))?;
            Ok((p.id, p.kind))
        }
        Some(Table::Gpt(_)) => Err(not_mbr(device)),
        None => {
            let id = sfdisk::part_type(device, number)?;
            let kind = match (number, id) {
                (5.., _) => mbr::Kind::Logical,
                (_, 0x05 | 0x0f | 0x85) => mbr::Kind::Extended,
                _ => mbr::Kind::Primary,
            };
            Ok((id, kind))
        }
    }
}

/// Makes an empty partition table.
pub(crate) fn part_init(s: &mut Session, device: Device, parttype: &OsStr) -> Result<()> {
    let label = label(parttype)?;
    s.udev().changed();
    parted::run(&device, ["mklabel", label]).map(drop)
}

/// Makes a partition.
pub(crate) fn part_add(
    s: &mut Session,
    device: Device,
    prlogex: &OsStr,
    startsect: i64,
    endsect: i64,
) -> Result<()> {
    let found = TYPES.iter().find(|(name, _)| prlogex == *name);
    let kind = found.map(|(_, kind)| *kind).ok_or_else(|| {
        let why = "unknown partition type: this should be \"primary\", \"logical\" or \"extended\"";
        Error::argument("prlogex", prlogex, why)
    })?;
    if startsect < 0 {
        return Err(Error::argument("startsect", startsect.to_string(), "cannot be negative"));
    }
    s.udev().changed();
    let (start, end) = (format!("{startsect}s"), format!("{endsect}s"));
    let plain = kind == "primary"
        && open(&device, OFlags::RDONLY)?.table.is_none()
        && PLAIN.contains(&parted::list(&device)?.label.as_str());
    let kind = if plain { &[][..] } else { &[kind] };
    parted::run(&device, ["mkpart"].iter().chain(kind).chain(&[&*start, &*end])).map(drop)
}

/// Makes a partition table with one partition, which covers the disk except for 64 KiB at either end (with sectors
/// of 512 bytes).
pub(crate) fn part_disk(s: &mut Session, device: Device, parttype: &OsStr) -> Result<()> {
    let label = label(parttype)?;
    s.udev().changed();
    // It begins where any storage has it aligned, and leaves room for the copy of a GPT. Where partitions have
    // names but no types, what is given for the type is the name.
    let kind: &[&str] = match label {
        "gpt" => &["p1"],
        label if PLAIN.contains(&label) => &[],
        _ => &["primary"],
    };
    let command = ["mklabel", label, "mkpart"];
    parted::run(&device, command.iter().chain(kind).chain(&["128s", "-128s"])).map(drop)
}

/// Deletes a partition.
pub(crate) fn part_del(s: &mut Session, device: Device, partnum: i32) -> Result<()> {
    let number = check_number(partnum)?.to_string();
    s.udev().changed();
    parted::run(&device, ["rm", &number]).map(drop)
}

/// Moves the end of a partition.
pub(crate) fn part_resize(
    s: &mut Session,
    device: Device,
    partnum: i32,
    endsect: i64,
) -> Result<()> {
    let (_, partition) = listed(&device, partnum)?;
    let file = device.open(OFlags::RDONLY)?;
    let sector = i128::from(block::sector_size(&file).on(&device)?);
    let size = i128::from(block::size(&file).on(&device)?);
    drop(file);
    let from = if endsect < 0 { size } else { 0 };
    let end = from + (i128::from(endsect) + 1) * sector - 1;
    s.udev().changed();
    let text = format!("{endsect}s");
    if end < i128::from(partition.end) {
        return parted::shrink(&device, partition.number, &text);
    }
    parted::run(&device, ["resizepart", &partition.number.to_string(), &text]).map(drop)
}

/// Partitions, in bytes.
pub(crate) fn part_list(_: &mut Session, device: Device) -> Result<Vec<structs::Partition>> {
    let too_large =
        || Error::new(Errno::EOVERFLOW, "a number is larger than a reply can say").within(&device);
    let partition = |p: &Listed| {
        Some(structs::Partition {
            part_num: i32::try_from(p.number).ok()?,
            part_start: i64::try_from(p.start).ok()?,
            part_end: i64::try_from(p.end).ok()?,
            part_size: i64::try_from(p.end.checked_sub(p.start)?.checked_add(1)?).ok()?,
        })
    };
    let found: Option<Vec<_>> = listing(&device)?.partitions.iter().map(partition).collect();
    found.ok_or_else(too_large)
}

/// The kind of partition table.
pub(crate) fn part_get_parttype(_: &mut Session, device: Device) -> Result<String> {
    let label = listing(&device)?.label;
    if label == "loop" {
        return Err(Error::argument("device", &device, "not a partitioned device"));
    }
    Ok(label)
}

/// Marks a partition to be booted from, or not.
pub(crate) fn part_set_bootable(
    s: &mut Session,
    device: Device,
    partnum: i32,
    bootable: bool,
) -> Result<()> {
    let number = check_number(partnum)?.to_string();
    s.udev().changed();
    let state = if bootable { "on" } else { "off" };
    parted::run(&device, ["set", &number, "boot", state]).map(drop)
}

/// Whether a partition is marked to be booted from.
pub(crate) fn part_get_bootable(_: &mut Session, device: Device, partnum: i32) -> Result<bool> {
    let (_, partition) = listed(&device, partnum)?;
    Ok(partition.flags.split(", ").any(|flag| matches!(flag, "boot" | "legacy_boot")))
}

/// Names a partition.
pub(crate) fn part_set_name(
    s: &mut Session,
    device: Device,
    partnum: i32,
    name: &OsStr,
) -> Result<()> {
    let text = name.to_str().ok_or_else(|| Error::argument("name", name, "is not UTF-8"))?;
    if let Some(Table::Gpt(_)) = open(&device, OFlags::RDONLY)?.table {
        return guid_table::set_gpt(s, &device, partnum, &gpt::Field::Name(text.to_owned()));
    }
    let number = check_number(partnum)?.to_string();
    s.udev().changed();
    parted::run(&device, ["name", &number, &parted::quoted(text)]).map(drop)
}

/// The name of a partition.
pub(crate) fn part_get_name(_: &mut Session, device: Device, partnum: i32) -> Result<String> {
    let (label, partition) = listed(&device, partnum)?;
    if !matches!(&*label, "gpt" | "mac" | "amiga" | "dvh" | "pc98") {
        return Err(Error::argument("device", &device, "partitions do not have names"));
    }
    Ok(partition.name)
}

/// The type byte of an MBR partition.
pub(crate) fn part_get_mbr_id(_: &mut Session, device: Device, partnum: i32) -> Result<i32> {
    Ok(i32::from(mbr_partition(&device, partnum)?.0))
}

/// Sets the type byte of an MBR partition.
pub(crate) fn part_set_mbr_id(
    s: &mut Session,
    device: Device,
    partnum: i32,
    idbyte: i32,
) -> Result<()> {
    let id = u8::try_from(idbyte)
        .map_err(|_| Error::argument("idbyte", format!("{idbyte:#x}"), "expecting 0 to 0xff"))?;
    mbr_partition(&device, partnum)?;
    let arguments = [&*partnum.to_string(), &*format!("{id:x}")];
    sfdisk::change(s, Tool::new("sfdisk").arg("--part-type"), &device, &arguments, b"")
}

/// Whether a partition is primary, logical or extended.
pub(crate) fn part_get_mbr_part_type(
    _: &mut Session,
    device: Device,
    partnum: i32,
) -> Result<&'static str> {
    if let Some(Table::Gpt(table)) = open(&device, OFlags::RDONLY)?.table {
        // These have no types: all of them are what an MBR calls primary.
        let number = check_number(partnum)?;
        let found = table.partition(number).map(|_| "primary");
        return found.ok_or_else(|| no_partition(&device, number));
    }
    Ok(match mbr_partition(&device, partnum)?.1 {
        mbr::Kind::Primary => "primary",
        mbr::Kind::Extended => "extended",
        mbr::Kind::Logical => "logical",
    })
}

/// The disk that a partition is on.
pub(crate) fn part_to_dev(_: &mut Session, partition: Device) -> Result<PathBuf> {
    Ok(partition_of(&partition)?.0)
}

/// The number of a partition.
pub(crate) fn part_to_partnum(_: &mut Session, partition: Device) -> Result<i32> {
    Ok(partition_of(&partition)?.1)
}

/// The disk that a partition is on, and its number there.
fn partition_of(partition: &Device) -> Result<(PathBuf, i32)> {
    let sysfs = partition.sysfs()?;
    let number = std::fs::read_to_string(sysfs.join("partition"));
    let number = number.ok().and_then(|text| text.trim().parse().ok());
    let here = std::fs::canonicalize(&sysfs).on(partition)?;
    let disk = here.parent().and_then(Path::file_name);
    match (number, disk) {
        (Some(number), Some(disk)) => Ok((Path::new("/dev").join(disk), number)),
        _ => Err(Error::argument("partition", partition, "device name is not a partition")),
    }
}
