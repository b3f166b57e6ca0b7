// SPDX-License-Identifier: Apache-2.0
//! The store that serves the formats that are only read, and their rows in the table of formats.
//! `image` is an image of any of them.
mod image;

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sgl::Sgl;

use super::chain::{Format, Opening, Site, capacity};
use super::reader::{FileSource, other};
use super::vmdk::Opener;
use crate::lower::{from_io, to_io};
use crate::protocol::file::{Held, Place};
use crate::{
    AnyStore, BoxedStore, Config, Error, ErrorKind, Facts, Lower, PROBED, Provisioning, Store,
};
pub(crate) use image::{Image, Kind};

/// A row of the table of formats.
macro_rules! row {
    ($name:literal, $kind:expr) => {
        Format {
            name: $name,
            writable: false,
            needs_secret: false,
            open: |lower, site| open(lower, site, $kind),
        }
    };
}

pub(crate) const VMDK: Format = row!("vmdk", Kind::Vmdk);
pub(crate) const VHDX: Format = row!("vhdx", Kind::Vhdx);
pub(crate) const VPC: Format = row!("vpc", Kind::Vpc);
pub(crate) const VDI: Format = row!("vdi", Kind::Vdi);
pub(crate) const XZ: Format = row!("xz", Kind::Xz);
pub(crate) const ZST: Format = row!("zst", Kind::Zst);
pub(crate) const GZ: Format = row!("gz", Kind::Gz);

/// An image of a format that is only read.
#[derive(Debug)]
struct ReadOnlyStore {
    kind: Kind,
    image: Box<Image<FileSource>>,
    path: PathBuf,
    size: Cell<u64>,
    held: Held,
}

/// Whether the image of a configuration string looks like one of this format. Opening it could take
/// as long as decompressing it. Blocks.
pub(crate) fn check(config: &Config<'_>, kind: Kind) -> Result<(), Error> {
    let place = Place::find(config.path()?)?;
    let (file, len) = place.open_to_look()?;
    let failed = |kind: ErrorKind| Error::new(kind, "open", place.path());
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(PROBED).min(PROBED)];
    file.read_exact_at(&mut bytes, 0).map_err(|e| failed(e.into()))?;
    if kind.begins_with(&bytes) {
        return Ok(());
    }
    Err(failed(kind.error(other(kind.what()))))
}

/// Opens the files of an image.
struct Files<'a>(&'a Site<'a>);

impl Opener for Files<'_> {
    type Source = FileSource;

    async fn open(&mut self, name: &OsStr) -> Result<FileSource, ErrorKind> {
        let opened = self.0.part("extent", name).await;
        let lower = opened.map_err(|e| ErrorKind::Io(to_io(e)))?;
        let path = self.0.path().with_file_name(name);
        Ok(FileSource { len: lower.size()?, lower, path, watch: self.0.watch() })
    }
}

fn open(lower: Lower, site: Site<'_>, kind: Kind) -> Opening<'_, AnyStore> {
    Box::pin(async move {
        let path = site.path();
        let failed = |error| kind.failed(error, || "open".into(), path);
        let len = lower.size().map_err(|e| failed(e.into()))?;
        let source = FileSource { lower, len, path: path.to_owned(), watch: site.watch() };
        let image = Image::open(kind, source, &mut Files(&site)).await.map_err(failed)?;
        let size = Cell::new(capacity(image.size(), &site)?);
        tracing::debug!("{}: {} bytes", path.display(), size.get());
        let (path, held) = (path.to_owned(), site.held());
        let store = ReadOnlyStore { kind, image: Box::new(image), path, size, held };
        Ok(AnyStore::Boxed(BoxedStore::new(store)))
    })
}

impl Kind {
    /// The error of an operation on the image at `path`, or of a file that it names.
    fn failed(self, error: ErrorKind, operation: impl Fn() -> String, path: &Path) -> Error {
        let own = |kind| Error::new(self.error(kind), operation(), path);
        match error {
            ErrorKind::Io(e) => from_io(e).unwrap_or_else(|e| own(e.into())),
            kind => own(kind),
        }
    }
}

impl ReadOnlyStore {
    /// The error of an operation that would change the image.
    fn refuse(&self, operation: &str) -> Error {
        Error::new(ErrorKind::ReadOnly, operation, &self.path)
    }
}

impl Store for ReadOnlyStore {
    fn facts(&self) -> Facts {
        Facts {
            size: self.size.get(),
            read_only: true,
            optimal_io: self.image.optimal_io(),
            request_alignment: 1,
            shared: false,
            compare_and_write: None,
            discard: None,
            write_zeroes: false,
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        self.image.read(data, offset).await.map_err(|e| {
            let operation = || format!("read {} bytes at {offset}", data.len());
            self.kind.failed(e.into(), operation, &self.path)
        })
    }

    async fn write(&self, _: &Sgl<'_>, _: u64, _: bool) -> Result<(), Error> {
        Err(self.refuse("write"))
    }

    async fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn discard(&self, _: u64, _: u64) -> Result<(), Error> {
        Err(self.refuse("discard"))
    }

    async fn write_zeroes(&self, _: u64, _: u64, _: bool) -> Result<(), Error> {
        Err(self.refuse("write zeroes"))
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let found = self.image.map(offset, len).await;
        found.map_err(|e| {
            let operation = || format!("look for data at {offset}");
            self.kind.failed(e.into(), operation, &self.path)
        })
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        if size > self.image.size() {
            return Err(self.refuse("resize"));
        }
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    fn held(&self) -> Held {
        self.held.clone()
    }
}
