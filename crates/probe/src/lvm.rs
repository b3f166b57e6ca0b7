// SPDX-License-Identifier: Apache-2.0
//! LVM's metadata: which physical volumes, groups and volumes there are, read from the devices themselves.
//!
//! A device comes in with what is on it ([`device`]: its label and metadata areas), and a [`Survey`] of all devices
//! answers as the program `lvm` does, in its order. That is so only where everything is in order; where it is not, or
//! where something is not known here, the answer is a [`Doubt`], and `lvm` is to be asked.

pub(crate) mod area;
pub mod device;
pub(crate) mod group;
pub(crate) mod label;
pub(crate) mod survey;
pub mod text;

pub use label::is_physical_volume;
pub use survey::{Known, Survey};

use std::fmt;

/// Why only `lvm` can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt(pub &'static str);

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Doubt {}
