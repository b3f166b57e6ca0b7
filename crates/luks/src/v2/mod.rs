// SPDX-License-Identifier: Apache-2.0
//! Version 2 (LUKS2 On-Disk Format Specification, version 1.1): two copies of a binary header, each
//! with a text in JSON.
pub(crate) mod binary;
mod json;
pub(crate) mod metadata;
