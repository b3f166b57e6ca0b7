// SPDX-License-Identifier: Apache-2.0
//! A partition of either kind of table.

use super::disk::Geometry;
use super::{gpt, mbr};

/// What a partition table says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of an MBR.
    Mbr {
        /// Signature of the disk.
        disk: u32,
        /// The partition.
        partition: mbr::Partition,
    },
    /// Of a GPT.
    Gpt(gpt::Partition),
}

/// Type in a GPT of a partition that Microsoft reserved: no filesystem is in it.
const RESERVED: &str = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE";
/// Types in a GPT of the metadata and the data of dynamic disks of Windows.
const DYNAMIC_GPT: [&str; 2] =
    ["5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "AF9B60A0-1431-4F62-BC68-3311714A69AD"];
/// Type in an MBR of a dynamic disk of Windows.
const DYNAMIC_MBR: u8 = 0x42;

impl Entry {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        match self {
            Self::Mbr { partition, .. } => partition.number,
            Self::Gpt(partition) => partition.number,
        }
    }

    /// Where the kernel shows it, and how long, in bytes: of an extended partition two sectors, for boot loaders.
    /// None if that is not inside the disk.
    pub fn shown(&self, geometry: Geometry) -> Option<(u64, u64)> {
        let (start, sectors) = match self {
            Self::Mbr { partition: p, .. } if p.kind == mbr::Kind::Extended => {
                (p.start, p.sectors.min(2))
            }
            Self::Mbr { partition: p, .. } => (p.start, p.sectors),
            Self::Gpt(p) => (p.first, p.last.checked_sub(p.first)?.checked_add(1)?),
        };
        let end = start.checked_add(sectors).filter(|end| *end <= geometry.sectors());
        end.filter(|_| start > 0)?;
        Some((start.checked_mul(geometry.sector)?, sectors.checked_mul(geometry.sector)?))
    }

    /// Whether a filesystem can be there: not in an extended partition, and not where dynamic disks of Windows
    /// keep their data.
    pub fn may_hold_filesystem(&self) -> bool {
        match self {
            Self::Mbr { partition: p, .. } if p.kind == mbr::Kind::Extended => false,
            Self::Gpt(p) if p.type_guid.to_string() == RESERVED => false,
            _ => !self.is_of_dynamic_disk(),
        }
    }

    /// Whether its disk is a dynamic one of Windows.
    pub fn is_of_dynamic_disk(&self) -> bool {
        match self {
            Self::Mbr { partition, .. } => partition.id == DYNAMIC_MBR,
            Self::Gpt(p) => DYNAMIC_GPT.contains(&p.type_guid.to_string().as_str()),
        }
    }

    /// The UUID of the partition, as `PARTUUID` has it.
    pub fn uuid(&self) -> String {
        match self {
            Self::Mbr { disk, partition } => format!("{disk:08x}-{:02x}", partition.number),
            Self::Gpt(partition) => partition.guid.0.to_string(),
        }
    }

    /// The name of the partition, empty where it has none.
    pub fn name(&self) -> &str {
        match self {
            Self::Mbr { .. } => "",
            Self::Gpt(partition) => &partition.name,
        }
    }
}
