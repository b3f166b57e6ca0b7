// SPDX-License-Identifier: Apache-2.0
//! The files of an image: itself, its backing file, that one's backing file and so on. Names are
//! resolved, checked and opened here, never by `imago`.
//!
//! A backing file's name comes out of the image, so whoever made the image chose it. Where the
//! configuration names directories, a backing file must be in one of them. The format of a backing
//! file that the image does not name (images made before QEMU 6.1) is probed as QEMU does: a qcow
//! magic number makes it a qcow image, everything else is raw. That is dangerous when the backing
//! file is raw and a guest could write to it: the guest may have written a qcow2 header there.
//! `qemu-img rebase -u -F raw -b BACKING IMAGE` names the format once and for all.
use std::fs::File;
use std::path::{Path, PathBuf};

use super::header::{self, Header};
use super::qcow1;
use crate::Error;
use crate::format::chain::resolve;
use crate::format::name;
use crate::protocol::file::{Identity, Place};

/// How many files a chain may have.
const MAX_DEPTH: usize = 64;
const OPERATION: &str = "open";

/// One file of a chain.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Length of the file in bytes.
    pub(super) len: u64,
    pub(super) kind: Kind,
}

/// What is in a file.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Raw,
    Qcow1(qcow1::Header),
    Qcow2(Header),
}

impl Kind {
    /// log2 of the size of a cluster in bytes; 0 for raw files.
    pub(super) fn cluster_bits(&self) -> u32 {
        match self {
            Kind::Raw => 0,
            Kind::Qcow1(header) => header.cluster_bits,
            Kind::Qcow2(header) => header.cluster_bits,
        }
    }
}

/// A chain that is being followed: [`Chain::next`] says which file to open, [`Chain::add`] takes
/// it and finds out what is below it.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    layers: Vec<Layer>,
    seen: Vec<Identity>,
    next: Option<Next>,
    allowed: Option<&'a [PathBuf]>,
}

#[derive(Debug)]
struct Next {
    place: Place,
    format: Option<String>,
}

impl<'a> Chain<'a> {
    /// A chain that begins with the image at `place`. Backing files have to be in one of the directories
    /// `allowed`; `None` means anywhere.
    pub(super) fn new(place: Place, allowed: Option<&'a [PathBuf]>) -> Self {
        let next = Some(Next { place, format: None });
        Chain { layers: Vec::new(), seen: Vec::new(), next, allowed }
    }

    /// The next file to open; only the first one is ever to be written.
    pub(super) fn next(&self) -> Option<&Place> {
        self.next.as_ref().map(|next| &next.place)
    }

    /// Takes the file that [`Chain::next`] named; `len` is its length in bytes.
    ///
    /// # Errors
    /// When it is of a kind that may not be used, or names something that may not.
    pub(super) fn add(&mut self, file: File, len: u64) -> Result<(), Error> {
        let Some(Next { place, format }) = self.next.take() else {
            return Ok(());
        };
        let (path, identity) = (place.path().to_owned(), place.identity());
        if self.seen.contains(&identity) {
            let text = "its chain of backing files comes back to it";
            return Err(Error::invalid(text, OPERATION, path));
        }
        self.seen.push(identity);
        let top = self.layers.is_empty();
        let kind = identify(&file, len, &path, format.as_deref(), top)?;
        let backing = match &kind {
            Kind::Raw => None,
            Kind::Qcow1(header) => header.backing.as_ref(),
            Kind::Qcow2(header) => header.backing.as_ref(),
        };
        if let Some(backing) = backing {
            if self.layers.len() + 1 == MAX_DEPTH {
                let text = format!("its chain of backing files is longer than {MAX_DEPTH}");
                return Err(Error::invalid(text, OPERATION, path));
            }
            let name = name::parse(&backing.name).map_err(|why| {
                let text = format!("its backing file \"{}\" {why}", backing.name.escape_debug());
                Error::invalid(text, OPERATION, &path)
            })?;
            let below = resolve(&path, "backing file", &name.path, self.allowed)?;
            // As in QEMU, the format that the header tells is above that of the options.
            let format = backing.format.clone().or(name.format);
            self.next = Some(Next { place: below, format });
        }
        self.layers.push(Layer { path, file, len, kind });
        Ok(())
    }

    /// The files, the image itself first.
    pub(super) fn into_layers(self) -> Vec<Layer> {
        self.layers
    }
}

/// Finds out what is in a file, and reads its header.
fn identify(
    file: &File,
    len: u64,
    path: &Path,
    format: Option<&str>,
    top: bool,
) -> Result<Kind, Error> {
    let version = header::probe(file).map_err(|e| Error::new(e, OPERATION, path))?;
    let version = match (format, version) {
        (Some("raw" | "file" | "host_device"), _) => return Ok(Kind::Raw),
        (None, None) if !top => {
            tracing::warn!("{}: taken as raw, because its image names no format", path.display());
            return Ok(Kind::Raw);
        }
        (Some("qcow2"), Some(version)) if version != 1 => version,
        (Some("qcow"), Some(1)) => 1,
        (None, Some(version)) => version,
        (None | Some("qcow2" | "qcow"), _) => {
            return Err(Error::invalid("it is not a qcow image", OPERATION, path));
        }
        (Some(other), _) => {
            let other = other.escape_debug();
            let text = format!(
                "images of format {other} cannot be served; raw, qcow2 and qcow can: qemu-img convert -O \
                 qcow2 makes one"
            );
            return Err(Error::invalid(text, OPERATION, path));
        }
    };
    let kind = if version == 1 {
        qcow1::Header::read(file, path).map(Kind::Qcow1)
    } else {
        Header::read(file, len, path).map(Kind::Qcow2)
    };
    kind.map_err(|kind| Error::new(kind, OPERATION, path))
}
