// SPDX-License-Identifier: Apache-2.0
//! What a header of version 2 says, judged: the key slots that can be tried, the one segment of
//! encrypted data, and by which digest the right key is known. Whatever this crate does not do is
//! refused here: integrity, several segments, reencryption under way, requirements that are unknown.
use std::ops::Range;

use zeroize::Zeroizing;

use super::binary::Binary;
use super::json::{self, Text, number};
use crate::cipher::Cipher;
use crate::digest::Digest;
use crate::kdf::{Costs, Kdf, Variant};
use crate::sector::{SECTOR, SectorCipher, is_sector_len};
use crate::{Error, Secret, split};

/// The most stripes of a key; `cryptsetup` knows no other number.
const MAX_STRIPES: u64 = 4000;
/// The most bytes that the areas of all key slots may take (specification 2.3).
const MAX_AREAS: u64 = 128 << 20;
/// Key slots with this priority are only tried where they are named.
const IGNORED: u64 = 0;
/// The priority of those that name none.
const NORMAL: u64 = 1;
/// The lengths that the digest of a key can have, in bytes.
const DIGEST_LENS: Range<usize> = 16..65;
/// How much of a name from the text is shown.
const SHOWN: usize = 48;

/// What a header of version 2 says.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    /// Both copies and the areas of the key slots, in bytes.
    pub(crate) header_len: u64,
    pub(crate) cipher: Cipher,
    /// Of a sector, in bytes.
    pub(crate) sector: usize,
    /// Where the data begin, in bytes.
    pub(crate) offset: u64,
    /// Of the data, in bytes; `None`: they go to the end of the device.
    pub(crate) len: Option<u64>,
    /// What is added to the number of a sector, in sectors of 512 bytes.
    pub(crate) tweak: u64,
    /// In the order in which they are tried.
    pub(crate) slots: Vec<Slot>,
    /// Why others are not tried.
    pub(crate) left_out: Vec<String>,
    verifier: Verifier,
}

/// A key slot that can be tried.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    priority: u64,
    /// Where its key material is, in bytes: whole sectors.
    pub(crate) area: Range<u64>,
    cipher: Cipher,
    /// Of the key that the material is encrypted with, in bytes.
    area_key_len: usize,
    stripes: usize,
    digest: Digest,
    kdf: Kdf,
}

/// By what the right key is known.
#[derive(Clone, Debug)]
struct Verifier {
    kdf: Kdf,
    digest: Vec<u8>,
    key_len: usize,
}

/// A name from the text, which may be hostile, for a message.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(SHOWN).collect();
    format!("\"{}\"", short.escape_debug())
}

fn invalid(text: String) -> Error {
    Error::Invalid(text)
}

/// The error of what cryptsetup may know.
fn unsupported(text: String) -> Error {
    Error::Unsupported(text)
}

/// A field that this type of object has to have.
fn needed<T>(field: Option<T>, name: &str, what: &str) -> Result<T, Error> {
    field.ok_or_else(|| invalid(format!("{what} of its LUKS header has no \"{name}\"")))
}

fn cipher_of(name: &str, what: &str) -> Result<Cipher, Error> {
    Cipher::of_name(name).ok_or_else(|| {
        unsupported(format!(
            "the cipher of {what} is {}; known are {} with the modes {}: `cryptsetup reencrypt \
             --cipher aes-xts-plain64` changes it",
            shown(name),
            crate::block_cipher::Algorithm::names(),
            Cipher::mode_names()
        ))
    })
}

fn digest_of(name: &str, what: &str) -> Result<Digest, Error> {
    Digest::of_name(name).ok_or_else(|| {
        let known = Digest::names();
        unsupported(format!("the hash of {what} is {}; known are {known}", shown(name)))
    })
}

/// The length of a key, in bytes.
fn key_len(len: u64, cipher: Cipher, what: &str) -> Result<usize, Error> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if cipher.key_lens().contains(&len) {
        return Ok(len);
    }
    let lens = cipher.key_lens();
    Err(unsupported(format!(
        "the key of {what} has {len} bytes; with {cipher} they can be {lens:?}"
    )))
}

impl Metadata {
    /// Reads and judges the text.
    ///
    /// # Errors
    /// Says what is wrong, or not supported.
    pub(crate) fn parse(binary: &Binary) -> Result<Self, Error> {
        let text: Text = serde_json::from_slice(&binary.json)
            .map_err(|e| invalid(format!("the JSON of its LUKS header: {e}")))?;
        refuse_requirements(&text.config)?;
        let (segment, cipher) = segment(&text.segments.0)?;
        let sector = sector_of(segment)?;
        let (offset, len) = place_of(segment, sector)?;
        let (slots_of_digest, verifier) = verifier(&text.digests.0)?;
        let areas = areas(binary.size, text.config.keyslots_size.0)?;
        let (mut slots, mut left_out, mut key_lens) = (Vec::new(), Vec::new(), Vec::new());
        for (number, slot) in &text.keyslots.0 {
            if !slots_of_digest.contains(number) {
                continue;
            }
            match Slot::of(*number, slot, cipher, &areas) {
                Ok((slot, key_len)) if slot.priority != IGNORED => {
                    slots.push(slot);
                    key_lens.push(key_len);
                }
                Ok(_) => left_out.push(format!("key slot {number} has the priority \"ignore\"")),
                Err(Error::Unsupported(text)) => left_out.push(text),
                Err(e) => return Err(e),
            }
        }
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.priority));
        key_lens.dedup();
        let verifier = match *key_lens {
            [key_len] => Verifier { key_len, ..verifier },
            [] if left_out.is_empty() => {
                return Err(invalid("its LUKS header has no key slot that is in use".into()));
            }
            [] => return Err(unsupported(left_out.join("; "))),
            _ => return Err(invalid("the key slots have keys of several lengths".into())),
        };
        let tweak = segment.iv_tweak.map_or(0, |tweak| tweak.0);
        let header_len = areas.end;
        Ok(Metadata { header_len, cipher, sector, offset, len, tweak, slots, left_out, verifier })
    }

    /// What [`try_slot`](Self::try_slot) takes, see [`Kdf::cost`], for all slots together.
    pub(crate) fn cost(&self) -> u64 {
        let slots = self.slots.iter().map(|slot| slot.kdf.cost() + self.verifier.kdf.cost());
        slots.sum()
    }

    /// Opens a slot with its key material, which is what its area has; `None`: the passphrase is not
    /// that slot's. Takes seconds, and up to 1 GiB of memory.
    ///
    /// # Errors
    /// Where there is no such memory.
    pub(crate) fn try_slot(
        &self,
        slot: &Slot,
        material: &[u8],
        secret: &Secret,
    ) -> Result<Option<SectorCipher>, Error> {
        let mut area_key = Zeroizing::new(vec![0; slot.area_key_len]);
        slot.kdf.derive(secret.expose(), &mut area_key)?;
        let mut material = Zeroizing::new(material.to_vec());
        SectorCipher::new(slot.cipher, &area_key)?.decrypt(0, &mut material);
        let key_len = self.verifier.key_len;
        let stripes = material.get(..slot.stripes * key_len).unwrap_or_default();
        let key = split::merge(stripes, key_len, slot.digest);
        let mut digest = vec![0; self.verifier.digest.len()];
        self.verifier.kdf.derive(&key, &mut digest)?;
        if digest != self.verifier.digest {
            return Ok(None);
        }
        SectorCipher::with_sectors(self.cipher, &key, self.sector).map(Some)
    }
}

impl Slot {
    /// A slot, and the length in bytes of the key that it has, which is for `data`.
    fn of(
        number: u32,
        slot: &json::Keyslot,
        data: Cipher,
        areas: &Range<u64>,
    ) -> Result<(Self, usize), Error> {
        let what = format!("key slot {number}");
        let what = what.as_str();
        if slot.r#type != "luks2" {
            let kind = shown(&slot.r#type);
            return Err(unsupported(format!("{what} is of type {kind}, which is unknown")));
        }
        let key_len = key_len(needed(slot.key_size, "key_size", what)?, data, what)?;
        let area = needed(slot.area.as_ref(), "area", what)?;
        let splitter = needed(slot.af.as_ref(), "af", what)?;
        let kdf = needed(slot.kdf.as_ref(), "kdf", what)?;
        if area.r#type != "raw" || splitter.r#type != "luks1" {
            return Err(unsupported(format!(
                "the area of {what} is of type {}, and split as {}; known are raw and luks1",
                shown(&area.r#type),
                shown(&splitter.r#type)
            )));
        }
        let stripes = splitter.stripes;
        if !(1..=MAX_STRIPES).contains(&stripes) {
            return Err(invalid(format!(
                "{what} has {stripes} stripes; there can be {MAX_STRIPES}"
            )));
        }
        // At most 4000 stripes of 64 bytes.
        let stripes = usize::try_from(stripes).unwrap_or(0);
        let len = (stripes * key_len).next_multiple_of(SECTOR) as u64;
        let (start, size) = (area.offset.0, area.size.0);
        let end = start.checked_add(size).filter(|end| *end <= areas.end);
        if end.is_none() || start < areas.start || size < len {
            return Err(invalid(format!(
                "the area of {what} has {size} bytes at {start}; it has to have {len} between \
                 {} and {}",
                areas.start, areas.end
            )));
        }
        let cipher = needed(area.encryption.as_deref(), "encryption", what)?;
        let cipher = cipher_of(cipher, what)?;
        let area_key_len = needed(area.key_size, "key_size", what)?;
        let slot = Slot {
            priority: slot.priority.unwrap_or(NORMAL),
            area: start..start + len,
            cipher,
            area_key_len: self::key_len(area_key_len, cipher, what)?,
            stripes,
            digest: digest_of(&splitter.hash, what)?,
            kdf: kdf_of(kdf, what)?,
        };
        Ok((slot, key_len))
    }
}

fn kdf_of(kdf: &json::Kdf, what: &str) -> Result<Kdf, Error> {
    let salt = kdf.salt.0.clone();
    let variant = match kdf.r#type.as_str() {
        "pbkdf2" => {
            let digest = digest_of(needed(kdf.hash.as_deref(), "hash", what)?, what)?;
            let iterations = needed(kdf.iterations, "iterations", what)?;
            return Kdf::pbkdf2(digest, iterations, salt, what);
        }
        "argon2i" => Variant::I,
        "argon2id" => Variant::Id,
        other => {
            return Err(unsupported(format!(
                "{what} derives its key by {}; known are pbkdf2, argon2i and argon2id",
                shown(other)
            )));
        }
    };
    let costs = Costs {
        passes: needed(kdf.time, "time", what)?,
        memory: needed(kdf.memory, "memory", what)?,
        lanes: needed(kdf.cpus, "cpus", what)?,
    };
    Kdf::argon2(variant, costs, salt, what)
}

/// Where key slots may have their areas, in bytes: behind both copies of the header.
fn areas(size: u64, areas: u64) -> Result<Range<u64>, Error> {
    if areas > MAX_AREAS {
        return Err(invalid(format!(
            "the areas of its key slots have {areas} bytes; they can have {MAX_AREAS}"
        )));
    }
    // The size is at most 4 MiB.
    Ok(2 * size..2 * size + areas)
}

/// A header may require what only some programs can do.
fn refuse_requirements(config: &json::Config) -> Result<(), Error> {
    let mandatory = config.requirements.as_ref().and_then(|all| all.mandatory.as_deref());
    let Some(first) = mandatory.and_then(|names| names.first()) else { return Ok(()) };
    Err(unsupported(match first.contains("reencrypt") {
        true => {
            "its encryption is being changed; `cryptsetup reencrypt --resume-only` brings that \
                 to its end"
                .into()
        }
        false => format!("it requires {}, which is unknown", shown(first)),
    }))
}

/// The one segment, and how it is encrypted.
fn segment(segments: &[(u32, json::Segment)]) -> Result<(&json::Segment, Cipher), Error> {
    let [(0, segment)] = segments else {
        return Err(unsupported(format!(
            "its LUKS header has {} segments of data; it has to have one, with the number 0",
            segments.len()
        )));
    };
    if segment.r#type != "crypt" {
        let kind = shown(&segment.r#type);
        return Err(unsupported(format!("its data are a segment of type {kind}, not crypt")));
    }
    if let Some(integrity) = &segment.integrity {
        return Err(unsupported(format!(
            "its data have integrity tags ({}), which are not supported",
            shown(&integrity.r#type)
        )));
    }
    if let Some(flag) = segment.flags.as_ref().and_then(|flags| flags.first()) {
        let flag = shown(flag);
        return Err(unsupported(format!("its segment of data has the flag {flag}")));
    }
    let what = "its segment of data";
    let cipher = needed(segment.encryption.as_deref(), "encryption", what)?;
    Ok((segment, cipher_of(cipher, what)?))
}

fn sector_of(segment: &json::Segment) -> Result<usize, Error> {
    let sector = segment.sector_size.unwrap_or(SECTOR as u64);
    let known = usize::try_from(sector).ok().filter(|sector| is_sector_len(*sector));
    known.ok_or_else(|| {
        invalid(format!("its sectors have {sector} bytes; they can have 512, 1024, 2048 or 4096"))
    })
}

/// Where the data begin and how long they are, in bytes.
fn place_of(segment: &json::Segment, sector: usize) -> Result<(u64, Option<u64>), Error> {
    let offset = segment.offset.0;
    let len = match segment.size.as_str() {
        "dynamic" => None,
        other => Some(number(other).ok_or_else(|| {
            invalid(format!("its segment of data has the size {}", shown(other)))
        })?),
    };
    let sector = sector as u64;
    let end = offset.checked_add(len.unwrap_or(0));
    let fits = end.is_some_and(|end| i64::try_from(end).is_ok());
    if !fits || !offset.is_multiple_of(SECTOR as u64) || !len.unwrap_or(0).is_multiple_of(sector) {
        let size = shown(&segment.size);
        return Err(invalid(format!(
            "its segment of data has the size {size} at {offset}; it has to consist of sectors of \
             {sector} bytes"
        )));
    }
    Ok((offset, len))
}

/// The digest of the segment's key, and the slots that have this key.
fn verifier(digests: &[(u32, json::Digest)]) -> Result<(Vec<u32>, Verifier), Error> {
    let is_ours = |digest: &json::Digest| digest.segments.iter().any(|segment| segment.0 == 0);
    let Some((number, digest)) = digests.iter().find(|(_, digest)| is_ours(digest)) else {
        return Err(invalid("no digest of its LUKS header is that of the data's key".into()));
    };
    let what = format!("digest {number}");
    if digest.r#type != "pbkdf2" {
        let kind = shown(&digest.r#type);
        return Err(unsupported(format!("{what} is of type {kind}; known is pbkdf2")));
    }
    let hash = digest_of(needed(digest.hash.as_deref(), "hash", &what)?, &what)?;
    let iterations = needed(digest.iterations, "iterations", &what)?;
    let kdf = Kdf::pbkdf2(hash, iterations, digest.salt.0.clone(), &what)?;
    let bytes = digest.digest.0.clone();
    if !DIGEST_LENS.contains(&bytes.len()) {
        return Err(invalid(format!("{what} has {} bytes", bytes.len())));
    }
    let slots = digest.keyslots.iter().filter_map(|slot| u32::try_from(slot.0).ok());
    Ok((slots.collect(), Verifier { kdf, digest: bytes, key_len: 0 }))
}
