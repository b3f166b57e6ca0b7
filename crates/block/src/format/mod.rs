// SPDX-License-Identifier: Apache-2.0
//! Layers on other stores: formats of images.
pub(crate) mod probe;
pub(crate) mod qcow;
