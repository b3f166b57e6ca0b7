// SPDX-License-Identifier: Apache-2.0
//! `vmdk//path`: VMware's format, for reading: one file or several ("split"), sparse, flat, or
//! compressed for streaming (`streamOptimized`, what is in OVA files). The source: "VMware Virtual
//! Disks, Virtual Disk Format 5.0".
//!
//! A sparse extent has a header, a directory of tables, and tables that say in which sector each
//! grain is. Compressed grains have a small header of their own. All is little-endian.
mod descriptor;

use std::ffi::OsStr;
use std::io;
use std::rc::Rc;

use io_engine::unblock;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_COMPUTE_ADLER32, TINFL_FLAG_PARSE_ZLIB_HEADER,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::reader::{
    Cache, Layout, Packed, Source, Tables, Target, damaged, invalid, invalid_text, other,
    read_struct, read_vec, unserved,
};
use crate::ErrorKind;

const MAGIC: &[u8; 4] = b"KDMV";
/// Of VMware ESX 2 and 3.
const OLD_MAGIC: &[u8; 4] = b"COWD";
const SECTOR: u64 = 512;
/// In the header: the directory's offset is in the footer.
const AT_END: u64 = u64::MAX;
/// What makes an image that can be served.
const CONVERT: &str = "`qemu-img convert -O qcow2` makes one, where it knows this";
/// 1 GiB, as QEMU has it.
const MAX_GRAIN: u64 = 1 << 30;
/// Of compressed grains, which are in memory as a whole.
const MAX_PACKED_GRAIN: u64 = 2 << 20;
/// What is kept of decompressed grains, in bytes, and how many are decompressed at once.
const GRAINS: (usize, usize) = (4 << 20, 4);

/// Flags of the header.
const NEW_LINES: u32 = 1;
const USE_SECOND_DIRECTORY: u32 = 1 << 1;
const ZERO_GRAINS: u32 = 1 << 2;
const MARKERS: u32 = 1 << 17;
/// What a transfer as text would have changed.
const NEW_LINE_TEST: [u8; 4] = *b"\n \r\n";

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    version: U32,
    flags: U32,
    capacity: U64,
    grain: U64,
    descriptor_offset: U64,
    descriptor_len: U64,
    entries: U32,
    second_directory: U64,
    directory: U64,
    overhead: U64,
    unclean: u8,
    new_lines: [u8; 4],
    compression: U16,
}

/// At the end of a `streamOptimized` extent.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Footer {
    sectors: U64,
    size: U32,
    kind: U32,
    padding: [u8; 496],
    header: Raw,
    padding_of_header: [u8; 433],
    end: [u8; 16],
    padding_of_end: [u8; 496],
}

/// Opens the files that a descriptor names.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub(crate) trait Opener {
    type Source: Source;
    async fn open(&mut self, name: &OsStr) -> Result<Self::Source, ErrorKind>;
}

/// An open image.
#[derive(Debug)]
pub(crate) struct Vmdk<S> {
    extents: Vec<Extent<S>>,
    tables: Tables,
    grains: Cache<(usize, u64)>,
}

/// A part of the disk.
#[derive(Debug)]
struct Extent<S> {
    /// The offset in the disk at which it ends.
    end: u64,
    len: u64,
    kind: Kind<S>,
}

#[derive(Debug)]
enum Kind<S> {
    Flat { source: S, offset: u64 },
    Sparse { source: S, sparse: Sparse },
    Zero,
}

/// What is needed of a sparse extent's header; in bytes.
#[derive(Debug)]
struct Sparse {
    capacity: u64,
    grain: u64,
    directory: u64,
    /// Grains of a table.
    entries: u64,
    zero_grains: bool,
    /// Whether grains are compressed, and have headers.
    packed: Option<bool>,
}

impl<S: Source> Vmdk<S> {
    /// Reads and judges the headers and the descriptor of the image in `source`.
    pub(crate) async fn open(
        source: S,
        opener: &mut impl Opener<Source = S>,
    ) -> Result<Self, ErrorKind> {
        let magic = read_vec(&source, 0, 4).await?;
        let mut extents = Vec::new();
        if magic == *MAGIC || magic == *OLD_MAGIC {
            let (sparse, text) = Sparse::open(&source).await?;
            descriptor::refuse_parent(&text)?;
            let len = sparse.capacity;
            extents.push(Extent { end: len, len, kind: Kind::Sparse { source, sparse } });
        } else {
            let text = read_descriptor(&source).await?;
            let mut end = 0_u64;
            for (i, line) in descriptor::parse(&text)?.into_iter().enumerate() {
                let descriptor::Extent { len, kind } = line;
                let kind = open_extent(len, kind, opener).await.map_err(|kind| match kind {
                    ErrorKind::Invalid(text) => invalid_text(format!("extent {}: {text}", i + 1)),
                    ErrorKind::Unsupported(text) => unserved(format!("extent {}: {text}", i + 1)),
                    other => other,
                })?;
                end = end.saturating_add(len);
                extents.push(Extent { end, len, kind });
            }
            if i64::try_from(end).is_err() {
                return Err(invalid("VMDK", "size of the disk", end, "it is more than 2^63 bytes"));
            }
        }
        let grains = Cache::new(GRAINS.0, GRAINS.1);
        Ok(Vmdk { extents, tables: Tables::new(), grains })
    }
}

async fn read_descriptor<S: Source>(source: &S) -> Result<Vec<u8>, ErrorKind> {
    let len = source.len();
    if len > descriptor::MAX_LEN {
        return Err(other("a VMDK image: it has neither header nor descriptor"));
    }
    let bytes = read_vec(source, 0, usize::try_from(len).map_err(io::Error::other)?).await?;
    if !bytes.starts_with(descriptor::MAGIC) {
        return Err(other("a VMDK image: it has neither header nor descriptor"));
    }
    Ok(text_of(bytes))
}

/// Without what follows the text in its sectors.
fn text_of(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    bytes
}

async fn open_extent<S: Source>(
    len: u64,
    kind: descriptor::Kind,
    opener: &mut impl Opener<Source = S>,
) -> Result<Kind<S>, ErrorKind> {
    Ok(match kind {
        descriptor::Kind::Zero => Kind::Zero,
        descriptor::Kind::Flat { file, offset } => {
            let source = opener.open(&file).await?;
            if offset.checked_add(len).is_none_or(|end| end > source.len()) {
                let why = format!("{len} bytes from {offset} on are needed; {file:?} was cut off");
                return Err(invalid("VMDK", "length of the file", source.len(), &why));
            }
            Kind::Flat { source, offset }
        }
        descriptor::Kind::Sparse { file } => {
            let source = opener.open(&file).await?;
            let (sparse, _) = Sparse::open(&source).await?;
            if sparse.capacity < len {
                let why = format!("the descriptor says {len} bytes");
                return Err(invalid("VMDK", "capacity", sparse.capacity, &why));
            }
            Kind::Sparse { source, sparse }
        }
    })
}

impl Sparse {
    /// Reads and judges a header. Returns the embedded descriptor too, empty if there is none.
    async fn open<S: Source>(source: &S) -> Result<(Self, Vec<u8>), ErrorKind> {
        let mut raw: Raw = read_struct(source, 0).await?;
        let refuse = |field, value: u64, why: &str| Err(invalid("VMDK", field, value, why));
        if raw.magic == *OLD_MAGIC {
            return Err(unserved(
                "VMDK: extents in the format of ESX 2 and 3 (COWD) cannot be served; qemu-img \
                 convert -O qcow2 makes an image that can",
            ));
        }
        if raw.magic != *MAGIC {
            return Err(invalid_text("it is not a sparse VMDK extent: it has no header"));
        }
        let version = raw.version.get();
        if !(1..=3).contains(&version) {
            return Err(unserved(format!(
                "VMDK: version is {version}: 1 to 3 can be served; {CONVERT}"
            )));
        }
        let (text_at, text_len) = (raw.descriptor_offset.get(), raw.descriptor_len.get());
        if raw.directory.get() == AT_END {
            let at = source.len().saturating_sub(size_of::<Footer>() as u64);
            let footer: Footer = read_struct(source, at).await?;
            let marked = (footer.sectors.get(), footer.size.get(), footer.kind.get()) == (1, 0, 3);
            if !marked || footer.end != [0; 16] || footer.header.magic != *MAGIC {
                return Err(invalid_text("VMDK: its footer is missing, and it was cut off"));
            }
            raw = footer.header;
        }
        let flags = raw.flags.get();
        if flags & NEW_LINES != 0 && raw.new_lines != NEW_LINE_TEST {
            return Err(invalid_text(format!(
                "VMDK: its line ends are {:?}, and not what they were: it was transferred as text",
                raw.new_lines
            )));
        }
        let packed = match raw.compression.get() {
            0 => None,
            1 => Some(flags & MARKERS != 0),
            other => {
                return Err(unserved(format!(
                    "VMDK: compression is {other}: 0 and 1 (deflate) can be served; {CONVERT}"
                )));
            }
        };
        let grain = raw.grain.get().saturating_mul(SECTOR);
        let most = if packed.is_some() { MAX_PACKED_GRAIN } else { MAX_GRAIN };
        if grain == 0 || grain > most {
            let why = format!("1 to {} can be served", most / SECTOR);
            return refuse("grain size in sectors", raw.grain.get(), &why);
        }
        let entries = u64::from(raw.entries.get());
        if entries == 0 || entries > 512 {
            return refuse("entries of a grain table", entries, "1 to 512 can be served");
        }
        let capacity = raw.capacity.get().saturating_mul(SECTOR);
        if capacity == 0 || i64::try_from(capacity).is_err() {
            return refuse("capacity in sectors", raw.capacity.get(), "it is not a size");
        }
        let second = flags & USE_SECOND_DIRECTORY != 0;
        let directory = if second { raw.second_directory } else { raw.directory };
        let directory_at = directory.get().saturating_mul(SECTOR);
        let tables = capacity.div_ceil(grain).div_ceil(entries);
        let end = tables.checked_mul(4).and_then(|len| len.checked_add(directory_at));
        if directory_at == 0 || end.is_none_or(|end| end > source.len()) {
            let why = "the directory is past the end of the file, which was cut off or is damaged";
            return refuse("sector of the grain directory", directory.get(), why);
        }
        if raw.overhead.get() != AT_END && raw.overhead.get() > source.len().div_ceil(SECTOR) {
            let why = "it is past the end of the file, which was cut off or is damaged";
            return refuse("sector of the first grain", raw.overhead.get(), why);
        }
        if raw.unclean != 0 {
            tracing::warn!("VMDK: it was not closed; what was written last may be missing");
        }
        let text = if text_at == 0 || text_len == 0 {
            Vec::new()
        } else {
            let len = text_len.saturating_mul(SECTOR);
            if len > descriptor::MAX_LEN {
                return refuse("sectors of the descriptor", text_len, "that is more than 1 MiB");
            }
            let len = usize::try_from(len).map_err(io::Error::other)?;
            text_of(read_vec(source, text_at.saturating_mul(SECTOR), len).await?)
        };
        let sparse = Sparse {
            capacity,
            grain,
            directory: directory_at,
            entries,
            zero_grains: flags & ZERO_GRAINS != 0,
            packed,
        };
        Ok((sparse, text))
    }
}

impl<S: Source> Layout for Vmdk<S> {
    type Source = S;

    fn size(&self) -> u64 {
        self.extents.last().map_or(0, |extent| extent.end)
    }

    fn block_size(&self) -> u64 {
        self.extents
            .iter()
            .find_map(|extent| match &extent.kind {
                Kind::Sparse { sparse, .. } => Some(sparse.grain),
                Kind::Flat { .. } | Kind::Zero => None,
            })
            .unwrap_or(4096)
    }

    async fn locate(&self, offset: u64) -> io::Result<(Target<'_, S>, u64)> {
        let which = self.extents.partition_point(|extent| extent.end <= offset);
        let extent = self.extents.get(which).ok_or_else(|| damaged("past the end of the disk"))?;
        let left = extent.end - offset;
        let at = extent.len - left;
        let (source, sparse) = match &extent.kind {
            Kind::Zero => return Ok((Target::Zero, left)),
            Kind::Flat { source, offset } => {
                return Ok((Target::Data { source, offset: offset + at }, left));
            }
            Kind::Sparse { source, sparse } => (source, sparse),
        };
        let (block, within) = (at / sparse.grain, at % sparse.grain);
        let table = block / sparse.entries;
        let entry = self.tables.entry((which, source), sparse.directory, table).await?;
        let table_sector = u32::from_le_bytes(entry);
        if table_sector == 0 {
            let end = ((table + 1) * sparse.entries).saturating_mul(sparse.grain);
            return Ok((Target::Zero, left.min(end - at)));
        }
        let table_at = u64::from(table_sector) * SECTOR;
        let index = block % sparse.entries;
        let entry = self.tables.entry((which, source), table_at, index).await?;
        let start = u64::from(u32::from_le_bytes(entry)) * SECTOR;
        let target = match (start / SECTOR, sparse.packed) {
            (0, _) => Target::Zero,
            (1, _) if sparse.zero_grains => Target::Zero,
            (_, None) => Target::Data { source, offset: start + within },
            (_, Some(_)) => Target::Packed(Packed { which, block, offset: start, skip: within }),
        };
        Ok((target, left.min(sparse.grain - within)))
    }

    async fn unpack(&self, packed: Packed) -> io::Result<Rc<[u8]>> {
        let Packed { which, block, offset, .. } = packed;
        let extent = self.extents.get(which).map(|extent| &extent.kind);
        let Some(Kind::Sparse { source, sparse }) = extent else {
            return Err(damaged("a compressed grain of an extent that has none"));
        };
        let marked = sparse.packed == Some(true);
        let unpack = async || {
            let bytes = read_packed(source, offset, sparse.grain, marked).await?;
            let grain = usize::try_from(sparse.grain).map_err(io::Error::other)?;
            // The last one may be shorter than a grain.
            let least = sparse.capacity - block * sparse.grain;
            let least = usize::try_from(least).unwrap_or(usize::MAX).min(grain);
            let unpacked = unblock(move || inflate(&bytes, grain)).await;
            unpacked.filter(|(_, n)| *n >= least).map(|(bytes, _)| Rc::from(bytes)).ok_or_else(
                || damaged(format!("the compressed grain {block} at {offset} is damaged")),
            )
        };
        self.grains.get((which, block), unpack).await
    }
}

/// The compressed bytes of a grain at `offset`.
async fn read_packed<S: Source>(
    source: &S,
    offset: u64,
    grain: u64,
    marked: bool,
) -> io::Result<Vec<u8>> {
    /// Number of the grain, and length of what follows.
    const MARKER: u64 = 12;
    let there = source.len().saturating_sub(offset);
    let most = 2 * grain;
    // Nearly always a grain has become smaller, and this is all of it.
    let first = there.min(if marked { MARKER + grain } else { most });
    let mut bytes = read_vec(source, offset, usize::try_from(first).unwrap_or(0)).await?;
    if !marked {
        return Ok(bytes);
    }
    let outside = || damaged(format!("the compressed grain at {offset} is cut off"));
    let len = bytes.get(8..12).and_then(|len| len.first_chunk()).ok_or_else(outside)?;
    let len = u64::from(u32::from_le_bytes(*len));
    if len > most {
        return Err(damaged(format!("the compressed grain at {offset} has {len} bytes")));
    }
    let end = MARKER + len;
    if end > first {
        let more = usize::try_from(end - first).map_err(io::Error::other)?;
        bytes.extend(read_vec(source, offset + first, more).await?);
    }
    bytes.truncate(usize::try_from(end).map_err(io::Error::other)?);
    bytes.drain(..12);
    Ok(bytes)
}

/// Decompresses a grain, of which the rest is zero; returns how many bytes there were.
fn inflate(packed: &[u8], grain: usize) -> Option<(Vec<u8>, usize)> {
    let mut bytes = vec![0; grain];
    let flags = TINFL_FLAG_PARSE_ZLIB_HEADER
        | TINFL_FLAG_COMPUTE_ADLER32
        | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = Box::new(DecompressorOxide::new());
    let (status, _, n) = decompress(&mut state, packed, &mut bytes, 0, flags);
    (status == TINFLStatus::Done).then_some((bytes, n))
}
