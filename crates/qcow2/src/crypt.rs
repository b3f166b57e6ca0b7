// SPDX-License-Identifier: Apache-2.0
//! Encrypted guest data. Only what is in clusters of the image or of its external data file is
//! encrypted; tables, compressed clusters and the backing store are not. Sectors of 512 bytes are
//! encrypted by number: of the place in the file with LUKS, of the guest with the older AES method.
//!
//! Rule: an unwritten place in the file reads as zeroes, which decrypt to noise. So a cluster
//! (subcluster) that is mapped has been written wholly before, and is on stable storage: to the
//! module `write`, no place of an encrypted image is zeroed.
use std::ops::Range;

use luks::{SECTOR, Secret, SectorCipher};
use sgl::Sgl;

use crate::ErrorKind;
use crate::error::Result;
use crate::layout::header::{self, Crypt, Header, extension};
use crate::storage::Storage;

/// The most bytes that a LUKS header takes.
const MAX_LUKS_LEN: u64 = 16 << 20;

/// An image's cipher.
pub(crate) struct Encryption {
    cipher: SectorCipher,
    /// Whether sectors are numbered as the guest's.
    by_guest: bool,
}

/// Where in the file the LUKS header is, in bytes, or what is wrong.
pub(crate) fn luks_area(header: &Header) -> std::result::Result<Option<Range<u64>>, String> {
    if header.crypt != Crypt::Luks {
        return Ok(None);
    }
    let found = header.extensions.iter();
    let found = found.filter(|(kind, _)| *kind == extension::FULL_DISK_ENCRYPTION);
    let found = found.map(|(_, data)| data).next();
    let Some((offset, len)) = found.and_then(|data| {
        let (offset, rest) = data.split_first_chunk()?;
        let len = rest.first_chunk()?;
        Some((u64::from_be_bytes(*offset), u64::from_be_bytes(*len)))
    }) else {
        return Err("it is encrypted, and does not say where its LUKS header is".into());
    };
    let aligned = offset > 0 && offset.is_multiple_of(header.cluster_size());
    if !aligned || len > MAX_LUKS_LEN || offset > i64::MAX.unsigned_abs() {
        return Err(format!(
            "its LUKS header has {len} bytes at {offset:#x}; it has to begin at a cluster and to \
             have at most {MAX_LUKS_LEN}"
        ));
    }
    Ok(Some(offset..offset + len))
}

/// Opens the cipher of an image, if it has one. The key is derived on the pool of threads.
pub(crate) async fn open(
    storage: &impl Storage,
    header: &Header,
    secret: Option<&Secret>,
    read_only: bool,
) -> Result<Option<Encryption>> {
    let secret = match (header.crypt, secret) {
        (Crypt::None, None) => return Ok(None),
        (Crypt::None, Some(_)) => {
            return Err(ErrorKind::invalid("it is not encrypted, and a passphrase was given"));
        }
        (_, None) => {
            return Err(ErrorKind::Unsupported(
                "it is encrypted, and no passphrase was given".into(),
            ));
        }
        (_, Some(secret)) => secret,
    };
    if !read_only && header.crypt == Crypt::Aes {
        return Err(ErrorKind::Unsupported(
            "its encryption (AES, method 1) is only for reading: `qemu-img convert` makes an image \
             with LUKS of it"
                .into(),
        ));
    }
    if !read_only && header.autoclear & header::autoclear::RAW_DATA_FILE != 0 {
        return Err(ErrorKind::Unsupported(
            "it is encrypted in a raw external data file, which is only for reading: `qemu-img \
             convert` makes an image without one of it"
                .into(),
        ));
    }
    let Some(area) = luks_area(header).map_err(ErrorKind::unreadable)? else {
        let cipher = SectorCipher::qcow2_aes(secret.expose()).map_err(wrong)?;
        return Ok(Some(Encryption { cipher, by_guest: true }));
    };
    let head = read(storage, area.start, luks::HEADER_LEN).await?;
    let luks = luks::Header::parse(&head).map_err(wrong)?;
    let needed = luks.area_len();
    if needed as u64 > area.end - area.start {
        return Err(ErrorKind::unreadable(format_args!(
            "its LUKS header has {} bytes, and {needed} are in use",
            area.end - area.start
        )));
    }
    let bytes = read(storage, area.start, needed).await?;
    let secret = secret.clone();
    let cipher = io_engine::unblock(move || luks.unlock(&bytes, &secret)).await.map_err(wrong)?;
    Ok(Some(Encryption { cipher, by_guest: false }))
}

fn wrong(error: luks::Error) -> ErrorKind {
    match error {
        luks::Error::Unsupported(text) => ErrorKind::Unsupported(text),
        luks::Error::Invalid(text) => ErrorKind::unreadable(text),
        other => ErrorKind::Invalid(other.to_string()),
    }
}

async fn read(storage: &impl Storage, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    storage.read(&Sgl::from_slice(&mut bytes), offset).await?;
    Ok(bytes)
}

/// The bytes that are encrypted or decrypted between two copies.
const PIECE: usize = 8 * SECTOR;

impl Encryption {
    fn sector(&self, host: u64, pos: u64) -> u64 {
        (if self.by_guest { pos } else { host }) / SECTOR as u64
    }

    /// Changes `data`, whole sectors, by the piece, from one list to another.
    fn each(&self, from: &Sgl<'_>, to: &Sgl<'_>, first: u64, change: impl Fn(u64, &mut [u8])) {
        let mut piece = [0; PIECE];
        for at in (0..from.len()).step_by(PIECE) {
            let there = from.read_at(at, &mut piece);
            let piece = piece.get_mut(..there).unwrap_or_default();
            change(first + (at / SECTOR) as u64, piece);
            to.write_at(at, piece);
        }
    }

    /// Reads `data`, which is at `host` in the file and at `pos` for the guest.
    pub(crate) async fn read(
        &self,
        storage: &impl Storage,
        data: &Sgl<'_>,
        host: u64,
        pos: u64,
    ) -> Result<()> {
        let before = usize::try_from(host % SECTOR as u64).unwrap_or(0);
        let len = (before + data.len()).next_multiple_of(SECTOR);
        let host = host - before as u64;
        let first = self.sector(host, pos - before as u64);
        let decrypt = |sector, piece: &mut [u8]| self.cipher.decrypt(sector, piece);
        if len == data.len() {
            storage.read(data, host).await?;
            self.each(data, data, first, decrypt);
        } else {
            let whole = Sgl::zeroed(len);
            storage.read(&whole, host).await?;
            self.each(&whole, &whole, first, decrypt);
            whole.slice(before..before + data.len()).copy_to(data);
        }
        Ok(())
    }

    /// Writes `data`, whole sectors, to `host` in the file, which is at `pos` for the guest.
    pub(crate) async fn write(
        &self,
        storage: &impl Storage,
        data: &Sgl<'_>,
        host: u64,
        pos: u64,
    ) -> Result<()> {
        let sector = SECTOR as u64;
        if !host.is_multiple_of(sector) || !data.len().is_multiple_of(SECTOR) {
            let text = "it is encrypted, and written by sectors of 512 bytes";
            return Err(ErrorKind::Unsupported(text.into()));
        }
        let encrypted = Sgl::zeroed(data.len());
        let encrypt = |sector, piece: &mut [u8]| self.cipher.encrypt(sector, piece);
        self.each(data, &encrypted, self.sector(host, pos), encrypt);
        Ok(storage.write(&encrypted, host).await?)
    }
}
