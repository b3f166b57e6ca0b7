// SPDX-License-Identifier: Apache-2.0
//! Layers on other stores: formats of images.
pub(crate) mod chain;
mod name;
pub(crate) mod probe;
pub(crate) mod qcow;

use chain::Format;

/// All formats but raw, which is no layer.
pub(crate) static FORMATS: &[Format] = &[qcow::QCOW2, qcow::qcow1::QCOW];
