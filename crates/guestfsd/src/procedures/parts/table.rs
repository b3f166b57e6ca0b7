// SPDX-License-Identifier: Apache-2.0
//! The partition table of a device: read here where that is beyond doubt, else by parted.

use super::parted::{self, Listed, Listing};
use crate::devices::Device;
use guest_error::{Context, Errno, Error, Result};
use probe::partition;
use probe::partition_table::{self, Geometry, Table};
use rustix::fs::OFlags;
use std::fs::File;

/// The number of a partition, as clients give it.
pub(super) fn check_number(partnum: i32) -> Result<u32> {
    u32::try_from(partnum).ok().filter(|n| *n > 0).ok_or_else(|| {
        Error::argument("partnum", partnum.to_string(), "partitions are numbered from 1")
    })
}

/// The error that there is no such partition.
pub(super) fn no_partition(device: &Device, number: u32) -> Error {
    Error::argument("partnum", number.to_string(), "no such partition").within(device)
}

/// The error that the table is of another kind.
pub(super) fn not_mbr(device: &Device) -> Error {
    Error::argument("device", device, "does not have an MBR partition table")
}

/// A disk that is open, and its table.
pub(super) struct Disk {
    pub(super) file: File,
    pub(super) geometry: Geometry,
    pub(super) table: Option<Table>,
}

/// Opens a disk and reads its table; none if that is not beyond doubt.
pub(super) fn open(device: &Device, flags: OFlags) -> Result<Disk> {
    let mut file = device.open(flags)?;
    let geometry = partition::geometry(&file).on(device)?;
    let table = partition_table::read_beyond_doubt(&mut file, geometry).on(device)?;
    Ok(Disk { file, geometry, table })
}

/// The kind of table and all partitions.
pub(super) fn listing(device: &Device) -> Result<Listing> {
    let disk = open(device, OFlags::RDONLY)?;
    let sector = disk.geometry.sector;
    let bytes = |first: u64, last: u64| (first * sector, (last + 1) * sector - 1);
    let flags = |boot: bool| String::from(if boot { "boot" } else { "" });
    let (label, partitions) = match disk.table {
        // parted does not know it either: the device has no partitions.
        None => {
            return parted::list(device).map_err(|e| Error::new(Errno::EINVAL, e.message()));
        }
        Some(Table::Mbr(table)) => {
            let listed = table.partitions.iter().map(|p| {
                let (start, end) = bytes(p.start, p.last());
                let name = String::new();
                Listed { number: p.number, start, end, name, flags: flags(p.active) }
            });
            ("msdos", listed.collect())
        }
        Some(Table::Gpt(table)) => {
            let listed = table.partitions().into_iter().map(|p| {
                let (start, end) = bytes(p.first, p.last);
                let flags = flags(p.is_bootable());
                Listed { number: p.number, start, end, name: p.name, flags }
            });
            ("gpt", listed.collect())
        }
    };
    Ok(Listing { label: label.to_owned(), partitions })
}
