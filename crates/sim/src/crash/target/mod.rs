// SPDX-License-Identifier: Apache-2.0
//! What a run drives: the engine alone, or all that is between an initiator and the engine. One
//! workload, one model and one driver serve both.
//!
//! Offsets and lengths are in bytes, inside the size, and multiples of what the record says. An
//! operation is given up by dropping its future; then nothing of it happens any more.
use std::convert::Infallible;

use io_engine::sim::World;

use crate::crash::workload::{Record, Saving};

mod disk;
mod engine;
mod stack;

pub(crate) use disk::Disk;
pub use engine::Engine;
pub(crate) use engine::{BACKING, BASE, DATA, IMAGE, open_image};
pub use stack::{Machine, Stack};

/// Why an operation did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The comparison found another content; nothing was written.
    Miscompare,
    /// It failed.
    Failed(String),
    /// It cannot be done, and nothing has changed.
    Refused(String),
    /// It succeeded, with a result that cannot be.
    Wrong(String),
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Fault>;

/// See the module's text.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub trait Target: Sized {
    /// Opens what the world has. The machine lives longer than the process.
    ///
    /// # Errors
    /// Why that cannot be.
    async fn open(
        world: &World,
        record: &Record,
        machine: &Machine,
    ) -> std::result::Result<Self, String>;
    /// In bytes.
    fn size(&self) -> u64;
    /// Reads all of `bytes`.
    async fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()>;
    /// Writes; on return it is on stable storage, if so asked.
    async fn write(&self, bytes: &mut [u8], offset: u64, durable: bool) -> Result<()>;
    /// Writes a block all over a range.
    async fn repeat(&self, block: &[u8], offset: u64, len: u64) -> Result<()>;
    /// Writes the second half of `bytes` where the first half is.
    async fn compare_and_write(&self, bytes: &[u8], offset: u64) -> Result<()>;
    /// Brings all to stable storage.
    async fn flush(&self) -> Result<()>;
    /// Gives up a range; whether it certainly reads as zeroes then.
    async fn discard(&self, offset: u64, len: u64) -> Result<bool>;
    /// Makes a range zeroes, and perhaps gives it up.
    async fn zero(&self, offset: u64, len: u64, unmap: bool) -> Result<()>;
    /// Asks what is at `offset`.
    async fn map(&self, offset: u64) -> Result<()>;
    /// Changes the size, while nothing else is under way.
    async fn resize(&self, size: u64) -> Result<()>;
    /// Makes, applies or deletes the snapshot of this name.
    async fn snapshot(&self, what: Saving, name: &str) -> Result<()>;
    /// What is done while no operation is.
    async fn keep_house(&self) -> Infallible;
    /// Brings all to stable storage and ends in good order.
    async fn close(&self) -> Result<()>;
}

/// An error and its causes.
pub(crate) fn text(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}
