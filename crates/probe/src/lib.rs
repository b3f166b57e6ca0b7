// SPDX-License-Identifier: Apache-2.0
//! What is on a block device, as its own bytes and the kernel's tables have it.
//!
//! Bytes come in: superblocks become [`contents::Contents`] ([`superblock`], or what the program `blkid` says of one,
//! [`blkid`]), tables of partitions an MBR or a GPT ([`partition_table`]), which can be changed and written as well.
//! The kernel's tables in sysfs tell which partition of which disk a device is ([`partition`]), and which volume
//! ([`device_mapper`]), what arrays of md consist of ([`mdstat`]). LVM's metadata tells which volumes there are that the
//! kernel does not know ([`lvm`]). What is on a device is a guest's, and hostile: all that is read is bounded.

#![forbid(unsafe_code)]

pub mod blkid;
mod checksum;
pub mod contents;
pub mod device_mapper;
mod fields;
#[doc(hidden)]
pub mod fuzz;
pub mod iso9660;
pub mod luks;
pub mod lvm;
pub mod mdstat;
mod medium;
pub mod mountable;
pub mod partition;
pub mod partition_table;
pub mod superblock;
pub mod sysfs;
