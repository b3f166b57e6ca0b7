// SPDX-License-Identifier: Apache-2.0
//! Drivers of filesystems: what can be done to those of a type, one row a type or family.
//!
//! Procedures for filesystems of any type find the row ([`of`]) and do what its column says; procedures of a single
//! type are in that type's area. A new filesystem is a module with its row, and a line in the table; one that is only
//! made, by a program that takes the usual options, is a row in [`others`].

mod btrfs;
mod driver;
pub(crate) mod ext;
mod fat;
mod ntfs;
mod others;
mod swap;
pub(crate) mod xfs;
pub(crate) mod xfs_geometry;

pub(crate) use driver::{Block, Driver, Maker, NewUuid, Twin};

/// All of them.
const DRIVERS: &[&[Driver]] = &[
    &[ext::DRIVER, fat::DRIVER, ntfs::DRIVER, xfs::DRIVER, btrfs::DRIVER, swap::DRIVER],
    others::DRIVERS,
];

/// The driver of filesystems of this type.
pub(crate) fn of(fstype: &str) -> Option<&'static Driver> {
    DRIVERS.iter().copied().flatten().find(|driver| driver.types.contains(&fstype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_one_driver() {
        let all: Vec<_> = DRIVERS.iter().copied().flatten().flat_map(|d| d.types).collect();
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(all.len(), unique.len());
    }
}
