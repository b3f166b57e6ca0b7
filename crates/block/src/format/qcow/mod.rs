// SPDX-License-Identifier: Apache-2.0
//! `qcow//path`: an image in QEMU's qcow2 format, versions 2 and 3, and, for reading, version 1.
//!
//! What is where:
//! - `chain`: the image and its backing files; which of them may be opened.
//! - `header`: checks a qcow2 header before anything else is done with the image.
//! - `image`: a qcow2 image as a store: concurrency, group commit, crash consistency.
//! - `extents`: the cache that lets most reads and writes bypass everything else.
//! - `layered`, `storage`: the `imago` crate, which knows the format, put on `io-engine`.
//! - `counting`: keeps an order of writes that `imago` does not guarantee.
//! - `qcow1`: version 1.
//!
//! Images that are dirty, corrupt or encrypted, or need an unsupported feature, are refused.
//! It is locked as QEMU does, and so are its backing files (for reading), if that is asked for.
mod chain;
mod counting;
mod extents;
mod header;
mod image;
mod layered;
mod qcow1;
mod storage;

use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sgl::Sgl;

use crate::protocol::file::{Held, Place, open_image};
use crate::{Config, Error, ErrorKind, Facts, Locking, OpenOptions, Provisioning, Store};
use chain::{Chain, Kind, Layer};
use counting::Counting;
use image::Qcow2;
use layered::{Imago, Part, Source};
use qcow1::Qcow1;
use storage::Storage;

/// A qcow image of any version.
#[derive(Debug)]
pub struct QcowStore {
    version: Box<Version>,
    held: Held,
}

#[derive(Debug)]
enum Version {
    One { image: Qcow1, path: PathBuf, size: Cell<u64> },
    Two(Qcow2),
}

/// Whether the image of a configuration string could be opened. Takes no lock. Blocks.
pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    let mut chain = Chain::new(Place::find(config.path()?)?, None);
    while let Some(place) = chain.next() {
        let (file, len) = place.open_to_look()?;
        chain.add(file, len)?;
    }
    Ok(())
}

/// Opens the image of a configuration string, in the engine that runs on this thread.
pub(crate) async fn open(config: &Config<'_>, options: &OpenOptions) -> Result<QcowStore, Error> {
    let path = config.path()?;
    let place = Place::find(path)?;
    let version = place.open_to_look().map(|(file, _)| header::probe(&file))?;
    let version = version.map_err(|e| Error::new(e, "open", path))?;
    if version == Some(1) && !options.read_only {
        tracing::warn!("{}: qcow version 1: it can only be read", path.display());
    }
    let read_only = options.read_only || version == Some(1);
    let mut chain = Chain::new(place, options.allowed_backing_dirs.as_deref());
    let mut images = Vec::new();
    while let Some(place) = chain.next() {
        let top = images.is_empty();
        let locked = match options.locking {
            Locking::All => true,
            Locking::Image => top,
            Locking::None => false,
        };
        let old = options.predecessor.as_ref();
        let image = open_image(place, read_only || !top, locked, old).await?;
        let file = image.file.as_fd().try_clone_to_owned();
        let file = file.map_err(|e| Error::new(e, "open", place.path()))?;
        chain.add(File::from(file), image.size)?;
        images.push(image);
    }
    let mut layers = chain.into_layers();
    if let Some(Layer { path, file, len, kind: Kind::Qcow2(header) }) = layers.first_mut()
        && !read_only
    {
        header
            .check_refcounts(file, *len, path)
            .and_then(|()| Ok(header.clear_autoclear(file, path)?))
            .map_err(|kind| Error::new(kind, "open for writing", &*path))?;
    }
    let parts = layers
        .into_iter()
        .zip(&images)
        .enumerate()
        .map(|(depth, (layer, image))| {
            let counting = match &layer.kind {
                Kind::Qcow2(header) if depth == 0 && !read_only => Some(Counting::new(header)),
                _ => None,
            };
            let storage = Storage::new(image, &layer.path, counting);
            Part { storage, kind: layer.kind }
        })
        .collect();
    let version = build(parts, path, read_only, options.size).await?;
    Ok(QcowStore { version: Box::new(version), held: Held::new(images) })
}

async fn build(
    parts: Vec<Part>,
    path: &Path,
    read_only: bool,
    wanted: Option<u64>,
) -> Result<Version, Error> {
    let failed = |e| Error::new(image::kind_of(e, path), "open", path);
    let (version, size) = match parts.first() {
        Some(Part { kind: Kind::Qcow2(header), storage }) => {
            let (header, storage) = (header.clone(), storage.clone());
            let size = header.size;
            let imago = Imago::build(parts, !read_only).await.map_err(failed)?;
            let size = size_of_unit(size, wanted, path)?;
            (Version::Two(Qcow2::new(imago, &header, storage, path, read_only, size)), size)
        }
        _ => match Source::build(parts).await.map_err(failed)? {
            Source::Qcow1(image) => {
                let size = size_of_unit(image.size(), wanted, path)?;
                (Version::One { image: *image, path: path.into(), size: size.into() }, size)
            }
            _ => return Err(Error::invalid("it is not a qcow image", "open", path)),
        },
    };
    tracing::debug!("{}: {size} bytes", path.display());
    Ok(version)
}

/// How many bytes the logical unit has, of an image with `size` bytes.
fn size_of_unit(size: u64, wanted: Option<u64>, path: &Path) -> Result<u64, Error> {
    match wanted {
        None => Ok(size),
        Some(wanted) if wanted <= size => Ok(wanted),
        Some(wanted) => {
            let text = format!(
                "it has {size} bytes, which is less than the {wanted} bytes of the device; enlarge \
                 it (`qemu-img resize {} {wanted}`) or make the device smaller",
                path.display()
            );
            Err(Error::invalid(text, "open", path))
        }
    }
}

/// The error of every operation that would change a version 1 image.
fn read_only(path: &Path, operation: &str) -> Error {
    Error::new(ErrorKind::ReadOnly, operation, path)
}

impl Store for QcowStore {
    fn held(&self) -> Held {
        self.held.clone()
    }

    fn facts(&self) -> Facts {
        match &*self.version {
            Version::One { image, size, .. } => Facts {
                size: size.get(),
                read_only: true,
                optimal_io: image.cluster_size(),
                request_alignment: 1,
                shared: false,
                discard: None,
                write_zeroes: false,
            },
            Version::Two(image) => image.facts(),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        match &*self.version {
            Version::One { image, path, .. } => image.read(data, offset).await.map_err(|e| {
                let operation = format!("read {} bytes at {offset}", data.len());
                Error::new(e, operation, path)
            }),
            Version::Two(image) => image.read(data, offset).await,
        }
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        match &*self.version {
            Version::One { path, .. } => Err(read_only(path, "write")),
            Version::Two(image) => image.write(data, offset, fua).await,
        }
    }

    async fn flush(&self) -> Result<(), Error> {
        match &*self.version {
            Version::One { .. } => Ok(()),
            Version::Two(image) => image.flush().await,
        }
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        match &*self.version {
            Version::One { path, .. } => Err(read_only(path, "discard")),
            Version::Two(image) => image.discard(offset, len).await,
        }
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        match &*self.version {
            Version::One { path, .. } => Err(read_only(path, "write zeroes")),
            Version::Two(image) => image.write_zeroes(offset, len, may_unmap).await,
        }
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        match &*self.version {
            Version::One { image, path, .. } => {
                let mapped = image.is_mapped(offset).await;
                let failed = |e| Error::new(e, format!("look for data at {offset}"), path);
                let (mapped, n) = mapped.map_err(failed)?;
                let kind = if mapped { Provisioning::Mapped } else { Provisioning::Deallocated };
                Ok((kind, n.clamp(1, len.max(1))))
            }
            Version::Two(image) => image.provisioning(offset, len).await,
        }
    }

    async fn resize(&self, wanted: u64) -> Result<(), Error> {
        match &*self.version {
            Version::One { image, path, size } => {
                if wanted > image.size() {
                    return Err(read_only(path, "resize"));
                }
                size.set(wanted);
                Ok(())
            }
            Version::Two(image) => image.resize(wanted).await,
        }
    }

    async fn close(&self) -> Result<(), Error> {
        match &*self.version {
            Version::One { .. } => Ok(()),
            Version::Two(image) => image.close().await,
        }
    }
}
