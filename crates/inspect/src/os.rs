// SPDX-License-Identifier: Apache-2.0
//! An operating system as it is described.

use crate::release::Version;
use std::ffi::OsString;

/// An operating system that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Os {
    /// `linux`, `windows`, ...
    pub kind: &'static str,
    /// The distribution, where it is known.
    pub distro: Option<&'static str>,
    /// What people call it.
    pub product_name: Option<OsString>,
    /// Which kind of it.
    pub product_variant: Option<OsString>,
    /// Its version.
    pub version: Option<Version>,
    /// Its architecture.
    pub arch: Option<&'static str>,
    /// Its name in the network.
    pub hostname: Option<OsString>,
    /// Format of its packages.
    pub package_format: Option<&'static str>,
    /// What manages them.
    pub package_management: Option<&'static str>,
    /// Which build it is.
    pub build_id: Option<OsString>,
    /// What only Windows has.
    pub windows: Option<Windows>,
}

/// What only Windows has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// The directory of the system: `/Windows`.
    pub systemroot: OsString,
    /// The file of HKLM\SOFTWARE.
    pub software_hive: Option<OsString>,
    /// The file of HKLM\SYSTEM.
    pub system_hive: Option<OsString>,
    /// The name of the key of what is current.
    pub current_control_set: Option<String>,
    /// Whether policies of a domain have been applied.
    pub group_policy: bool,
    /// Letters, and where they lead: partitions as the registry names them.
    pub(crate) letters: Vec<(String, Target)>,
}

/// A partition as the registry names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Of a disk with this MBR signature, at this byte.
    Mbr { signature: u32, start: u64 },
    /// Of this UUID in a GPT.
    Gpt { uuid: String },
}
