// SPDX-License-Identifier: Apache-2.0
//! Hosts handlers written in C: shared libraries `handler_*.so` that know the program which loads
//! them as "tcmu-runner", unchanged.
//!
//! ```text
//! Plugins ── Handler        a library's table of functions, and its subtype
//!                │
//! PluginStore ── PluginDevice ── calls ──> the handler's functions, on its threads or this one
//!                │       ^
//!                │       └── exports <── what the handler calls, from any thread
//!                └── lock, recovery: what it is told to do when the storage is lost
//! ```
//!
//! - [`Plugins`] loads them; [`Handler`] is one, behind safe functions
//! - [`PluginDevice`] is an open device: commands go in, statuses come out as futures
//! - [`PluginStore`] is the same as a [`block::Store`], for handlers that read and write blocks
//! - [`isolation`] puts plugins in processes of their own
//! - [`status`] has what the numbers mean that handlers answer with
//!
//! What a handler says is not trusted: pointers that it hands back are looked up, never followed.
//! That it is code in this process remains, unless it is isolated: it can crash it, or write to any
//! memory.
mod answer;
mod callers;
mod calls;
pub mod config;
mod device;
mod end;
pub mod exports;
mod facts;
mod handler;
pub mod isolation;
mod keep;
mod library;
mod loader;
mod lock;
mod memory;
mod operation;
mod place;
mod pool;
mod recovery;
mod setup;
pub mod status;
mod store;

pub use device::{Finished, PluginDevice};
pub use end::{end, watch_exit};
pub use handler::Handler;
pub use isolation::Isolation;
pub use keep::keep;
pub use loader::{Plugins, Refusal};
pub use operation::Operation;
pub use pool::STACK;
pub use setup::{OpenError, Setup};
pub use status::{Status, Verdict};
pub use store::{PluginStore, Scope};

/// The names of the functions that this crate exports. A program has them found by plugins if its
/// build script passes `-Wl,--export-dynamic-symbol=NAME` for each, and if it calls [`keep`].
pub fn symbols() -> impl Iterator<Item = &'static str> {
    include_str!("../symbols.txt").lines()
}
