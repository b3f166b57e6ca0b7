// SPDX-License-Identifier: Apache-2.0
//! The daemon `tcmu-runner`: serves images as SCSI logical units of the Linux kernel's target.
//!
//! The main thread does netlink, signals and configuration; each device has a thread of its own
//! ([`device`]), as have D-Bus and the log's writer. They meet in one queue ([`events`]).

pub mod backing_dirs;
pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dbus;
pub mod device;
pub mod events;
pub mod lock;
pub mod logging;
pub mod manager;
pub mod memory;
pub mod plugins;
pub mod signals;
pub mod status;
mod terminal;
mod trial;
