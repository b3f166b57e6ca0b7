// SPDX-License-Identifier: Apache-2.0
//! The table of subtypes, and the backstore that is any of them.
//!
//! To add a backstore: write its module, implement [`Store`], add a variant to
//! [`AnyStore`] with its lines in `each!`, and a row to [`SUBTYPES`].
use std::path::PathBuf;

use sgl::Sgl;

use crate::format::qcow;
use crate::protocol::{file, null, ram};

use crate::{Config, Error, Facts, FileStore, Held, NullStore, Provisioning, QcowStore, Store};

/// How a backstore is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Writes are refused, and the image need not be writable.
    pub read_only: bool,
    /// Capacity of the logical unit in bytes. A smaller image is refused; of a larger one the
    /// beginning is used. `None`: the size of the image.
    pub size: Option<u64>,
    /// Directories in which backing files of an image may be; `None`: anywhere.
    pub allowed_backing_dirs: Option<Vec<PathBuf>>,
    /// Which files are locked.
    pub locking: Locking,
    /// The files of the backstore that this one replaces, see [`AnyStore::held`]; an image that
    /// somebody else has open is then refused at once. `None`: it replaces none, and opening such
    /// an image is retried for some seconds.
    pub predecessor: Option<Held>,
}

/// Which files of an image are locked: against writers, or, if they are written, against everybody.
/// A file that is not locked may be written by others while it is read, and keeps nobody from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// The image and its backing files.
    #[default]
    All,
    /// The image; its backing files may be those of a running VM.
    Image,
    /// None.
    None,
}

/// A kind of backstore.
#[derive(Debug)]
pub struct Subtype {
    /// Its name in configuration strings.
    pub name: &'static str,
    /// What follows the name, in words: the property `ConfigDesc` on D-Bus.
    pub config_desc: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    File,
    Null,
    Qcow,
    Ram,
}

/// All subtypes, by name.
pub static SUBTYPES: &[Subtype] = &[
    Subtype {
        name: "file",
        config_desc: "/path/to/file: a file, or a block device, that holds the blocks as they are",
        kind: Kind::File,
    },
    Subtype {
        name: "null",
        config_desc: "(nothing): reads zeroes and forgets what is written",
        kind: Kind::Null,
    },
    Subtype {
        name: "qcow",
        config_desc: "/path/to/image: a qcow2 image (version 1 images can be read)",
        kind: Kind::Qcow,
    },
    Subtype {
        name: "ram",
        config_desc: "/SIZE, such as /64M: memory, which is gone when the daemon ends",
        kind: Kind::Ram,
    },
];

fn find<'a>(config: &'a str) -> Result<(Config<'a>, Kind), Error> {
    let parsed = Config::parse(config)?;
    match SUBTYPES.iter().find(|subtype| subtype.name == parsed.subtype) {
        Some(subtype) => Ok((parsed, subtype.kind)),
        None => {
            let names: Vec<_> = SUBTYPES.iter().map(|subtype| subtype.name).collect();
            let text = format!("no subtype {:?}; there are {}", parsed.subtype, names.join(", "));
            Err(Error::invalid(text, "configuration string", config))
        }
    }
}

/// Whether a configuration string could be opened for writing, as far as can be told without
/// doing so: its form, and that the image is there and is of the right kind. Blocks.
pub fn check(config: &str) -> Result<(), Error> {
    let (config, kind) = find(config)?;
    match kind {
        Kind::File => file::check(&config),
        Kind::Null => null::check(&config),
        Kind::Qcow => qcow::check(&config),
        Kind::Ram => ram::check(&config),
    }
}

/// Opens what a configuration string names, in the engine that runs on this thread.
pub async fn open(config: &str, options: &OpenOptions) -> Result<AnyStore, Error> {
    let (config, kind) = find(config)?;
    Ok(match kind {
        Kind::File => AnyStore::File(file::open(&config, options).await?),
        Kind::Null => AnyStore::Null(null::open(&config, options)?),
        Kind::Qcow => AnyStore::Qcow(qcow::open(&config, options).await?),
        Kind::Ram => AnyStore::File(ram::open(&config, options)?),
    })
}

/// A backstore of any subtype. Which one is decided by a `match` in each call: no call is boxed.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyStore {
    /// `file` and `ram`.
    File(FileStore),
    /// `null`.
    Null(NullStore),
    /// `qcow`.
    Qcow(QcowStore),
}

impl AnyStore {
    /// The files that it has open, for [`OpenOptions::predecessor`].
    pub fn held(&self) -> Held {
        match self {
            AnyStore::File(store) => store.held(),
            AnyStore::Null(_) => Held::default(),
            AnyStore::Qcow(store) => store.held(),
        }
    }
}

/// Evaluates `$call` with the backstore in `$any`.
macro_rules! each {
    ($any:expr, $it:ident => $call:expr) => {
        match $any {
            AnyStore::File($it) => $call,
            AnyStore::Null($it) => $call,
            AnyStore::Qcow($it) => $call,
        }
    };
}

impl Store for AnyStore {
    fn facts(&self) -> Facts {
        each!(self, it => it.facts())
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        each!(self, it => it.read(data, offset).await)
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        each!(self, it => it.write(data, offset, fua).await)
    }

    async fn flush(&self) -> Result<(), Error> {
        each!(self, it => it.flush().await)
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        each!(self, it => it.discard(offset, len).await)
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        each!(self, it => it.write_zeroes(offset, len, may_unmap).await)
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        each!(self, it => it.provisioning(offset, len).await)
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        each!(self, it => it.resize(size).await)
    }

    async fn close(&self) -> Result<(), Error> {
        each!(self, it => it.close().await)
    }
}
