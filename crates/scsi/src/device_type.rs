// SPDX-License-Identifier: Apache-2.0
//! What a logical unit can be. A device type is a value of its own module, such as
//! [`BLOCK_DEVICE`](crate::block_device::BLOCK_DEVICE): the commands that it has, and what it says of
//! itself.

use crate::{mode, opcodes, vpd};

/// A peripheral device type (SPC-4 table 149).
#[derive(Debug)]
pub struct DeviceType {
    /// Its number in INQUIRY data.
    pub code: u8,
    /// Version descriptors of the standards that it follows (SPC-4 table 146); eight at most.
    pub versions: &'static [u16],
    /// Its commands.
    pub opcodes: opcodes::Table,
    /// Its pages of vital product data, by code.
    pub vpd: &'static [vpd::Page],
    /// Its mode pages.
    pub modes: mode::Table,
}
