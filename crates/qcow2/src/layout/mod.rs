// SPDX-License-Identifier: Apache-2.0
//! The bytes of the format. Nothing here does I/O but reading the header; everything is checked
//! once, here, before it is used.
pub mod bitmaps;
pub mod entry;
pub mod header;
pub(crate) mod snapshots;
