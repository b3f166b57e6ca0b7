// SPDX-License-Identifier: Apache-2.0
//! Plugins in a host without a kernel: those of `tests/plugins`, compiled here, and Debian's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod calls;
mod debian;
mod faults;
mod isolation;
mod known;
mod refusals;
mod support;
mod threads;
