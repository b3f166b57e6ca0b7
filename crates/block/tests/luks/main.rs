// SPDX-License-Identifier: Apache-2.0
//! The store `luks`, together with `cryptsetup` and QEMU.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod common;
mod exchange;
mod layers;
mod refusals;
mod writes;
