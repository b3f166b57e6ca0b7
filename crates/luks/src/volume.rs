// SPDX-License-Identifier: Apache-2.0
//! A volume: what a device, or a file, has a LUKS header of either version for. It is read from a
//! [`Source`], which may be anything; then its slots are tried with a passphrase, one by one, because
//! each takes seconds and belongs on a thread that may block.
//!
//! Nothing here writes: a damaged copy of a header of version 2 is told of, and left to `cryptsetup`,
//! which restores it from the other one.
use std::io;
use std::ops::Range;

use crate::header::{self, Header};
use crate::sector::{SECTOR, SectorCipher};
use crate::v2::binary::{self, Binary, Copy};
use crate::v2::metadata::Metadata;
use crate::{Cipher, Error, Secret};

/// What a header is read from.
#[allow(async_fn_in_trait, reason = "whoever reads runs it on one thread")]
pub trait Source {
    /// The `len` bytes from `offset` on; past the end they are zero.
    async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

/// Which copies of a header of version 2 are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// All that there are; of version 1 there is one.
    All,
    /// The one at the beginning is not.
    NoPrimary,
    /// The other one is not.
    NoSecondary,
}

/// Where the encrypted data are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Of the first byte.
    pub offset: u64,
    /// `None`: up to the end of the device.
    pub len: Option<u64>,
    /// Of a sector: 512, 1024, 2048 or 4096.
    pub sector: usize,
    /// The number of the first sector, in units of 512 bytes.
    pub first: u64,
}

/// A volume.
#[derive(Debug)]
pub struct Volume {
    uuid: String,
    copies: Copies,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    One(Box<Header>),
    Two(Metadata),
}

impl Volume {
    /// Reads the header: at most 8 MiB and a little more.
    ///
    /// # Errors
    /// Says what is wrong with it, or not supported.
    pub async fn read(source: &impl Source) -> Result<Self, Error> {
        let head = source.read(0, binary::LEN).await?;
        let begins = |copy: Copy| head.starts_with(copy.magic());
        let version = head.get(6..8).and_then(|bytes| bytes.first_chunk());
        match version.map(|bytes| u16::from_be_bytes(*bytes)) {
            Some(1) if begins(Copy::Primary) => {
                let header = Header::parse(&head)?;
                let uuid = header.uuid().to_owned();
                return Ok(Volume { uuid, copies: Copies::All, kind: Kind::One(Box::new(header)) });
            }
            Some(2) => {}
            Some(version) if begins(Copy::Primary) => {
                return Err(Error::Unsupported(format!(
                    "its LUKS header has version {version}; known are 1 and 2"
                )));
            }
            _ => {}
        }
        let (binary, copies) = find(source, &head).await?;
        let metadata = Metadata::parse(&binary)?;
        Ok(Volume { uuid: binary.uuid, copies, kind: Kind::Two(metadata) })
    }

    /// The name of what is encrypted, as the header has it: it may be any text.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Which copies of the header are whole.
    pub fn copies(&self) -> Copies {
        self.copies
    }

    /// How the data are encrypted.
    pub fn cipher(&self) -> Cipher {
        match &self.kind {
            Kind::One(header) => header.cipher(),
            Kind::Two(metadata) => metadata.cipher,
        }
    }

    /// Where the data are.
    pub fn payload(&self) -> Payload {
        match &self.kind {
            Kind::One(header) => {
                let offset = header.payload_offset();
                Payload { offset, len: None, sector: SECTOR, first: 0 }
            }
            Kind::Two(metadata) => Payload {
                offset: metadata.offset,
                len: metadata.len,
                sector: metadata.sector,
                first: metadata.tweak,
            },
        }
    }

    /// How many bytes the header takes, key material included. The data of a volume that has its
    /// header in itself begin behind it.
    pub fn header_len(&self) -> u64 {
        match &self.kind {
            Kind::One(header) => header.area_len() as u64,
            Kind::Two(metadata) => metadata.header_len,
        }
    }

    /// Where the key material of each slot is that can be tried, in bytes from the header's
    /// beginning, in the order in which they are to be tried. At most 16 MiB in all.
    pub fn areas(&self) -> Vec<Range<u64>> {
        match &self.kind {
            Kind::One(header) => header.areas().collect(),
            Kind::Two(metadata) => metadata.slots.iter().map(|slot| slot.area.clone()).collect(),
        }
    }

    /// Tries the slot of the area `index` of [`areas`](Self::areas), whose bytes `material` is;
    /// `None`: the passphrase is not that slot's. Takes seconds, and up to 1 GiB of memory.
    ///
    /// # Errors
    /// Where there is no such memory.
    pub fn try_slot(
        &self,
        index: usize,
        material: &[u8],
        passphrase: &Secret,
    ) -> Result<Option<SectorCipher>, Error> {
        match &self.kind {
            Kind::One(header) => header.try_slot(index, material, passphrase),
            Kind::Two(metadata) => match metadata.slots.get(index) {
                Some(slot) => metadata.try_slot(slot, material, passphrase),
                None => Ok(None),
            },
        }
    }

    /// The error of a passphrase that opens no slot.
    pub fn wrong_passphrase(&self) -> Error {
        let left_out = match &self.kind {
            Kind::Two(metadata) if !metadata.left_out.is_empty() => {
                format!(" (not tried: {})", metadata.left_out.join("; "))
            }
            _ => String::new(),
        };
        Error::WrongPassphrase { tried: self.areas().len(), left_out }
    }

    /// How much trying all slots takes, in rounds of a hash or KiB of memory written.
    pub(crate) fn cost(&self) -> u64 {
        match &self.kind {
            Kind::One(header) => header.rounds(),
            Kind::Two(metadata) => metadata.cost(),
        }
    }
}

/// The copy of a header of version 2 that counts: of two that are whole, the one that was written
/// later. `head` is what the device begins with.
async fn find(source: &impl Source, head: &[u8]) -> Result<(Binary, Copies), Error> {
    let mut why = None;
    let mut primary = None;
    if let Some(size) = binary::size(head, Copy::Primary) {
        let bytes = source.read(0, length(size)).await?;
        match binary::parse(&bytes, Copy::Primary, 0) {
            Ok(binary) => primary = Some(binary),
            Err(e) => why = Some(e),
        }
    }
    let Some(primary) = primary else {
        for offset in binary::SIZES {
            if let Some(secondary) = secondary(source, offset).await? {
                return Ok((secondary, Copies::NoPrimary));
            }
        }
        return Err(no_copy(why, head));
    };
    Ok(match secondary(source, primary.size).await? {
        Some(secondary) if secondary.sequence > primary.sequence => (secondary, Copies::All),
        Some(_) => (primary, Copies::All),
        None => (primary, Copies::NoSecondary),
    })
}

/// The second copy, if a whole one is there, in bytes from the header's beginning.
async fn secondary(source: &impl Source, offset: u64) -> Result<Option<Binary>, Error> {
    let head = source.read(offset, binary::LEN).await?;
    // A copy is as long as the one before it.
    if binary::size(&head, Copy::Secondary) != Some(offset) {
        return Ok(None);
    }
    let bytes = source.read(offset, length(offset)).await?;
    Ok(binary::parse(&bytes, Copy::Secondary, offset).ok())
}

/// The error of a device on which there is no whole copy.
fn no_copy(why: Option<Error>, head: &[u8]) -> Error {
    let magic = head.get(..header::MAGIC.len()).unwrap_or_default();
    match why {
        Some(Error::Unsupported(text)) => Error::Unsupported(text),
        Some(e) => Error::Invalid(format!(
            "both copies of its LUKS header are damaged, the first because {e}; `cryptsetup \
             luksHeaderRestore` takes one from a backup"
        )),
        None if magic == header::MAGIC => {
            Error::Invalid("both copies of its LUKS header are damaged".into())
        }
        None => Error::Invalid(format!(
            "there is no LUKS header: it begins with {}",
            magic.escape_ascii()
        )),
    }
}

/// A length of at most 4 MiB.
fn length(len: u64) -> usize {
    usize::try_from(len).unwrap_or(0)
}
