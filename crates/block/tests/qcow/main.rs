// SPDX-License-Identifier: Apache-2.0
//! The `qcow` backstore against QEMU's own tools: what it writes is read back by them, and what
//! they write by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests' helpers")]
#![allow(clippy::print_stdout, reason = "figures, shown with --nocapture")]

mod chain;
mod common;
mod crash;
mod features;
mod handover;
mod hostile;
mod snapshots;
mod twin;
