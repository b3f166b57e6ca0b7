// SPDX-License-Identifier: Apache-2.0
//! GUID partition tables: what only they have. Fields are changed in place.

use super::parted::{self, Listing};
use super::table::{Disk, check_number, no_partition, open};
use crate::block;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use probe::partition_table::guid::Guid;
use probe::partition_table::{Table, gpt};
use rustix::fs::OFlags;
use std::ffi::OsStr;

fn not_gpt(device: &Device) -> Error {
    Error::argument("device", device, "does not have a GUID partition table")
}

/// The GPT of a device, and the partition of this number in it.
fn gpt_partition(device: &Device, partnum: i32) -> Result<gpt::Partition> {
    let number = check_number(partnum)?;
    let (_, table) = table(device, OFlags::RDONLY)?;
    table.partition(number).ok_or_else(|| no_partition(device, number))
}

/// The GPT of a device.
fn table(device: &Device, flags: OFlags) -> Result<(Disk, gpt::Table)> {
    let mut disk = open(device, flags)?;
    match disk.table.take() {
        Some(Table::Gpt(table)) => Ok((disk, table)),
        Some(Table::Mbr(_)) => Err(not_gpt(device)),
        // If it is one, parted says what is wrong with it.
        None => Err(match parted::list(device)? {
            Listing { label, .. } if label == "gpt" => {
                Error::new(Errno::EIO, "the GUID partition table is damaged").within(device)
            }
            _ => not_gpt(device),
        }),
    }
}

/// Changes a GPT in place.
fn edit_gpt(
    s: &mut Session,
    device: &Device,
    change: impl FnOnce(&mut gpt::Table) -> Result<()>,
) -> Result<()> {
    let (mut disk, mut table) = table(device, OFlags::RDWR)?;
    change(&mut table)?;
    s.udev().changed();
    table.write(&mut disk.file, disk.geometry, |file| file.sync_data()).on(device)?;
    // The kernel knows names and GUIDs of partitions; while one is in use it keeps what it knows.
    block::reread_partitions(&disk.file).ok();
    Ok(())
}

pub(super) fn set_gpt(
    s: &mut Session,
    device: &Device,
    partnum: i32,
    field: &gpt::Field,
) -> Result<()> {
    let number = check_number(partnum)?;
    edit_gpt(s, device, |table| match table.set(number, field) {
        true => Ok(()),
        false => Err(no_partition(device, number)),
    })
}

fn guid(text: &OsStr) -> Result<Guid> {
    let guid = text.to_str().and_then(Guid::parse);
    guid.ok_or_else(|| Error::argument("guid", text, "parameter is not a valid GUID"))
}

/// Sets what a partition is for.
pub(crate) fn part_set_gpt_type(
    s: &mut Session,
    device: Device,
    partnum: i32,
    text: &OsStr,
) -> Result<()> {
    let type_guid = guid(text)?;
    set_gpt(s, &device, partnum, &gpt::Field::Type(type_guid))
}

/// What a partition is for; of one of an MBR, what its type byte means.
pub(crate) fn part_get_gpt_type(_: &mut Session, device: Device, partnum: i32) -> Result<String> {
    let number = check_number(partnum)?;
    match open(&device, OFlags::RDONLY)?.table {
        Some(Table::Mbr(table)) => {
            table.partition(number).ok_or_else(|| no_partition(&device, number))?;
            sgdisk_type(&device, number)
        }
        _ => Ok(gpt_partition(&device, partnum)?.type_guid.to_string()),
    }
}

/// The GUID that sgdisk has for a partition's type.
fn sgdisk_type(device: &Device, number: u32) -> Result<String> {
    let tool = Tool::new("sgdisk").arg(format!("--info={number}")).arg(device.path());
    let output = tool.output().map_err(|e| parted::named(e, device))?;
    let text = String::from_utf8_lossy(&output);
    // `Partition GUID code: 0FC63DAF-8483-4772-8E79-3D69D8477DE4 (Linux filesystem)`
    let code = text.lines().find_map(|line| line.strip_prefix("Partition GUID code: "));
    let guid = code.and_then(|c| c.split(' ').next()).and_then(Guid::parse);
    // Extended partitions have no counterpart.
    guid.map(|g| g.to_string()).ok_or_else(|| {
        let why = "no GUID corresponds to its type";
        Error::argument("partnum", number.to_string(), why).within(device)
    })
}

/// Sets which one a partition is.
pub(crate) fn part_set_gpt_guid(
    s: &mut Session,
    device: Device,
    partnum: i32,
    text: &OsStr,
) -> Result<()> {
    let unique = guid(text)?;
    set_gpt(s, &device, partnum, &gpt::Field::Unique(unique))
}

/// Which one a partition is.
pub(crate) fn part_get_gpt_guid(_: &mut Session, device: Device, partnum: i32) -> Result<String> {
    Ok(gpt_partition(&device, partnum)?.guid.to_string())
}

/// Sets a partition's attribute bits.
pub(crate) fn part_set_gpt_attributes(
    s: &mut Session,
    device: Device,
    partnum: i32,
    attributes: i64,
) -> Result<()> {
    let bits = attributes.cast_unsigned();
    set_gpt(s, &device, partnum, &gpt::Field::Attributes(bits))
}

/// A partition's attribute bits.
pub(crate) fn part_get_gpt_attributes(
    _: &mut Session,
    device: Device,
    partnum: i32,
) -> Result<i64> {
    Ok(gpt_partition(&device, partnum)?.attributes.cast_signed())
}

/// Sets which one a disk is.
pub(crate) fn part_set_disk_guid(s: &mut Session, device: Device, text: &OsStr) -> Result<()> {
    let disk = guid(text)?;
    set_disk_guid(s, &device, disk)
}

fn set_disk_guid(s: &mut Session, device: &Device, disk: Guid) -> Result<()> {
    edit_gpt(s, device, |table| {
        table.set_disk_guid(disk);
        Ok(())
    })
}

/// Which one a disk is.
pub(crate) fn part_get_disk_guid(_: &mut Session, device: Device) -> Result<String> {
    Ok(table(&device, OFlags::RDONLY)?.1.disk_guid().to_string())
}

/// Makes a disk one of its own.
pub(crate) fn part_set_disk_guid_random(s: &mut Session, device: Device) -> Result<()> {
    set_disk_guid(s, &device, Guid(uuid::Uuid::new_v4()))
}

/// Moves the copy of a GPT to the end of a disk that has grown.
pub(crate) fn part_expand_gpt(s: &mut Session, device: Device) -> Result<()> {
    s.udev().changed();
    let tool = Tool::new("sgdisk").arg("--move-second-header").arg(device.path());
    let output = tool.run()?;
    if output.code == 0 {
        return Ok(());
    }
    // What is wrong it says on standard output.
    let said = output.text();
    let said: Vec<&str> = said.lines().filter(|l| !l.is_empty() && !l.contains("***")).collect();
    let e = if said.is_empty() {
        output.failure()
    } else {
        Error::new(Errno::EIO, said.join(" ")).within("sgdisk")
    };
    Err(parted::named(e, &device))
}
