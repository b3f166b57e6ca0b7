// SPDX-License-Identifier: Apache-2.0
//! The formats that are only read, against QEMU's tools, xz, zstd and gzip: what those write is read
//! as they read it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests' helpers")]

mod common;
mod compressed;
mod hostile;
mod refusals;
mod tables;
mod vhdx_log;
