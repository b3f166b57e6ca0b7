// SPDX-License-Identifier: Apache-2.0
//! The bottom layers: what holds bytes without another store below.
pub(crate) mod file;
pub(crate) mod glfs;
pub(crate) mod null;
pub(crate) mod ram;
pub(crate) mod rbd;
mod reopened;
pub(crate) mod zeroes;
