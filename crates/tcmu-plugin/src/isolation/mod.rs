// SPDX-License-Identifier: Apache-2.0
//! Plugins in processes of their own, one for each file. A plugin that crashes, or hangs for too
//! long, takes its own devices only, and they come back: the next process opens them again, and what
//! was under way is sent again by the initiators.
//!
//! ```text
//! daemon    PluginDevice ── Remote ── Link ── commands ──────> Served ── Handler    process
//!                              │        └──── memory (slots) ────┘                  of the
//!                              └─ Host ────── calls ─────────> Process              plugin
//!                                 supervise <─ completions, log ─ Relay
//! ```
//!
//! - `wire`: the messages, and `socket` that carries them; `slots`: the memory of commands' data
//! - in the daemon: `host` is a plugin's process, `supervise` starts it and notices its end,
//!   `remote` is a device, `link` the way of its commands
//! - in the process: [`process`] is what it runs, `served` a device, `relay` what the daemon is told
//!
//! The handler in the process is called as one in the daemon is, by the same code. Nothing is taken
//! from it: it has the daemon's user, files, limits and environment, for it opens its own storage.
pub(crate) mod host;
mod link;
pub mod process;
pub(crate) mod relay;
pub(crate) mod remote;
mod served;
mod slots;
mod socket;
mod supervise;
pub(crate) mod wire;

pub use host::Isolation;
