// SPDX-License-Identifier: Apache-2.0
//! The header of version 1 (specification 2.3): eight key slots, each of which has the master key
//! encrypted with a passphrase of its own.
use std::fmt::Display;
use std::ops::Range;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use crate::block_cipher::Algorithm;
use crate::cipher::Cipher;
use crate::digest::Digest;
use crate::kdf::check_iterations;
use crate::sector::{SECTOR, SectorCipher};
use crate::{Error, Secret, split};

pub(crate) const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// The length of the header without the key material, in bytes.
pub const HEADER_LEN: usize = size_of::<Raw>();
/// Header and key material end within so many bytes; what is usual is 2 MiB.
const MAX_LEN: u64 = 16 << 20;
const SLOTS: usize = 8;
const ENABLED: u32 = 0x00ac_71f3;
const DISABLED: u32 = 0x0000_dead;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSlot {
    active: U32,
    iterations: U32,
    salt: [u8; 32],
    /// In sectors.
    offset: U32,
    stripes: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Raw {
    magic: [u8; 6],
    version: U16,
    cipher: [u8; 32],
    mode: [u8; 32],
    digest: [u8; 32],
    /// In sectors.
    payload_offset: U32,
    key_len: U32,
    key_digest: [u8; 20],
    key_digest_salt: [u8; 32],
    key_digest_iterations: U32,
    uuid: [u8; 40],
    slots: [RawSlot; SLOTS],
}

/// A place for the master key. A disabled one has its place, too.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) enabled: bool,
    pub(crate) iterations: u32,
    pub(crate) salt: [u8; 32],
    /// In sectors.
    pub(crate) offset: u32,
    pub(crate) stripes: u32,
}

impl Slot {
    /// Where its key material is, in bytes.
    pub(crate) fn place(&self, key_len: usize) -> Range<u64> {
        let start = u64::from(self.offset) * SECTOR as u64;
        start..start.saturating_add(u64::from(self.stripes).saturating_mul(key_len as u64))
    }
}

/// A header.
#[derive(Clone, Debug)]
pub struct Header {
    pub(crate) cipher: Cipher,
    pub(crate) digest: Digest,
    /// In sectors.
    pub(crate) payload_offset: u32,
    pub(crate) key_len: usize,
    pub(crate) key_digest: [u8; 20],
    pub(crate) key_digest_salt: [u8; 32],
    pub(crate) key_digest_iterations: u32,
    pub(crate) uuid: String,
    pub(crate) slots: [Slot; SLOTS],
}

/// A text that ends with a zero or its field.
fn text<'a>(field: &'a [u8], name: &str) -> Result<&'a str, Error> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let field = field.get(..end).unwrap_or_default();
    match std::str::from_utf8(field) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => Ok(text),
        _ => Err(Error::Invalid(format!(
            "the {name} of its LUKS header is no name: \"{}\"",
            field.escape_ascii()
        ))),
    }
}

/// The error of an algorithm that QEMU or cryptsetup may know.
fn unsupported(what: impl Display) -> Error {
    Error::Unsupported(format!(
        "{what}; `qemu-img convert` with its passphrase makes an image with aes-256 in the mode \
         xts-plain64, and `cryptsetup reencrypt` such a partition"
    ))
}

impl Header {
    /// Parses the first [`HEADER_LEN`] bytes, or more, of what may be anything.
    ///
    /// # Errors
    /// Says which field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (raw, _) = Raw::ref_from_prefix(bytes)
            .map_err(|_| Error::Invalid(format!("its LUKS header has {} bytes", bytes.len())))?;
        if raw.magic != MAGIC {
            let magic = raw.magic.escape_ascii();
            return Err(Error::Invalid(format!("there is no LUKS header: it begins with {magic}")));
        }
        if raw.version.get() != 1 {
            return Err(Error::Invalid(format!(
                "its LUKS header has version {}; only version 1 can be read",
                raw.version
            )));
        }
        let algorithm = text(&raw.cipher, "cipher")?;
        let algorithm = Algorithm::of_name(algorithm).ok_or_else(|| {
            let known = Algorithm::names();
            unsupported(format_args!("its cipher is {algorithm}; known are {known}"))
        })?;
        let mode = text(&raw.mode, "cipher mode")?;
        let cipher = Cipher::of_mode_name(algorithm, mode).ok_or_else(|| {
            let known = Cipher::mode_names();
            unsupported(format_args!("its cipher mode is {mode}; known are {known}"))
        })?;
        let digest = text(&raw.digest, "hash")?;
        let digest = Digest::of_name(digest).ok_or_else(|| {
            let known = Digest::names();
            unsupported(format_args!("its hash is {digest}; known are {known}"))
        })?;
        let key_len = usize::try_from(raw.key_len.get()).unwrap_or(usize::MAX);
        if !cipher.key_lens().contains(&key_len) {
            return Err(unsupported(format_args!(
                "its key has {key_len} bytes; with {cipher} they can be {:?}",
                cipher.key_lens()
            )));
        }
        let mut slots = Vec::new();
        for (number, raw) in raw.slots.iter().enumerate() {
            slots.push(raw.check(number, key_len)?);
        }
        let slots = slots.try_into().map_err(|_| Error::Invalid("it has no slots".into()))?;
        Ok(Header {
            cipher,
            digest,
            payload_offset: raw.payload_offset.get(),
            key_len,
            key_digest: raw.key_digest,
            key_digest_salt: raw.key_digest_salt,
            key_digest_iterations: check_iterations(
                raw.key_digest_iterations.get().into(),
                "the digest of the key",
            )?,
            uuid: text(&raw.uuid, "UUID")?.to_owned(),
            slots,
        })
    }

    /// Its first [`HEADER_LEN`] bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        fn padded<const N: usize>(text: &str) -> [u8; N] {
            let mut field = [0; N];
            field.iter_mut().zip(text.bytes()).for_each(|(byte, new)| *byte = new);
            field
        }
        let raw = Raw {
            magic: MAGIC,
            version: 1.into(),
            cipher: padded(self.cipher.algorithm.name()),
            mode: padded(self.cipher.mode_name()),
            digest: padded(self.digest.name()),
            payload_offset: self.payload_offset.into(),
            // At most 64.
            key_len: u32::try_from(self.key_len).unwrap_or(0).into(),
            key_digest: self.key_digest,
            key_digest_salt: self.key_digest_salt,
            key_digest_iterations: self.key_digest_iterations.into(),
            uuid: padded(&self.uuid),
            slots: self.slots.each_ref().map(|slot| RawSlot {
                active: if slot.enabled { ENABLED } else { DISABLED }.into(),
                iterations: slot.iterations.into(),
                salt: slot.salt,
                offset: slot.offset.into(),
                stripes: slot.stripes.into(),
            }),
        };
        raw.as_bytes().to_vec()
    }

    /// Where the encrypted data of a partition or file begins, in bytes. (In a qcow2 image it is
    /// where the image says.)
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.payload_offset) * SECTOR as u64
    }

    /// The name of what is encrypted.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The algorithm.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// How many bytes, from the header's beginning, [`unlock`](Self::unlock) needs: at most 16 MiB.
    pub fn area_len(&self) -> usize {
        let end = self.areas().map(|area| area.end).max().unwrap_or(0);
        usize::try_from(end).unwrap_or(0).max(HEADER_LEN)
    }

    /// How many rounds of PBKDF2 [`unlock`](Self::unlock) takes for each 20 bytes of a key, with a
    /// passphrase that is wrong.
    pub(crate) fn rounds(&self) -> u64 {
        let slots = self.slots.iter().filter(|slot| slot.enabled);
        slots.map(|slot| u64::from(slot.iterations) + u64::from(self.key_digest_iterations)).sum()
    }

    /// The places in use, in bytes from the header's beginning: whole sectors of key material, at
    /// most 16 MiB in all.
    pub(crate) fn areas(&self) -> impl Iterator<Item = Range<u64>> {
        let slots = self.slots.iter().filter(|slot| slot.enabled);
        slots.map(|slot| {
            let place = slot.place(self.key_len);
            place.start..place.end.next_multiple_of(SECTOR as u64)
        })
    }

    /// Opens the first slot that the passphrase fits. `area` has [`area_len`](Self::area_len) bytes
    /// from the header's beginning. This takes seconds.
    ///
    /// # Errors
    /// [`Error::WrongPassphrase`], and where `area` is too short.
    pub fn unlock(&self, area: &[u8], passphrase: &Secret) -> Result<SectorCipher, Error> {
        let mut tried = 0;
        for (index, place) in self.areas().enumerate() {
            tried += 1;
            let start = usize::try_from(place.start).unwrap_or(usize::MAX);
            let end = usize::try_from(place.end).unwrap_or(usize::MAX);
            let Some(material) = area.get(start..end) else {
                return Err(Error::Invalid(format!(
                    "the key material of its LUKS header ends at {end}, after the {} bytes that \
                     are there",
                    area.len()
                )));
            };
            if let Some(cipher) = self.try_slot(index, material, passphrase)? {
                return Ok(cipher);
            }
        }
        Err(Error::wrong_passphrase(tried))
    }

    /// Opens the slot of one of [`areas`](Self::areas), whose bytes `material` is; `None`: the
    /// passphrase is not that slot's.
    pub(crate) fn try_slot(
        &self,
        index: usize,
        material: &[u8],
        passphrase: &Secret,
    ) -> Result<Option<SectorCipher>, Error> {
        let Some(slot) = self.slots.iter().filter(|slot| slot.enabled).nth(index) else {
            return Ok(None);
        };
        let mut material = Zeroizing::new(material.to_vec());
        self.slot_cipher(slot, passphrase)?.decrypt(0, &mut material);
        let len = (slot.stripes as usize).saturating_mul(self.key_len);
        let key = split::merge(material.get(..len).unwrap_or_default(), self.key_len, self.digest);
        let is_right = self.digest_of(&key) == self.key_digest;
        is_right.then(|| SectorCipher::new(self.cipher, &key)).transpose()
    }

    /// The cipher of a slot's key material.
    pub(crate) fn slot_cipher(&self, slot: &Slot, secret: &Secret) -> Result<SectorCipher, Error> {
        let mut key = Zeroizing::new(vec![0; self.key_len]);
        self.digest.pbkdf2(secret.expose(), &slot.salt, slot.iterations, &mut key);
        SectorCipher::new(self.cipher, &key)
    }

    /// By which the right key is known.
    pub(crate) fn digest_of(&self, key: &[u8]) -> [u8; 20] {
        let mut digest = [0; 20];
        let rounds = self.key_digest_iterations;
        self.digest.pbkdf2(key, &self.key_digest_salt, rounds, &mut digest);
        digest
    }
}

impl RawSlot {
    fn check(&self, number: usize, key_len: usize) -> Result<Slot, Error> {
        let enabled = match self.active.get() {
            ENABLED => true,
            DISABLED => false,
            other => {
                return Err(Error::Invalid(format!(
                    "the state of key slot {number} of its LUKS header is {other:#x}"
                )));
            }
        };
        let slot = Slot {
            enabled,
            iterations: self.iterations.get(),
            salt: self.salt,
            offset: self.offset.get(),
            stripes: self.stripes.get(),
        };
        if enabled {
            check_iterations(slot.iterations.into(), &format!("key slot {number}"))?;
            let place = slot.place(key_len);
            if slot.stripes == 0 || place.start < HEADER_LEN as u64 || place.end > MAX_LEN {
                return Err(Error::Invalid(format!(
                    "the key material of slot {number} of its LUKS header has {} stripes at sector \
                     {}; it has to be after the header and end within {MAX_LEN} bytes",
                    slot.stripes, slot.offset
                )));
            }
        }
        Ok(slot)
    }
}
