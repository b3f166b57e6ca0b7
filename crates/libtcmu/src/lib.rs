// SPDX-License-Identifier: Apache-2.0
//! `libtcmu.so.2`: what C programs link with that serve devices of TCM-User in their own event loops.
//! The interface is that of the C library of this name; `include/libtcmu.h` tells how it is used, and
//! `examples/consumer.c` shows it.
//!
//! - [`exports`] has the functions that C calls; those that `tcmur` plugins use as well are in the
//!   crate `tcmu-abi`.
//! - `context` is a program's handlers and their devices: the kernel's messages and D-Bus's questions
//!   in, callbacks out. All callbacks are called from functions that the program calls
//!   (`tcmulib_initialize`, `tcmulib_master_fd_ready`, `tcmulib_close`), and with no lock held.
//! - `queue` is the commands of one device, behind a lock of its own.
//! - `dbus` announces the handlers, in a thread of its own that may wait as long as it likes.
//! - `log` and `config` are the program's log and `tcmu.conf`.
//!
//! A panic ends the process: none may pass through C's frames, and none is expected.

pub mod exports;

mod checks;
mod config;
mod context;
mod dbus;
mod log;
mod queue;
mod signals;

// The functions that the library has from there.
pub use tcmu_abi::keep;
