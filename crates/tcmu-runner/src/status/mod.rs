// SPDX-License-Identifier: Apache-2.0
//! How the daemon does, for those who look: `tcmu-runner status`, D-Bus, Prometheus.
//!
//! ```text
//! main loop ── Report ──> server ── JSON ──> `tcmu-runner status` (command, text)
//!                 │          └──── metrics ──> Prometheus
//!                 └──── JSON ──> D-Bus
//! ```
//! The main loop never waits, and what it tells of a device's thread is what that shows of itself: a
//! backstore that hangs delays no answer.
pub mod command;
mod http;
mod metrics;
pub mod report;
pub mod server;
mod text;

/// The directory of the daemon's own socket, root's alone.
pub const DIRECTORY: &str = "/run/tcmu-runner";
/// The daemon's own socket.
pub const SOCKET: &str = "/run/tcmu-runner/status.sock";
/// Where a report is found on it.
const STATUS: &str = "/status";
/// Where the figures for Prometheus are, here and where the configuration says.
const METRICS: &str = "/metrics";
