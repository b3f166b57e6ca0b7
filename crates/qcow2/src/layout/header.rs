// SPDX-License-Identifier: Apache-2.0
//! The header of an image: the first cluster. In: bytes. Out: a [`Header`], all of whose fields are
//! within the format's and QEMU's limits, or what is wrong with it; and back.
//!
//! Header extensions that are not known here are kept as they are.
mod bits;
mod fields;
mod limits;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::{Error, ErrorKind, Storage};
use fields::{Additional, ExtensionHead, FULL_LENGTH, V2, V2_LENGTH, V3, V3_LENGTH};
use sgl::Sgl;

pub use bits::{autoclear, compatible, extension, incompatible};

/// "QFI\xfb": the first four bytes of qcow images of all versions.
pub const MAGIC: u32 = 0x5146_49fb;
/// The largest L1 table, in bytes (QEMU's limit).
pub const MAX_L1_BYTES: u64 = 32 << 20;
/// The largest refcount table, in bytes (QEMU's limit).
pub const MAX_REFTABLE_BYTES: u64 = 8 << 20;
/// The highest number of snapshots (QEMU's limit).
pub const MAX_SNAPSHOTS: u32 = 65536;
/// The longest name of a backing file, in bytes.
pub const MAX_BACKING_NAME: u64 = 1023;
/// Smallest and largest size of a cluster, as powers of two.
pub const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// The error of what does not begin as an image does.
const OTHER: &str = "it is not a qcow2 image; `qemu-img info PATH` tells what it is";

/// Offset of [`Header::reftable_offset`], and of what follows it, in the file.
pub const REFTABLE_OFFSET_OFFSET: u64 = 48;
/// Offset of [`Header::incompatible`] in the file.
pub const INCOMPATIBLE_OFFSET: u64 = 72;
/// Offset of [`Header::autoclear`] in the file.
pub const AUTOCLEAR_OFFSET: u64 = 88;

/// How the contents of clusters are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypt {
    /// Not at all.
    None,
    /// AES-128-CBC with the password as key: to be read only.
    Aes,
    /// As LUKS; its header is at the place that an extension names.
    Luks,
}

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate (RFC 1951).
    Deflate,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// A backing file as the header names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The name, not yet resolved: any bytes but zero, as those of files are.
    pub name: OsString,
    /// The format, where the image says it.
    pub format: Option<String>,
}

/// A header of version 2 or 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// log2 of the size of a cluster in bytes.
    pub cluster_bits: u32,
    /// Virtual size in bytes.
    pub size: u64,
    /// How clusters are encrypted.
    pub crypt: Crypt,
    /// Number of entries of the active L1 table.
    pub l1_entries: u32,
    /// Its offset in the file.
    pub l1_offset: u64,
    /// Offset of the refcount table in the file.
    pub reftable_offset: u64,
    /// Its length in clusters.
    pub reftable_clusters: u32,
    /// Number of internal snapshots.
    pub snapshots: u32,
    /// Offset of their table in the file.
    pub snapshots_offset: u64,
    /// Bits of [`incompatible`].
    pub incompatible: u64,
    /// Bits of [`compatible`].
    pub compatible: u64,
    /// Bits of [`autoclear`].
    pub autoclear: u64,
    /// log2 of the bits of a refcount, at most 6.
    pub refcount_order: u32,
    /// How clusters are compressed.
    pub compression: Compression,
    /// What is below.
    pub backing: Option<Backing>,
    /// All extensions but [`extension::BACKING_FORMAT`], in their order.
    pub extensions: Vec<(u32, Vec<u8>)>,
    /// What of the header is longer than this crate knows.
    rest: Vec<u8>,
    /// Length of the fields in bytes.
    length: u64,
}

/// The magic number and version at the beginning of a file, if it is a qcow image.
pub fn probe(head: &[u8]) -> Option<u32> {
    match <[U32; 2]>::ref_from_prefix(head) {
        Ok(([magic, version], _)) if magic.get() == MAGIC => Some(version.get()),
        _ => None,
    }
}

/// The part of the first cluster, if it is inside.
fn part(cluster: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    cluster.get(start..end)
}

/// What is wrong with the bytes of a name.
fn invalid(bytes: &[u8], what: &str) -> String {
    format!("its {what} is not valid text: \"{}\"", bytes.escape_ascii())
}

/// The name of a format.
fn text(bytes: &[u8], what: &str) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| invalid(bytes, what))
}

/// The name of a file.
fn file_name(bytes: &[u8], what: &str) -> Result<OsString, String> {
    match bytes.contains(&0) {
        true => Err(invalid(bytes, what)),
        false => Ok(OsString::from_vec(bytes.to_vec())),
    }
}

impl Header {
    /// A header of version 2 or 3 without tables, for an image that is being made.
    pub fn new(version: u32, cluster_bits: u32, size: u64) -> Self {
        Header {
            version,
            cluster_bits,
            size,
            crypt: Crypt::None,
            l1_entries: 0,
            l1_offset: 0,
            reftable_offset: 0,
            reftable_clusters: 0,
            snapshots: 0,
            snapshots_offset: 0,
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            refcount_order: 4,
            compression: Compression::Deflate,
            backing: None,
            extensions: Vec::new(),
            rest: Vec::new(),
            length: if version >= 3 { FULL_LENGTH as u64 } else { V2_LENGTH as u64 },
        }
    }

    /// Reads and checks the header of an image. Whether its tables are inside of the file, see
    /// [`check_tables`](Self::check_tables).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an image that cannot be used.
    pub async fn read(storage: &impl Storage) -> Result<Self, Error> {
        let open = |kind: ErrorKind| Error::new(kind, "open");
        let head = read(storage, V3_LENGTH).await.map_err(|e| open(e.into()))?;
        let (version, bits) = match V2::ref_from_prefix(&head) {
            Ok((v2, _)) if v2.magic.get() == MAGIC => (v2.version.get(), v2.cluster_bits.get()),
            _ => return Err(open(ErrorKind::invalid(OTHER))),
        };
        let len = storage.length().await.map_err(|e| open(e.into()))?;
        let least = if version < 3 { V2_LENGTH } else { V3_LENGTH };
        if len < least as u64 {
            return Err(open(ErrorKind::unreadable(format_args!(
                "the file has {len} bytes, and the header of a qcow2 image {least} or more: it \
                 was cut off, or not wholly copied, or is no image"
            ))));
        }
        // A wrong one is told of below, after the version.
        let cluster = 1 << bits.clamp(*CLUSTER_BITS.start(), *CLUSTER_BITS.end());
        let cluster = read(storage, cluster).await.map_err(|e| open(e.into()))?;
        Self::decode(&cluster).map_err(open)
    }

    /// Takes the bytes of the first cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn decode(cluster: &[u8]) -> Result<Self, ErrorKind> {
        let Ok((v2, after)) = V2::ref_from_prefix(cluster) else {
            return Err(ErrorKind::invalid(OTHER));
        };
        if v2.magic.get() != MAGIC {
            return Err(ErrorKind::invalid(OTHER));
        }
        let version = v2.version.get();
        if version != 2 && version != 3 {
            return Err(ErrorKind::unknown(format_args!(
                "its version is {version}, and has to be 2 or 3"
            )));
        }
        let cluster_bits = v2.cluster_bits.get();
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(ErrorKind::unreadable(format_args!(
                "its cluster size of 2^{cluster_bits} bytes is not between 512 bytes and 2 MiB"
            )));
        }
        let cluster_size = 1u64 << cluster_bits;
        let v3 = if version == 3 { V3::ref_from_prefix(after).ok() } else { None };
        let header_length = v3.map_or(V2_LENGTH as u64, |(v3, _)| v3.header_length.get().into());
        if version == 3
            && (header_length < V3_LENGTH as u64
                || !header_length.is_multiple_of(8)
                || header_length > cluster_size)
        {
            return Err(ErrorKind::unreadable(format_args!(
                "its header length is {header_length}; it has to be a multiple of 8 from \
                 {V3_LENGTH} to the cluster size"
            )));
        }
        let crypt = match v2.crypt_method.get() {
            0 => Crypt::None,
            1 => Crypt::Aes,
            2 => Crypt::Luks,
            other => {
                let text = format_args!("its encryption method {other} is not known");
                return Err(ErrorKind::unknown(text));
            }
        };
        // In version 2 the list may end where the backing file's name begins.
        let end = if version == 2 { v2.backing_offset.get() } else { 0 };
        let mut extensions = extensions(cluster, header_length, end)?;
        let mut header = Header {
            crypt,
            l1_entries: v2.l1_entries.get(),
            l1_offset: v2.l1_offset.get(),
            reftable_offset: v2.reftable_offset.get(),
            reftable_clusters: v2.reftable_clusters.get(),
            snapshots: v2.snapshots.get(),
            snapshots_offset: v2.snapshots_offset.get(),
            length: header_length,
            ..Header::new(version, cluster_bits, v2.size.get())
        };
        if let Some((v3, after)) = v3 {
            header.incompatible = v3.incompatible.get();
            header.compatible = v3.compatible.get();
            header.autoclear = v3.autoclear.get();
            header.refcount_order = v3.refcount_order.get();
            let known = usize::try_from(header_length).unwrap_or(0);
            let after = after.get(..known.saturating_sub(V3_LENGTH)).unwrap_or_default();
            let compression = match Additional::ref_from_prefix(after) {
                Ok((additional, rest)) => {
                    header.rest = rest.to_vec();
                    additional.compression_type
                }
                Err(_) => 0,
            };
            header.compression = match compression {
                0 => Compression::Deflate,
                1 => Compression::Zstd,
                other => {
                    let text = format_args!("its compression type {other} is not known");
                    return Err(ErrorKind::unknown(text));
                }
            };
        }
        header.check_features(&extensions)?;
        header.backing = backing(cluster, v2, &extensions)?;
        extensions.retain(|(kind, _)| *kind != extension::BACKING_FORMAT);
        header.extensions = extensions;
        header.check_limits()?;
        Ok(header)
    }

    /// Length of the fields before the extensions, in bytes, as it is in the file.
    pub fn header_length(&self) -> u64 {
        self.length
    }

    /// Size of a cluster in bytes.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Whether all of the given bits of [`incompatible`] are set.
    pub fn needs(&self, bits: u64) -> bool {
        self.incompatible & bits == bits
    }

    /// Bytes of an L2 entry.
    pub fn l2_entry_size(&self) -> u64 {
        if self.needs(incompatible::EXTENDED_L2) { 16 } else { 8 }
    }

    /// The header as it were with another active disk, of `size` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where an active disk cannot be so.
    pub(crate) fn with_disk(
        &self,
        size: u64,
        l1_offset: u64,
        l1_entries: u32,
    ) -> Result<Self, ErrorKind> {
        let header = Header { size, l1_entries, l1_offset, ..self.clone() };
        header.check_limits()?;
        Ok(header)
    }

    /// How many L1 entries an image of `size` bytes needs.
    pub fn l1_entries_for(&self, size: u64) -> u64 {
        let cluster = self.cluster_size();
        size.div_ceil(cluster).div_ceil(cluster / self.l2_entry_size())
    }

    /// The content of an extension.
    pub fn extension(&self, kind: u32) -> Option<&[u8]> {
        self.extensions.iter().find(|(other, _)| *other == kind).map(|(_, data)| &data[..])
    }

    /// The name of the external data file, where the image tells one.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when no file can have it.
    pub fn data_file(&self) -> Result<Option<OsString>, ErrorKind> {
        let name = self.extension(extension::DATA_FILE);
        let name = name.map(|name| file_name(name, "external data file's name")).transpose();
        name.map_err(ErrorKind::no_data_file)
    }

    /// The bytes of the first cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, ErrorKind> {
        let mut out = vec![0; V2_LENGTH];
        if self.version >= 3 {
            out.resize(FULL_LENGTH, 0);
            out.extend_from_slice(&self.rest);
        }
        let header_length = out.len();
        let format = self.backing.as_ref().and_then(|backing| backing.format.as_ref());
        let format = format.map(|name| (extension::BACKING_FORMAT, name.as_bytes()));
        let others = self.extensions.iter().map(|(kind, data)| (*kind, &data[..]));
        for (kind, data) in format.into_iter().chain(others).chain([(extension::END, &[][..])]) {
            let len = U32::new(u32::try_from(data.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(ExtensionHead { kind: kind.into(), len }.as_bytes());
            out.extend_from_slice(data);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        let name_offset = out.len();
        let name = self.backing.as_ref().map(|backing| backing.name.as_bytes());
        out.extend_from_slice(name.unwrap_or_default());
        let too_long = || ErrorKind::Unsupported("its header has no room left".into());
        if out.len() as u64 > self.cluster_size() {
            return Err(too_long());
        }
        let Ok((v2, after)) = V2::mut_from_prefix(&mut out) else { return Err(too_long()) };
        *v2 = V2 {
            magic: MAGIC.into(),
            version: self.version.into(),
            backing_offset: (if name.is_some() { name_offset as u64 } else { 0 }).into(),
            backing_len: u32::try_from(name.unwrap_or_default().len())
                .map_err(|_| too_long())?
                .into(),
            cluster_bits: self.cluster_bits.into(),
            size: self.size.into(),
            crypt_method: match self.crypt {
                Crypt::None => 0,
                Crypt::Aes => 1,
                Crypt::Luks => 2,
            }
            .into(),
            l1_entries: self.l1_entries.into(),
            l1_offset: self.l1_offset.into(),
            reftable_offset: self.reftable_offset.into(),
            reftable_clusters: self.reftable_clusters.into(),
            snapshots: self.snapshots.into(),
            snapshots_offset: self.snapshots_offset.into(),
        };
        if self.version >= 3 {
            let Ok((v3, after)) = V3::mut_from_prefix(after) else { return Err(too_long()) };
            v3.incompatible = self.incompatible.into();
            v3.compatible = self.compatible.into();
            v3.autoclear = self.autoclear.into();
            v3.refcount_order = self.refcount_order.into();
            v3.header_length = u32::try_from(header_length).map_err(|_| too_long())?.into();
            if let Ok((additional, _)) = Additional::mut_from_prefix(after) {
                *additional = Additional::new_zeroed();
                additional.compression_type = match self.compression {
                    Compression::Deflate => 0,
                    Compression::Zstd => 1,
                };
            }
        }
        out.resize(usize::try_from(self.cluster_size()).unwrap_or(out.len()), 0);
        Ok(out)
    }
}

async fn read(storage: &impl Storage, len: usize) -> std::io::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    storage.read(&Sgl::from_slice(&mut buf), 0).await?;
    Ok(buf)
}

/// The header extensions, from `start` on; the list ends at `end` unless that is 0.
fn extensions(cluster: &[u8], start: u64, end: u64) -> Result<Vec<(u32, Vec<u8>)>, ErrorKind> {
    let mut found: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut at = start;
    while end == 0 || at < end {
        let head = part(cluster, at, 8).and_then(|bytes| ExtensionHead::ref_from_bytes(bytes).ok());
        let Some(head) = head else {
            return Err(ErrorKind::unreadable("its header extensions do not end"));
        };
        let (kind, len) = (head.kind.get(), u64::from(head.len.get()));
        if kind == extension::END {
            break;
        }
        let Some(data) = part(cluster, at + 8, len) else {
            return Err(ErrorKind::unreadable(format_args!(
                "its header extension {kind:#x} of {len} bytes is too long"
            )));
        };
        if found.iter().any(|(other, _)| *other == kind) {
            return Err(ErrorKind::unreadable(format_args!(
                "its header extension {kind:#x} is there twice"
            )));
        }
        found.push((kind, data.to_vec()));
        at += 8 + len.next_multiple_of(8);
    }
    Ok(found)
}

/// The backing file, if the header names one.
fn backing(
    cluster: &[u8],
    v2: &V2,
    extensions: &[(u32, Vec<u8>)],
) -> Result<Option<Backing>, ErrorKind> {
    let (offset, len) = (v2.backing_offset.get(), u64::from(v2.backing_len.get()));
    if offset == 0 {
        return Ok(None);
    }
    let name = part(cluster, offset, len).filter(|_| len <= MAX_BACKING_NAME);
    let name = name.ok_or_else(|| {
        ErrorKind::unreadable(format_args!(
            "the name of its backing file, {len} bytes at {offset:#x}, is too long, or outside of \
             the first cluster"
        ))
    })?;
    if name.is_empty() {
        return Err(ErrorKind::misnamed("the name of its backing file has 0 bytes"));
    }
    let format = extensions.iter().find(|(kind, _)| *kind == extension::BACKING_FORMAT);
    let format = format.map(|(_, data)| text(data, "backing file's format")).transpose();
    let format = format.map_err(ErrorKind::misnamed)?;
    let name = file_name(name, "backing file's name").map_err(ErrorKind::misnamed)?;
    Ok(Some(Backing { name, format }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(version: u32) -> Header {
        let mut header = Header::new(version, 16, 10 << 30);
        header.l1_entries = 20;
        header.l1_offset = 3 << 16;
        header.reftable_offset = 1 << 16;
        header.reftable_clusters = 1;
        let name = OsString::from_vec(b"/base \xff.img".to_vec());
        header.backing = Some(Backing { name, format: Some("raw".into()) });
        header.extensions = vec![(0x1234_5678, b"unknown".to_vec())];
        if version == 3 {
            header.compression = Compression::Zstd;
            header.incompatible = incompatible::COMPRESSION_TYPE | incompatible::EXTENDED_L2;
            header.l1_entries = 40;
            header.refcount_order = 2;
        }
        header
    }

    #[test]
    fn a_header_is_the_same_after_writing_and_reading_it() {
        for version in [2, 3] {
            let header = sample(version);
            assert_eq!(Header::decode(&header.encode().unwrap()).unwrap(), header);
        }
    }

    #[test]
    fn a_header_that_is_longer_than_known_keeps_its_rest() {
        let mut bytes = sample(3).encode().unwrap();
        bytes.copy_within(112..60000, 128);
        bytes[112..128].copy_from_slice(b"later additions!");
        bytes[103] = 128;
        bytes[15] = bytes[15].wrapping_add(16);
        let header = Header::decode(&bytes).unwrap();
        assert_eq!(header.rest, b"later additions!");
        assert_eq!(Header::decode(&header.encode().unwrap()).unwrap(), header);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_an_error_and_no_panic() {
        let bytes = sample(3).encode().unwrap();
        for len in 0..256 {
            let _ = Header::decode(&bytes[..len]);
        }
        for at in 0..256 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Ok(header) = Header::decode(&bytes) {
                    header.encode().unwrap();
                }
            }
        }
    }
}
