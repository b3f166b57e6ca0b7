// SPDX-License-Identifier: Apache-2.0
//! Direct access block devices (SBC-4): disks.
//!
#![doc = include_str!("../OPCODES.md")]

mod mode;
#[cfg(test)]
mod opcode_tests;
mod opcodes;
mod vpd;

use crate::device_type::DeviceType;
use crate::opcodes::Table;

/// Direct access block device (SBC-4).
pub static BLOCK_DEVICE: DeviceType = DeviceType {
    code: 0x00,
    // SAM-5, SPC-4 and SBC-4, no version claimed.
    versions: &[0x00a0, 0x0460, 0x0600],
    opcodes: Table::new(opcodes::ROWS),
    vpd: vpd::PAGES,
    modes: mode::TABLE,
};
