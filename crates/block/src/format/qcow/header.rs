// SPDX-License-Identifier: Apache-2.0
//! The header of a qcow2 image, read and checked before `imago` sees the image: what may not be
//! opened is refused here, with a message that names the problem and what to run. In: the open
//! file. Out: a [`Header`], or [`ErrorKind::Invalid`].
//!
//! The fields are those of QEMU's `docs/interop/qcow2.txt`. Every size in the header is checked
//! against QEMU's limits and against the file before anything is allocated for it.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::ErrorKind;

/// "QFI\xfb": the first four bytes of qcow images of all versions.
pub(super) const MAGIC: u32 = 0x5146_49fb;
/// The largest L1 table, in bytes (QEMU's limit).
const MAX_L1_BYTES: u64 = 32 << 20;
/// The largest refcount table, in bytes (QEMU's limit).
const MAX_REFTABLE_BYTES: u64 = 8 << 20;
/// The highest number of snapshots (QEMU's limit).
const MAX_SNAPSHOTS: u32 = 65536;
/// Where the autoclear feature bits are.
const AUTOCLEAR_OFFSET: u64 = 88;
/// Length of a version 3 header without optional fields.
const V3_LENGTH: u32 = 104;

/// The part that versions 2 and 3 share.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct V2 {
    magic: U32,
    version: U32,
    backing_offset: U64,
    backing_len: U32,
    cluster_bits: U32,
    size: U64,
    crypt_method: U32,
    l1_entries: U32,
    l1_offset: U64,
    reftable_offset: U64,
    reftable_clusters: U32,
    snapshots: U32,
    snapshots_offset: U64,
}

/// What version 3 adds.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct V3 {
    incompatible: U64,
    compatible: U64,
    autoclear: U64,
    refcount_order: U32,
    header_length: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ExtensionHead {
    kind: U32,
    len: U32,
}

/// Types of header extensions.
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

/// A backing file as the header names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backing {
    /// The name, not yet resolved.
    pub(super) name: String,
    /// The format, where the image says it.
    pub(super) format: Option<String>,
}

/// What the rest needs to know of a version 2 or 3 header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    /// Virtual size in bytes.
    pub(super) size: u64,
    pub(super) snapshots: u32,
    pub(super) backing: Option<Backing>,
    l1_entries: u64,
    l1_offset: u64,
    reftable_offset: u64,
    reftable_clusters: u64,
    refcount_order: u32,
    autoclear: u64,
}

/// Incompatible features that QEMU has, by bit: what is wrong, and what to do about it. `PATH`
/// stands for the image's path.
const INCOMPATIBLE: [(&str, &str); 5] = [
    (
        "it was not closed cleanly and its refcounts may be wrong (dirty bit)",
        "run `qemu-img check -r all PATH`",
    ),
    ("it is marked as corrupt (corrupt bit)", "copy it, then run `qemu-img check -r all PATH`"),
    (
        "its data is in an external data file, which is not supported",
        "run `qemu-img convert -O qcow2 PATH NEW` and use NEW",
    ),
    (
        "its clusters are not compressed with zlib, and no other method is supported",
        "run `qemu-img convert -O qcow2 -o compression_type=zlib PATH NEW` and use NEW",
    ),
    (
        "it has extended L2 entries (subclusters), which are not supported",
        "run `qemu-img convert -O qcow2 -o extended_l2=off PATH NEW` and use NEW",
    ),
];

/// The text for something that is wrong with the structure of an image.
fn damaged(path: &Path, what: impl std::fmt::Display) -> ErrorKind {
    ErrorKind::Invalid(format!("{what}; run `qemu-img check -r all {}`", path.display()))
}

/// Reads `buf` from `offset`; what lies past the end of the file is zero.
fn read_padded(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The magic number and version at the beginning of a file, if it is a qcow image.
///
/// # Errors
/// Those of reading the file.
pub(super) fn probe(file: &File) -> io::Result<Option<u32>> {
    let mut buf = [0; 8];
    read_padded(file, &mut buf, 0)?;
    Ok(match <[U32; 2]>::ref_from_bytes(&buf) {
        Ok([magic, version]) if magic.get() == MAGIC => Some(version.get()),
        _ => None,
    })
}

impl Header {
    /// Reads and checks the header of a version 2 or 3 image; `len` is the length of the file in
    /// bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an image that may not be opened, [`ErrorKind::Io`] when the file
    /// cannot be read.
    pub(super) fn read(file: &File, len: u64, path: &Path) -> Result<Self, ErrorKind> {
        let mut start = [0; V3_LENGTH as usize + 8];
        read_padded(file, &mut start, 0)?;
        let Ok((v2, rest)) = V2::ref_from_prefix(&start) else {
            return Err(damaged(path, "its header is too short"));
        };
        if v2.magic.get() != MAGIC {
            return Err(ErrorKind::Invalid("it is not a qcow2 image".into()));
        }
        let version = v2.version.get();
        if version != 2 && version != 3 {
            return Err(ErrorKind::Invalid(format!("qcow version {version} is not supported")));
        }
        let v3 = if version == 3 { V3::ref_from_prefix(rest).ok().map(|(v3, _)| v3) } else { None };
        let cluster_bits = v2.cluster_bits.get();
        if !(9..=21).contains(&cluster_bits) {
            return Err(ErrorKind::Invalid(format!(
                "its cluster size of 2^{cluster_bits} bytes is not between 512 bytes and 2 MiB"
            )));
        }
        let cluster_size = 1u64 << cluster_bits;
        let header_length = v3.map_or(72, |v3| v3.header_length.get());
        if version == 3
            && (header_length < V3_LENGTH
                || !header_length.is_multiple_of(8)
                || u64::from(header_length) > cluster_size)
        {
            return Err(damaged(path, format!("its header length {header_length} is wrong")));
        }

        let first = FirstCluster::read(file, cluster_bits)?;
        // In version 2 the list may end where the backing file's name begins.
        let end = if version == 2 { v2.backing_offset.get() } else { 0 };
        let extensions = first.extensions(header_length, end, path)?;
        if let Some(v3) = v3 {
            check_features(v3, &extensions, path)?;
        }
        match v2.crypt_method.get() {
            0 => {}
            method => {
                let name = match method {
                    1 => "AES".to_owned(),
                    2 => "LUKS".to_owned(),
                    other => format!("method {other}"),
                };
                return Err(ErrorKind::Invalid(format!(
                    "it is encrypted ({name}), which is not supported"
                )));
            }
        }
        let backing = first.backing(v2, &extensions, path)?;
        let header = Header {
            version,
            cluster_bits,
            size: v2.size.get(),
            snapshots: v2.snapshots.get(),
            backing,
            l1_entries: v2.l1_entries.get().into(),
            l1_offset: v2.l1_offset.get(),
            reftable_offset: v2.reftable_offset.get(),
            reftable_clusters: v2.reftable_clusters.get().into(),
            refcount_order: v3.map_or(4, |v3| v3.refcount_order.get()),
            autoclear: v3.map_or(0, |v3| v3.autoclear.get()),
        };
        header.check_sizes(len, path)?;
        Ok(header)
    }

    /// Cluster size in bytes.
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// log2 of the bits of a refcount.
    pub(super) fn refcount_order(&self) -> u32 {
        self.refcount_order
    }

    fn check_sizes(&self, len: u64, path: &Path) -> Result<(), ErrorKind> {
        let cluster_size = self.cluster_size();
        if self.refcount_order > 6 {
            return Err(damaged(
                path,
                format!("its refcount order {} is wrong", self.refcount_order),
            ));
        }
        if self.snapshots > MAX_SNAPSHOTS {
            return Err(damaged(path, format!("it claims to have {} snapshots", self.snapshots)));
        }
        let l1_bytes = self.l1_entries * 8;
        // An L1 entry stands for one table of `cluster_size / 8` clusters.
        let l2_span = cluster_size * (cluster_size / 8);
        let needed = self.size.div_ceil(l2_span);
        if l1_bytes > MAX_L1_BYTES || needed * 8 > MAX_L1_BYTES {
            return Err(ErrorKind::Invalid(format!(
                "its size of {} bytes, or its L1 table of {} entries, is too large",
                self.size, self.l1_entries
            )));
        }
        if self.l1_entries < needed {
            return Err(damaged(path, "its L1 table is too small for its size"));
        }
        // A file may end inside its last table: what is missing is zero, as in QEMU. But no more may
        // be missing than an honest image lacks.
        let table = |name: &str, offset: u64, bytes: u64, missing: u64| {
            if !offset.is_multiple_of(cluster_size) {
                return Err(damaged(path, format!("its {name} is not aligned to a cluster")));
            }
            match offset.checked_add(bytes) {
                Some(end) if end <= len => Ok(()),
                Some(end) if offset < len && end - len <= missing => Ok(()),
                _ => Err(damaged(path, format!("its {name} lies outside of the file"))),
            }
        };
        table("L1 table", self.l1_offset, l1_bytes, cluster_size.max(needed * 8))?;
        if self.l1_entries > 0 && self.l1_offset == 0 {
            return Err(damaged(path, "its L1 table is at the place of the header"));
        }
        if self.reftable_clusters == 0 || self.reftable_offset == 0 {
            return Err(damaged(path, "it has no refcount table"));
        }
        let reftable_bytes = self.reftable_clusters << self.cluster_bits;
        if reftable_bytes > MAX_REFTABLE_BYTES {
            return Err(damaged(path, "its refcount table is too large"));
        }
        table("refcount table", self.reftable_offset, reftable_bytes, cluster_size)
    }

    /// Checks the refcounts of an image that is to be written: all metadata in use must be counted,
    /// or an allocation could overwrite it with guest data. Reads the
    /// refcount table, the L1 table and the refcount blocks that cover them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when they are wrong, [`ErrorKind::Io`] when they cannot be read.
    pub(super) fn check_refcounts(
        &self,
        file: &File,
        len: u64,
        path: &Path,
    ) -> Result<(), ErrorKind> {
        let cluster_size = self.cluster_size();
        let reftable =
            read_table(file, self.reftable_offset, self.reftable_clusters * cluster_size / 8)?;
        for (name, &entry) in reftable.iter().map(|entry| ("refcount block", entry)) {
            if entry != 0 && (entry % cluster_size != 0 || entry >= len) {
                return Err(damaged(path, format!("a {name} at {entry} lies outside of the file")));
            }
        }
        let mut sorted: Vec<u64> = reftable.iter().copied().filter(|&e| e != 0).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(damaged(path, "two entries of its refcount table share a refcount block"));
        }
        let l1 = read_table(file, self.l1_offset, self.l1_entries)?;
        let mut l2_tables = Vec::new();
        for entry in &l1 {
            let offset = entry & 0x00ff_ffff_ffff_fe00;
            if offset % cluster_size != 0 || offset >= len {
                return Err(damaged(
                    path,
                    format!("an L2 table at {offset} lies outside of the file"),
                ));
            }
            if offset != 0 {
                l2_tables.push(offset);
            }
        }
        drop(l1);
        // In order, so that each refcount block is read once.
        l2_tables.sort_unstable();
        let mut counts = Refcounts {
            file,
            reftable: &reftable,
            cluster_bits: self.cluster_bits,
            order: self.refcount_order,
            block: Vec::new(),
            block_offset: 0,
        };
        let runs = [
            ("header", 0, cluster_size),
            ("L1 table", self.l1_offset, self.l1_entries * 8),
            ("refcount table", self.reftable_offset, self.reftable_clusters * cluster_size),
        ];
        let of_runs = runs.iter().flat_map(|&(name, offset, bytes)| {
            (0..bytes.div_ceil(cluster_size)).map(move |i| (name, offset + i * cluster_size))
        });
        let of_blocks = sorted.iter().map(|&offset| ("refcount block", offset));
        let of_tables = l2_tables.iter().map(|&offset| ("L2 table", offset));
        for (name, offset) in of_runs.chain(of_blocks).chain(of_tables) {
            if counts.is_zero(offset)? {
                return Err(damaged(
                    path,
                    format!("its refcounts are wrong: the {name} at {offset} counts as free"),
                ));
            }
        }
        Ok(())
    }

    /// Clears the autoclear feature bits, as a program must that writes to an image without
    /// supporting a feature: dirty bitmaps, for example, are not kept up to date here, and must not
    /// be trusted later.
    pub(super) fn clear_autoclear(&mut self, file: &File, path: &Path) -> io::Result<()> {
        if self.autoclear != 0 {
            tracing::warn!(
                "{}: clearing its autoclear features {:#x}; persistent bitmaps become invalid",
                path.display(),
                self.autoclear
            );
            file.write_all_at(&[0; 8], AUTOCLEAR_OFFSET)?;
            self.autoclear = 0;
        }
        Ok(())
    }
}

/// Reads a table of big-endian 64-bit entries; its size has been checked.
fn read_table(file: &File, offset: u64, entries: u64) -> Result<Vec<u64>, ErrorKind> {
    let bytes = usize::try_from(entries * 8)
        .map_err(|_| ErrorKind::Invalid("a table is too large".into()))?;
    let mut buf = vec![0; bytes];
    read_padded(file, &mut buf, offset)?;
    let (entries, _) = buf.as_chunks::<8>();
    Ok(entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

/// Looks refcounts up; holds the block last used.
struct Refcounts<'a> {
    file: &'a File,
    reftable: &'a [u64],
    cluster_bits: u32,
    order: u32,
    block: Vec<u8>,
    block_offset: u64,
}

impl Refcounts<'_> {
    /// Whether the cluster at `offset` counts as free.
    fn is_zero(&mut self, offset: u64) -> io::Result<bool> {
        let cluster = offset >> self.cluster_bits;
        // A block has 2^bits entries, each of 2^order bits.
        let bits = self.cluster_bits + 3 - self.order;
        let block = usize::try_from(cluster >> bits).ok().and_then(|i| self.reftable.get(i));
        let block = match block {
            Some(&block) if block != 0 => block,
            _ => return Ok(true),
        };
        if block != self.block_offset {
            self.block_offset = 0;
            self.block.resize(1 << self.cluster_bits, 0);
            read_padded(self.file, &mut self.block, block)?;
            self.block_offset = block;
        }
        let bit = (cluster & ((1 << bits) - 1)) << self.order;
        let width = 1u64 << self.order;
        let entry = |byte: u64| usize::try_from(byte).ok().and_then(|i| self.block.get(i)).copied();
        Ok(if width >= 8 {
            (bit / 8..(bit + width) / 8).all(|byte| entry(byte).unwrap_or(0) == 0)
        } else {
            let mask = (1u8 << width) - 1;
            (entry(bit / 8).unwrap_or(0) >> (bit % 8)) & mask == 0
        })
    }
}

/// The first cluster, where header, extensions and the name of the backing file are.
struct FirstCluster(Vec<u8>);

impl FirstCluster {
    fn read(file: &File, cluster_bits: u32) -> io::Result<Self> {
        let mut buf = vec![0; 1 << cluster_bits];
        read_padded(file, &mut buf, 0)?;
        Ok(FirstCluster(buf))
    }

    /// The bytes of a part; `None` where it leaves the cluster.
    fn part(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.0.get(start..end)
    }

    /// The header extensions that matter here, by type; the list ends at `end` unless that is 0.
    fn extensions(
        &self,
        start: u32,
        end: u64,
        path: &Path,
    ) -> Result<Vec<(u32, &[u8])>, ErrorKind> {
        let mut found = Vec::new();
        let mut at = u64::from(start);
        loop {
            if end != 0 && at >= end {
                return Ok(found);
            }
            let head = self.part(at, 8).and_then(|bytes| ExtensionHead::ref_from_bytes(bytes).ok());
            let Some(head) = head else {
                return Err(damaged(path, "its header extensions do not end"));
            };
            let (kind, len) = (head.kind.get(), u64::from(head.len.get()));
            if kind == EXTENSION_END {
                return Ok(found);
            }
            let Some(data) = self.part(at + 8, len) else {
                return Err(damaged(path, format!("its header extension {kind:#x} is too long")));
            };
            // `imago` panics at the odd last byte of such a table.
            if kind == EXTENSION_FEATURE_NAMES && !data.len().is_multiple_of(48) {
                return Err(damaged(path, "its table of feature names has a wrong length"));
            }
            if matches!(kind, EXTENSION_BACKING_FORMAT | EXTENSION_FEATURE_NAMES) {
                if found.iter().any(|&(other, _)| other == kind) {
                    return Err(damaged(path, format!("its header extension {kind:#x} is double")));
                }
                found.push((kind, data));
            }
            at += 8 + len.next_multiple_of(8);
        }
    }

    fn backing(
        &self,
        v2: &V2,
        extensions: &[(u32, &[u8])],
        path: &Path,
    ) -> Result<Option<Backing>, ErrorKind> {
        let (offset, len) = (v2.backing_offset.get(), u64::from(v2.backing_len.get()));
        if offset == 0 {
            return Ok(None);
        }
        let text = |bytes: &[u8], what| {
            String::from_utf8(bytes.to_vec())
                .ok()
                .filter(|text| !text.contains('\0'))
                .ok_or_else(|| damaged(path, format!("its backing {what} is not valid text")))
        };
        let name = self.part(offset, len).filter(|_| len <= 1023);
        let name = name.ok_or_else(|| damaged(path, "the name of its backing file is too long"))?;
        if name.is_empty() {
            return Err(damaged(path, "the name of its backing file is empty"));
        }
        let format = extensions.iter().find(|&&(kind, _)| kind == EXTENSION_BACKING_FORMAT);
        let format = format.map(|(_, data)| text(data, "format")).transpose()?;
        Ok(Some(Backing { name: text(name, "file's name")?, format }))
    }
}

/// Refuses every incompatible feature: those known here are not supported either.
fn check_features(v3: &V3, extensions: &[(u32, &[u8])], path: &Path) -> Result<(), ErrorKind> {
    let features = v3.incompatible.get();
    if features == 0 {
        return Ok(());
    }
    // The corrupt bit is reported first, then the lowest one.
    let bit = if features & 2 != 0 { 1 } else { features.trailing_zeros() };
    let known = usize::try_from(bit).ok().and_then(|bit| INCOMPATIBLE.get(bit));
    if let Some((what, run)) = known {
        let run = run.replace("PATH", &path.display().to_string());
        return Err(ErrorKind::Invalid(format!("{what}; {run}")));
    }
    let names = extensions.iter().find(|&&(kind, _)| kind == EXTENSION_FEATURE_NAMES);
    let name = names.and_then(|(_, table)| {
        let entries = table.as_chunks::<48>().0;
        let entry = entries.iter().find(|entry| entry[0] == 0 && u32::from(entry[1]) == bit)?;
        let text = entry[2..].split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(text).escape_debug().to_string())
    });
    let name = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
    Err(ErrorKind::Invalid(format!(
        "it needs the feature{name} (incompatible feature bit {bit}), which is not supported; \
         run `qemu-img convert -O qcow2 {} NEW` and use NEW",
        path.display()
    )))
}
