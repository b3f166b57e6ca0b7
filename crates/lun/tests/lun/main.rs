// SPDX-License-Identifier: Apache-2.0
//! A logical unit on a store in memory: what each command does, and how it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that fails panics, and its numbers are small"
)]

mod block_io;
mod compare;
mod control;
mod copy;
mod hostile;
mod identity;
mod provisioning;
mod support;
