// SPDX-License-Identifier: Apache-2.0
//! `qcow//path`: an image in QEMU's qcow2 format, versions 2 and 3, and, for reading, version 1.
//!
//! The format of versions 2 and 3, and what survives a crash, is the business of the crate `qcow2`;
//! here it lies on [`Lower`], and becomes a store. Version 1 is in `qcow1`; an image on a store with an
//! exclusive lock in `shared`.
pub(crate) mod qcow1;
pub(crate) mod shared;

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use qcow2::layout::header::Crypt;
use qcow2::{CacheStatistics, Header, Image, Mapping, Options, Parts, Storage};
use sgl::Sgl;

use super::chain::{Format, Opening, Site, capacity};
use super::{chain, secret};
use crate::lower::from_io;
use crate::protocol::file::durable;
use crate::{AnyStore, Discard, Error, ErrorKind, Event, Facts, Held, Lower, Provisioning, Store};

/// Versions 2 and 3.
pub(crate) const QCOW2: Format =
    Format { name: "qcow2", writable: true, needs_secret: false, open };
/// The formats of `qcow//path`.
pub(crate) const NAMES: &[&str] = &["qcow2", "qcow"];
/// Whether an image that lies on another store could be opened.
pub(crate) fn look(lower: Lower, site: Site<'_>) -> Opening<'_, ()> {
    Box::pin(async move {
        let format = chain::format_of(&lower, NAMES, site.path()).await?;
        (format.open)(lower, site).await.map(drop)
    })
}

/// The most pieces of a mapping that are put together for one answer.
const MAX_PIECES: usize = 1024;

/// A qcow2 image, version 2 or 3, on `S`: a [`Lower`], but in a simulation.
#[derive(Debug)]
pub struct QcowStore<S: Storage + 'static = Lower> {
    image: Image<S>,
    path: PathBuf,
    /// Capacity of the disk in bytes, at most that of the image.
    size: Cell<u64>,
    /// Whether what is discarded reads as zeroes.
    zeroes: bool,
    held: Held,
}

fn open(storage: Lower, site: Site<'_>) -> Opening<'_, AnyStore> {
    Box::pin(async move {
        let failed = |e: qcow2::Error| convert(e, site.path());
        let header = Header::read(&storage).await.map_err(failed)?;
        let image = site.options().map(|options| options.image.clone()).unwrap_or_default();
        if site.is_check() && image.snapshot.is_none() {
            let writable = header.check_writable();
            writable.map_err(|kind| failed(qcow2::Error::new(kind, "open")))?;
        }
        let data_file = if header.needs(qcow2::layout::header::incompatible::DATA_FILE) {
            let name = header.data_file();
            let name = name.map_err(|kind| failed(qcow2::Error::new(kind, "open")))?;
            let name = name.ok_or_else(|| {
                let text = "its data is in an external data file, which it does not name";
                let kind = qcow2::ErrorKind::no_data_file(text);
                failed(qcow2::Error::new(kind, "open"))
            })?;
            Some(site.part("external data file", &name).await?)
        } else {
            None
        };
        let backing = match &header.backing {
            Some(backing) => Some(site.backing(&backing.name, backing.format.as_deref()).await?),
            None => None,
        };
        let secret = image.secret.as_ref().map(secret::read).transpose()?;
        if header.crypt != Crypt::None && secret.is_none() {
            return Err(encrypted(&site));
        }
        #[allow(clippy::needless_update, reason = "qcow2's feature `planted` adds a field")]
        let options = Options {
            read_only: site.read_only() || is_only_read(&header),
            cache_bytes: image.cache_size,
            secret,
            discard: true,
            compress: image.compress,
            snapshot: image.snapshot,
            scratch: site.options().is_some_and(|options| options.scratch),
            ..Options::default()
        };
        let parts = Parts { storage, data_file, backing };
        let image = Image::open(parts, &options).await.map_err(failed)?;
        let size = capacity(image.size(), &site)?;
        tracing::debug!("{}: {size} bytes", site.path().display());
        let store = QcowStore::new(image, site.path().to_owned(), site.held());
        store.size.set(size);
        Ok(AnyStore::Qcow(store))
    })
}

/// Whether an image can only be read: that encryption is.
fn is_only_read(header: &Header) -> bool {
    header.crypt == Crypt::Aes
}

/// The error of an image whose passphrase nobody has given.
fn encrypted(site: &Site<'_>) -> Error {
    let way = match site.options() {
        Some(_) => "tcmu-runner takes it from a file (qcow//IMAGE;secret-file=FILE)",
        None => "that of an image below another cannot be given",
    };
    let text = format!(
        "it is encrypted, and no passphrase was given; {way}. `qemu-img convert` makes an image that \
         is not encrypted"
    );
    Error::new(ErrorKind::Unsupported(text), "open", site.path())
}

/// An error of the image at `path`, or of what is below it.
fn convert(error: qcow2::Error, path: &Path) -> Error {
    let named = |text: String| text.replace("PATH", &path.display().to_string());
    let kind = match error.kind {
        qcow2::ErrorKind::Io(e) => match from_io(e) {
            Ok(below) => return below,
            // Of damaged data: it says what to run.
            Err(e) if e.raw_os_error().is_none() => {
                ErrorKind::Io(io::Error::new(e.kind(), named(e.to_string())))
            }
            Err(e) => ErrorKind::Io(e),
        },
        qcow2::ErrorKind::ReadOnly => ErrorKind::ReadOnly,
        qcow2::ErrorKind::Unsupported(text) => ErrorKind::Unsupported(named(text)),
        qcow2::ErrorKind::Invalid(text) => ErrorKind::Invalid(named(text)),
    };
    Error::new(kind, error.operation, path)
}

impl<S: Storage + 'static> QcowStore<S> {
    /// The store of an open image. `path` is for messages; `held` are the files that it has open.
    pub fn new(image: Image<S>, path: PathBuf, held: Held) -> Self {
        // Without the zero flag of version 3, what is discarded shows the backing file.
        let zeroes = image.header().version >= 3 || image.backing().is_none();
        QcowStore { size: Cell::new(image.size()), image, path, zeroes, held }
    }

    fn facts_if(&self, read_only: bool) -> Facts {
        let unit = |bytes| u32::try_from(bytes).unwrap_or(1 << 21);
        let discard = Discard { granularity: unit(self.image.granule_size()), zeroes: true };
        Facts {
            size: self.size.get(),
            read_only,
            optimal_io: unit(self.image.cluster_size()),
            request_alignment: 1,
            shared: false,
            compare_and_write: None,
            discard: (self.zeroes && !read_only).then_some(discard),
            write_zeroes: !read_only && self.image.header().version >= 3,
        }
    }

    /// What it is and can do once it is opened to be written, if it can be.
    fn facts_once_open(&self) -> Facts {
        self.facts_if(is_only_read(self.image.header()))
    }

    /// What its cache of tables has and takes.
    pub fn cache(&self) -> CacheStatistics {
        self.image.cache()
    }

    /// Whether a range is inside the disk, which may be smaller than the image.
    fn bounds(&self, operation: &str, offset: u64, len: u64) -> Result<(), Error> {
        let size = self.size.get();
        if offset.checked_add(len).is_some_and(|end| end <= size) {
            return Ok(());
        }
        let operation = format!("{operation} {len} bytes at {offset}");
        Err(Error::new(ErrorKind::OutOfBounds { size }, operation, &self.path))
    }

    #[cold]
    fn error(&self, error: qcow2::Error) -> Error {
        convert(error, &self.path)
    }

    /// An error of an operation that ends on stable storage.
    #[cold]
    fn lost(&self, error: qcow2::Error) -> Error {
        let operation = durable(&error.operation, self.held.has_lost_data());
        self.error(qcow2::Error { operation, ..error })
    }

    /// Whether there is data at `offset`, here or below, and for how many bytes of at most `len`.
    async fn piece(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let (mapping, n) = self.image.map(offset, len).await.map_err(|e| self.error(e))?;
        let kind = match mapping {
            Mapping::Data { .. } | Mapping::Compressed => Provisioning::Mapped,
            Mapping::Zero { .. } => Provisioning::Deallocated,
            Mapping::Unallocated => {
                let Some(backing) = self.image.backing() else {
                    return Ok((Provisioning::Deallocated, n));
                };
                let below = backing.map(offset, n).await;
                let below = below.map_err(|e| {
                    self.error(qcow2::Error::new(e, format!("look for data at {offset}")))
                });
                let (extent, n) = below?;
                let kind = match extent {
                    qcow2::Extent::Data => Provisioning::Mapped,
                    qcow2::Extent::Zero => Provisioning::Deallocated,
                };
                return Ok((kind, n));
            }
        };
        Ok((kind, n))
    }
}

impl<S: Storage + 'static> Store for QcowStore<S> {
    fn facts(&self) -> Facts {
        self.facts_if(self.image.is_read_only())
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        self.bounds("read", offset, data.len() as u64)?;
        self.image.read(data, offset).await.map_err(|e| self.error(e))
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.bounds("write", offset, data.len() as u64)?;
        self.image.write(data, offset).await.map_err(|e| self.error(e))?;
        if fua { self.image.flush().await.map_err(|e| self.lost(e)) } else { Ok(()) }
    }

    async fn flush(&self) -> Result<(), Error> {
        self.image.flush().await.map_err(|e| self.lost(e))
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        if !self.zeroes && !self.image.is_read_only() {
            let text = "version 2 images with a backing file cannot discard; run `qemu-img amend \
                        -o compat=1.1` on it";
            let kind = ErrorKind::Unsupported(text.into());
            return Err(Error::new(kind, format!("discard {len} bytes at {offset}"), &self.path));
        }
        self.bounds("discard", offset, len)?;
        // The whole of the range has to read as zeroes, as the facts say.
        self.image.write_zeroes(offset, len, true).await.map_err(|e| self.error(e))
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        self.bounds("write zeroes to", offset, len)?;
        self.image.write_zeroes(offset, len, may_unmap).await.map_err(|e| self.error(e))
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let (kind, mut n) = self.piece(offset, len).await?;
        for _ in 1..MAX_PIECES {
            if n >= len {
                break;
            }
            let (next, more) = self.piece(offset + n, len - n).await?;
            if next != kind {
                break;
            }
            n += more;
        }
        Ok((kind, n.clamp(1, len.max(1))))
    }

    /// The image is grown where it is smaller; it is never made smaller, which would destroy data:
    /// `qemu-img resize --shrink` does that.
    async fn resize(&self, size: u64) -> Result<(), Error> {
        if size > self.image.size() {
            let resized = self.image.resize(size).await;
            let operation = || format!("resize to {size} bytes");
            resized.map_err(|e| self.error(qcow2::Error { operation: operation(), ..e }))?;
        }
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        self.image.close().await.map_err(|e| self.lost(e))
    }

    fn held(&self) -> Held {
        self.held.clone()
    }

    /// There are none; meanwhile the image does its own work.
    async fn event(&self) -> Event {
        match self.image.keep_house().await {}
    }
}
