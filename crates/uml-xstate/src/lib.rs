// SPDX-License-Identifier: Apache-2.0
//! A library for `LD_PRELOAD`, without which User-Mode Linux panics on the newest CPUs: `xstate.rs`
//! tells why. Who starts User-Mode Linux writes [`LIBRARY`] to a file.

// build.rs makes a library of it; see there.
#[cfg(all(clippy, target_arch = "x86_64"))]
mod xstate;

/// The library, an ELF file; empty on processors that there is no User-Mode Linux for.
pub const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xstate.so"));
