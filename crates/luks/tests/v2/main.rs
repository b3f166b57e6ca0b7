// SPDX-License-Identifier: Apache-2.0
//! Headers of version 2: those that `cryptsetup` makes, and hostile ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod common;
mod hostile;
mod tools;
