// SPDX-License-Identifier: Apache-2.0
//! What holds the blocks of a disk. A [`Store`] reads and writes bytes at offsets; it knows nothing
//! about SCSI or other front ends. Its [`Facts`] say what it supports. A [`Disk`] makes any store fit
//! for front ends.
//!
//! - `protocol`: the bottom layers: files, memory, nothing
//! - `format`: formats of images, layers on other stores; `format::chain` opens the files of images
//! - [`Lower`]: what a format lies on
//! - [`exclusive`]: the lock of what several hosts have open
//! - `registry`, `config`, `options`: which stores there are, the strings that name them, and their
//!   options
//! - [`disk`]: what every front end needs; `range_lock`, `scratch`, [`statistics`]: parts of it
//! - `error`: errors and their classes
//!
//! All methods run on the thread of the device, in the `io-engine` of that thread.
mod boxed;
mod config;
pub mod disk;
mod error;
pub mod exclusive;
mod format;
pub mod fuzz;
mod lower;
mod open_watch;
mod options;
mod protocol;
mod range_lock;
mod registry;
mod scratch;
pub mod statistics;

use std::rc::Rc;

use sgl::Sgl;

use exclusive::ExclusiveLock;

pub use boxed::BoxedStore;
pub use config::Config;
pub use disk::Disk;
pub use error::{Error, ErrorClass, ErrorKind};
pub use format::chain::Format;
pub use format::chain::refusal as format_refusal;
pub use format::probe::{PROBED, head, probe};
pub use format::qcow::QcowStore;
pub use lower::Lower;
pub use open_watch::OpenWatch;
pub use options::{
    COMMAND_TIME_OUT, ConfigOption, ImageOptions, OPTIONS, SecretSource, command_timeout,
};
pub use protocol::file::{FileStore, Held, Locks, lock_image};
pub use protocol::null::NullStore;
pub use range_lock::{Access, Acquire, Guard, RangeLock};
pub use registry::{
    AnyStore, Locking, OpenOptions, SUBTYPES, Subtype, check, image_format, open, open_image,
};
pub use scratch::CHUNK;

/// What a store is and can do; asked for once after opening, and again after a resize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Capacity in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Best alignment and length of an I/O, in bytes (a file system's block, a qcow2 cluster).
    pub optimal_io: u32,
    /// Offsets and lengths have to be multiples of this, in bytes; a power of two, 1 if any will do.
    pub request_alignment: u32,
    /// Whether other hosts can have it open at the same time.
    pub shared: bool,
    /// The most bytes that can be compared and written in one step while other hosts have it open, at
    /// a multiple of that; `None`: nobody else changes it meanwhile, so that any number can.
    pub compare_and_write: Option<u32>,
    /// What discard does; `None` when it is not supported.
    pub discard: Option<Discard>,
    /// Whether `write_zeroes` is cheaper than writing zeroes.
    pub write_zeroes: bool,
}

/// How a store discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Bytes below which a discard frees nothing.
    pub granularity: u32,
    /// Whether a discarded range reads as zeroes, always and at any alignment.
    pub zeroes: bool,
}

/// Whether a range takes up space (GET LBA STATUS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioning {
    /// Space is allocated for it.
    Mapped,
    /// None is; it reads as zeroes.
    Deallocated,
}

/// What happens to a store that nobody here has done.
#[derive(Debug)]
pub enum Event {
    /// Its size has changed: ask for its facts again.
    Resized,
    /// It cannot be reached, or has lost its lock: operations fail or wait until it is back.
    Lost(Error),
    /// What it lies on has lost data.
    MediaError(Error),
}

/// The blocks of a disk. Offsets and lengths are in bytes, inside [`Facts::size`].
///
/// Acknowledged means safe from the death of this process: when `write` has returned, a later
/// open sees the data (metadata of an image included) even after kill -9. When `flush` has
/// returned, what was written before is safe from loss of power too.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub trait Store {
    /// What it is and can do.
    fn facts(&self) -> Facts;
    /// Fills all of `data` from `offset`.
    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error>;
    /// Writes all of `data` at `offset`. With `fua` it is on stable storage on return.
    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error>;
    /// Brings everything acknowledged to stable storage.
    async fn flush(&self) -> Result<(), Error>;
    /// Gives up the space of a range, as [`Facts::discard`] says.
    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error>;
    /// Makes a range read as zeroes; with `may_unmap` its space may be given up.
    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error>;
    /// Whether the range that begins at `offset` takes up space, and how long the answer holds
    /// (at least 1 byte, at most `len`).
    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error>;
    /// Compares the first half of `data` with what is at `offset`, and if it is that, writes the
    /// second half there, in one step for whoever else has the store open, too. Where the first
    /// byte is that differs, if one does; `None`: the store cannot do it in one step.
    async fn compare_and_write(
        &self,
        _data: &Sgl<'_>,
        _offset: u64,
    ) -> Option<Result<Option<u64>, Error>> {
        None
    }
    /// Changes the capacity.
    async fn resize(&self, size: u64) -> Result<(), Error>;
    /// Brings everything that is in memory to the files and to stable storage, so that they can be
    /// opened by another store. If that one cannot be opened, this one stays in use.
    async fn close(&self) -> Result<(), Error>;
    /// The files that it has open, which a successor may take over: [`OpenOptions::predecessor`].
    fn held(&self) -> Held {
        Held::default()
    }
    /// The exclusive lock of what holds the blocks, where several hosts can have it open.
    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        None
    }
    /// Whether what a resize adds may read as anything: zeroes in the layer below, decrypted.
    fn grows_by_noise(&self) -> bool {
        false
    }
    /// Waits until something happens that nobody here has done; never returns for most stores.
    async fn event(&self) -> Event {
        std::future::pending().await
    }
}
