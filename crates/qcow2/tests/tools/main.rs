// SPDX-License-Identifier: Apache-2.0
//! What is done to whole images, beside QEMU's tools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests' helpers")]
#![allow(missing_docs, clippy::cast_possible_truncation)]

mod bitmaps;
mod check;
mod create;
mod damage;
mod huge;
mod marker;
mod memory;
mod read_compressed;
mod refusals;
mod repair;
mod scratch;
mod snapshots;
mod write_compressed;
