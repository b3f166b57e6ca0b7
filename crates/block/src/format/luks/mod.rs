// SPDX-License-Identifier: Apache-2.0
//! `luks//path`, `luks/SUBTYPE/REST`: a LUKS volume, version 1 or 2, on a file or any other store.
//!
//! The headers and ciphers are the business of the crate `luks`. Here the header is read, from the
//! volume itself or from a file of its own, a key slot is opened with the passphrase, and the volume
//! becomes a store ([`store`]). Headers are never written: `cryptsetup` makes volumes, changes their
//! passphrases and restores damaged headers.
mod store;

use std::io;
use std::path::Path;
use std::sync::Arc;

use luks::{Copies, Payload, SectorCipher, Source, Volume};
use qcow2::Storage as _;
use sgl::Sgl;

use super::chain::{Format, Opening, Site};
use super::secret;
use crate::lower::from_io;
use crate::{AnyStore, BoxedStore, Error, ErrorKind, ImageOptions, Lower};
use store::{LuksStore, Parts};

pub(crate) const LUKS: Format = Format { name: "luks", writable: true, needs_secret: true, open };
/// The format of `luks//path`.
pub(crate) const NAMES: &[&str] = &["luks"];

/// What is read of a header.
struct Header<'a>(&'a Lower);

impl Source for Header<'_> {
    async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read(&Sgl::from_slice(&mut bytes), offset).await?;
        Ok(bytes)
    }
}

/// Whether a volume could be opened, but for its passphrase, which takes seconds to try.
pub(crate) fn look(lower: Lower, site: Site<'_>) -> Opening<'_, ()> {
    Box::pin(async move {
        let found = Found::read(&lower, &site).await?;
        found.check_size(&lower, &site)?;
        passphrase(&site)?;
        Ok(())
    })
}

fn open(lower: Lower, site: Site<'_>) -> Opening<'_, AnyStore> {
    Box::pin(async move {
        let path = site.path();
        let found = Found::read(&lower, &site).await?;
        let (volume, payload) = (found.volume.clone(), found.volume.payload());
        let most = found.check_size(&lower, &site)?;
        let size = capacity(most, payload, &site)?;
        let secret = passphrase(&site)?;
        let header = found.header.as_ref().unwrap_or(&lower);
        let cipher = unlock(&volume, header, secret).await.map_err(|e| convert(e, path))?;
        tracing::debug!("{}: {size} bytes, {}", path.display(), volume.cipher());
        let store = LuksStore::new(Parts {
            cipher,
            payload,
            size,
            read_only: site.read_only() || found.is_damaged(path),
            discards: options(&site).discard,
            path: path.to_owned(),
            held: site.held(),
            lower,
        });
        Ok(AnyStore::Boxed(BoxedStore::new(store)))
    })
}

/// A volume whose header has been read.
struct Found {
    volume: Arc<Volume>,
    /// Where the header is, if it is not in the volume itself.
    header: Option<Lower>,
}

impl Found {
    async fn read(lower: &Lower, site: &Site<'_>) -> Result<Self, Error> {
        let (header, path) = match options(site).header {
            Some(path) => (Some(site.beside(&path).await?), path),
            None => (None, site.path().to_owned()),
        };
        let read = Volume::read(&Header(header.as_ref().unwrap_or(lower))).await;
        let volume = read.map_err(|e| convert(e, &path))?;
        Ok(Found { volume: Arc::new(volume), header })
    }

    /// How many bytes of data the volume has room for.
    fn check_size(&self, lower: &Lower, site: &Site<'_>) -> Result<u64, Error> {
        let path = site.path();
        let len = lower.size().map_err(|e| Error::new(e, "find its length", path))?;
        let Payload { offset, len: fixed, sector, .. } = self.volume.payload();
        let header_len = self.volume.header_len();
        if self.header.is_none() && offset < header_len {
            let text = format!(
                "its LUKS header takes {header_len} bytes and says that the data begin at {offset}: \
                 they are in another device, or the header is damaged"
            );
            return Err(Error::invalid(text, "open", path));
        }
        let there = len.saturating_sub(offset) / sector as u64 * sector as u64;
        let wanted = fixed.unwrap_or(sector as u64);
        if there < wanted {
            let text = format!(
                "it has {len} bytes, and its LUKS header says that the data begin at {offset} and \
                 have {wanted} bytes at least: it was cut off"
            );
            return Err(Error::invalid(text, "open", path));
        }
        Ok(fixed.unwrap_or(there))
    }

    /// Whether its first header is damaged, so that it is only to be read; this is told.
    fn is_damaged(&self, path: &Path) -> bool {
        let path = path.display();
        match self.volume.copies() {
            Copies::All => false,
            Copies::NoSecondary => {
                tracing::warn!(
                    "{path}: the second copy of its LUKS header is damaged; `cryptsetup repair` \
                     restores it"
                );
                false
            }
            Copies::NoPrimary => {
                tracing::warn!(
                    "{path}: the first copy of its LUKS header is damaged, the second one is used, \
                     and the volume can only be read; `cryptsetup repair` restores it"
                );
                true
            }
        }
    }
}

fn options(site: &Site<'_>) -> ImageOptions {
    site.options().map(|options| options.image.clone()).unwrap_or_default()
}

/// Reads the passphrase from where the options say that it is.
fn passphrase(site: &Site<'_>) -> Result<luks::Secret, Error> {
    match &options(site).secret {
        Some(source) => secret::read(source),
        None => {
            let text = "it is encrypted, and no passphrase was given: ;secret-file=FILE, \
                        ;secret-credential=NAME or ;secret-fd=N says where it is";
            Err(Error::new(ErrorKind::Unsupported(text.into()), "open", site.path()))
        }
    }
}

/// The size of the disk, where the device wants another one than the volume's, which is `most`.
fn capacity(most: u64, payload: Payload, site: &Site<'_>) -> Result<u64, Error> {
    let Some(wanted) = site.options().and_then(|options| options.size) else { return Ok(most) };
    let invalid = |text| Err(Error::invalid(text, "open", site.path()));
    if !wanted.is_multiple_of(payload.sector as u64) {
        return invalid(format!(
            "the device has {wanted} bytes, which is no multiple of the volume's sectors of {} bytes",
            payload.sector
        ));
    }
    if wanted > most {
        return invalid(format!(
            "it has room for {most} bytes behind its LUKS header, which is less than the {wanted} \
             bytes of the device; make it longer by {} bytes, or the device smaller",
            wanted - most
        ));
    }
    Ok(wanted)
}

/// Opens the first slot that the passphrase fits. Keys are derived on the pool of threads.
async fn unlock(
    volume: &Arc<Volume>,
    header: &Lower,
    secret: luks::Secret,
) -> Result<SectorCipher, luks::Error> {
    for (index, area) in volume.areas().into_iter().enumerate() {
        // At most 16 MiB.
        let len = usize::try_from(area.end - area.start).unwrap_or(0);
        let material = Header(header).read(area.start, len).await?;
        let (volume, secret) = (volume.clone(), secret.clone());
        let tried = io_engine::unblock(move || volume.try_slot(index, &material, &secret)).await;
        if let Some(cipher) = tried? {
            return Ok(cipher);
        }
    }
    Err(volume.wrong_passphrase())
}

/// An error of the header at `path`, or of what it lies on.
fn convert(error: luks::Error, path: &Path) -> Error {
    let kind = match error {
        luks::Error::Io(e) => match from_io(e) {
            Ok(below) => return below,
            Err(e) => ErrorKind::Io(e),
        },
        luks::Error::Unsupported(text) => ErrorKind::Unsupported(text),
        luks::Error::Memory(_) => ErrorKind::Io(io::Error::from_raw_os_error(libc::ENOMEM)),
        other => ErrorKind::Invalid(other.to_string()),
    };
    Error::new(kind, "open", path)
}
