// SPDX-License-Identifier: Apache-2.0
//! What holds the blocks of a logical unit. A [`Store`] reads and writes bytes at offsets; it
//! knows nothing about SCSI. Its [`Facts`] say what it supports; `lun` emulates the rest.
//!
//! All methods run on the thread of the device, in the `io-engine` of that thread.
mod config;
mod error;
mod format;
mod lower;
mod protocol;
mod registry;

use std::path::PathBuf;

use sgl::Sgl;

pub use config::Config;
pub use format::qcow::QcowStore;
pub use lower::Lower;
pub use protocol::file::{FileStore, Held, Locks, lock_image};
pub use protocol::null::NullStore;
pub use registry::{AnyStore, Locking, OpenOptions, SUBTYPES, Subtype, check, open};

/// What a backstore is and can do; asked for once after opening, and again after a resize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Capacity in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Best alignment and length of an I/O, in bytes (a file system's block, a qcow2 cluster).
    pub optimal_io: u32,
    /// What discard does; `None` when it is not supported.
    pub discard: Option<Discard>,
    /// Whether `write_zeroes` is cheaper than writing zeroes.
    pub write_zeroes: bool,
}

/// How a backstore discards.
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

/// The blocks of a logical unit. Offsets and lengths are in bytes, inside [`Facts::size`].
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
    /// Changes the capacity.
    async fn resize(&self, size: u64) -> Result<(), Error>;
    /// Brings everything that is in memory to the files and to stable storage, so that they can be
    /// opened by another backstore. If that one cannot be opened, this one stays in use.
    async fn close(&self) -> Result<(), Error>;
}

/// Why an operation failed: what was done, to which file, and what the system said.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {operation}: {kind}", path = path.display())]
pub struct Error {
    /// The class, which decides the sense.
    pub kind: ErrorKind,
    /// What was being done ("read 4096 bytes at 0", "open").
    pub operation: String,
    /// The file concerned.
    pub path: PathBuf,
}

/// Classes of failure.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The system refused; the errno decides further (ENOSPC, EDQUOT: no space; else medium).
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The backstore is read-only.
    #[error("it is read-only")]
    ReadOnly,
    /// This backstore does not support the operation.
    #[error("{0}")]
    Unsupported(String),
    /// Another device or program has the image open.
    #[error("it is in use by another program or device (a VM, qemu-img, a mounted file system)")]
    InUse,
    /// The image is damaged or of a kind that may not be used; the text says what to run.
    #[error("{0}")]
    Invalid(String),
}
