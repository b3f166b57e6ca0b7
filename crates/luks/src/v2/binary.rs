// SPDX-License-Identifier: Apache-2.0
//! The binary header of version 2 (specification 2.1): 4096 bytes, which say how long the text behind
//! them is, and have the checksum of both. There are two copies, each with its text.
use zerocopy::big_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::Error;
use crate::digest::Digest;

/// The length of the binary part, in bytes.
pub(crate) const LEN: usize = size_of::<Raw>();
/// The lengths that a copy can have, in bytes: its text is behind the binary part.
pub(crate) const SIZES: [u64; 9] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 448..512;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 6],
    version: U16,
    /// Of this copy, in bytes.
    size: U64,
    sequence: U64,
    label: [u8; 48],
    checksum_digest: [u8; 32],
    salt: [u8; 64],
    uuid: [u8; 40],
    subsystem: [u8; 48],
    /// Of this copy, in bytes.
    offset: U64,
    padding: [u8; 184],
    checksum: [u8; 64],
    rest: [u8; 7 * 512],
}

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    Primary,
    Secondary,
}

impl Copy {
    pub(crate) fn magic(self) -> &'static [u8; 6] {
        match self {
            Copy::Primary => b"LUKS\xba\xbe",
            Copy::Secondary => b"SKUL\xba\xbe",
        }
    }
}

/// A copy whose checksum is right.
#[derive(Debug)]
pub(crate) struct Binary {
    /// In bytes.
    pub(crate) size: u64,
    /// The copy that was written later has the higher one.
    pub(crate) sequence: u64,
    pub(crate) uuid: String,
    /// The text, without what pads it.
    pub(crate) json: Vec<u8>,
}

/// The length in bytes that the copy beginning with `head` says that it has, if it begins as one and
/// says a length that is possible.
pub(crate) fn size(head: &[u8], copy: Copy) -> Option<u64> {
    let (raw, _) = Raw::ref_from_prefix(head).ok()?;
    let begins = raw.magic == *copy.magic() && raw.version.get() == 2;
    Some(raw.size.get()).filter(|size| begins && SIZES.contains(size))
}

/// Reads a copy that begins at `offset`, in bytes, of the device.
///
/// # Errors
/// [`Error::Invalid`] with what is wrong with it, and [`Error::Unsupported`] where its checksum is of
/// an unknown kind.
pub(crate) fn parse(bytes: &[u8], copy: Copy, offset: u64) -> Result<Binary, Error> {
    let invalid = |text: String| Err(Error::Invalid(text));
    let Ok((raw, _)) = Raw::ref_from_prefix(bytes) else {
        return invalid(format!("it has {} bytes", bytes.len()));
    };
    if raw.magic != *copy.magic() || raw.version.get() != 2 {
        return invalid(format!("it begins with {}", raw.magic.escape_ascii()));
    }
    let size = raw.size.get();
    if !SIZES.contains(&size) || size != bytes.len() as u64 {
        return invalid(format!("it says that it has {size} bytes"));
    }
    if raw.offset.get() != offset {
        return invalid(format!("it says that it begins at {}, not at {offset}", raw.offset));
    }
    let name = text(&raw.checksum_digest);
    let Some(digest) = Digest::of_name(&name) else {
        let known = Digest::names();
        return Err(Error::Unsupported(format!(
            "its checksum is made by \"{}\"; known are {known}",
            name.escape_debug()
        )));
    };
    let checksum = digest.hash(&[
        bytes.get(..CHECKSUM.start).unwrap_or_default(),
        &[0; 64],
        bytes.get(CHECKSUM.end..).unwrap_or_default(),
    ]);
    if raw.checksum.get(..checksum.len()) != Some(&*checksum) {
        return invalid("its checksum is wrong".into());
    }
    let json = bytes.get(LEN..).unwrap_or_default();
    let end = json.iter().position(|byte| *byte == 0).unwrap_or(json.len());
    Ok(Binary {
        size,
        sequence: raw.sequence.get(),
        uuid: text(&raw.uuid),
        json: json.get(..end).unwrap_or_default().to_vec(),
    })
}

/// Makes the checksum of a copy right, whatever the copy is, if it has one that is known.
pub(crate) fn mend(bytes: &mut [u8]) {
    let Some(digest) = Raw::ref_from_prefix(bytes)
        .ok()
        .and_then(|(raw, _)| Digest::of_name(&text(&raw.checksum_digest)))
    else {
        return;
    };
    let Some(field) = bytes.get_mut(CHECKSUM) else { return };
    field.fill(0);
    let checksum = digest.hash(&[bytes]);
    if let Some(field) = bytes.get_mut(CHECKSUM) {
        field.iter_mut().zip(&checksum).for_each(|(byte, new)| *byte = *new);
    }
}

/// A text that ends with a zero or its field.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}
