// SPDX-License-Identifier: Apache-2.0
//! The C interface that tcmu-runner's plugins (`handler_*.so`) and programs on libtcmu are written
//! for: structures ([`layout`]), statuses ([`status`]), the device ([`Device`]) and the functions that
//! need no more than these ([`exports`]); and the one callback that every host makes ([`check`]).
//!
//! Who links this crate serves devices: the host of plugins, or the library. It makes a [`Device`],
//! hangs its own state on it ([`Owner`]), and gives its pointer to C code; what C code logs comes
//! back through [`log::Sink`].
//!
//! # Exporting the functions
//! A cdylib exports them as any `#[no_mangle]` function. A program does if its build script passes
//! `-Wl,--export-dynamic-symbol=NAME` for each line of `symbols.txt`, and if it calls [`keep`], so
//! that the linker looks at this crate at all.

pub mod check;
pub mod exports;
pub mod layout;
pub mod properties;
pub mod status;

mod device;
mod keep;

pub use device::{Device, DeviceConfig, Memory, Owner};
pub use exports::log;
pub use keep::{Address, keep};
pub use properties::Properties;

/// The names of the functions that this crate exports.
pub fn symbols() -> impl Iterator<Item = &'static str> {
    include_str!("../symbols.txt").lines()
}
