// SPDX-License-Identifier: Apache-2.0
//! Layers on other stores: formats of images. `qcow` and `luks` are written too, the others are only
//! read.
pub(crate) mod chain;
mod compressed;
pub(crate) mod luks;
mod name;
pub(crate) mod probe;
pub(crate) mod qcow;
pub(crate) mod read_only;
pub(crate) mod reader;
mod secret;
mod vdi;
mod vhdx;
pub(crate) mod vmdk;
mod vpc;

use chain::Format;

/// All formats but raw, which is no layer.
pub(crate) static FORMATS: &[Format] = &[
    qcow::QCOW2,
    qcow::qcow1::QCOW,
    luks::LUKS,
    read_only::VMDK,
    read_only::VHDX,
    read_only::VPC,
    read_only::VDI,
    read_only::XZ,
    read_only::ZST,
    read_only::GZ,
];
