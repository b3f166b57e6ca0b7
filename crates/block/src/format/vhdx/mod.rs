// SPDX-License-Identifier: Apache-2.0
//! `vhdx//path`: Hyper-V's format, fixed and dynamic, for reading. The source: Microsoft's
//! "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format".
//!
//! Two headers, two region tables, a region of metadata, and the block allocation table (BAT). What
//! its last user had not finished is in a log, which is replayed in memory (`log`): the file is
//! never written. All is little-endian.
mod log;

use std::io;
use std::rc::Rc;

use crc_fast::CrcAlgorithm;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::reader::{
    Layout, Packed, Source, Tables, Target, damaged, invalid, invalid_text, is_right, other,
    read_struct, read_vec, unserved,
};
use crate::ErrorKind;
use log::Replayed;

const MAGIC: &[u8; 8] = b"vhdxfile";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Where the headers and the region tables are.
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const REGION_TABLES: [u64; 2] = [192 * KIB, 256 * KIB];
const HEADER_LEN: usize = 4 << 10;
const TABLE_LEN: usize = 64 << 10;
/// Entries of a region table or of the metadata table at most.
const MAX_ENTRIES: usize = 2047;
/// What makes an image that can be served.
const CONVERT: &str = "Hyper-V's Convert-VHD makes one that can be";
/// 64 TiB.
const MAX_SIZE: u64 = 64 << 40;

/// A GUID as it is in files: its first three fields are little-endian.
type Guid = [u8; 16];

const fn guid(a: u32, b: u16, c: u16, rest: [u8; 8]) -> Guid {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rest;
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], r0, r1, r2, r3, r4, r5, r6, r7]
}

/// As it is in the file.
fn in_hex(guid: Guid) -> String {
    format!("{:032x}", u128::from_be_bytes(guid))
}

const BAT: Guid =
    guid(0x2dc2_7766, 0xf623, 0x4200, [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);
const METADATA: Guid =
    guid(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);
const FILE_PARAMETERS: Guid =
    guid(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
const DISK_SIZE: Guid =
    guid(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
const DISK_ID: Guid =
    guid(0xbeca_12ab, 0xb2e6, 0x4523, [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46]);
const LOGICAL_SECTOR: Guid =
    guid(0x8141_bf1d, 0xa96f, 0x4709, [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f]);
const PHYSICAL_SECTOR: Guid =
    guid(0xcda3_48c7, 0x445d, 0x4471, [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56]);

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    checksum: U32,
    sequence: U64,
    file_write_guid: Guid,
    data_write_guid: Guid,
    log_guid: Guid,
    log_version: U16,
    version: U16,
    log_len: U32,
    log_offset: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RegionTable {
    magic: [u8; 4],
    checksum: U32,
    count: U32,
    reserved: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Region {
    guid: Guid,
    offset: U64,
    len: U32,
    required: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MetadataTable {
    magic: [u8; 8],
    reserved: U16,
    count: U16,
    unused: [u8; 20],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Item {
    guid: Guid,
    offset: U32,
    len: U32,
    flags: U32,
    reserved: U32,
}

/// A flag of metadata items: they must be understood.
const REQUIRED: u32 = 1 << 2;

/// CRC-32C of a structure, in which the checksum's own 4 bytes, at offset 4, count as zeroes.
struct Checksum(crc_fast::Digest);

impl Checksum {
    /// Begins with the first bytes of the structure, at least 8.
    fn new(bytes: &[u8]) -> Self {
        let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(bytes.get(..4).unwrap_or_default());
        digest.update(&[0; 4]);
        digest.update(bytes.get(8..).unwrap_or_default());
        Checksum(digest)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn value(&self) -> u32 {
        // Its upper half is zero.
        u32::try_from(self.0.finalize() & u64::from(u32::MAX)).unwrap_or_default()
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    Checksum::new(bytes).value()
}

/// An open image.
#[derive(Debug)]
pub(crate) struct Vhdx<S> {
    source: Replayed<S>,
    size: u64,
    block_size: u64,
    /// Payload blocks for each entry of a sector bitmap.
    chunk: u64,
    bat: u64,
    tables: Tables,
}

/// What the metadata say.
#[derive(Debug, Default)]
struct Metadata {
    block_size: u64,
    has_parent: bool,
    size: u64,
    logical_sector: u64,
}

impl<S: Source> Vhdx<S> {
    /// Reads and judges the headers, the tables and the metadata; replays the log in memory.
    pub(crate) async fn open(source: S) -> Result<Self, ErrorKind> {
        if read_vec(&source, 0, MAGIC.len()).await? != *MAGIC {
            return Err(other("a VHDX image"));
        }
        let header = current_header(&source).await?;
        let refuse = |field, value: u64, why| Err(invalid("VHDX", field, value, why));
        if header.version.get() != 1 {
            let version = header.version.get();
            return Err(unserved(format!(
                "VHDX: version is {version}: only 1 can be served; {CONVERT}"
            )));
        }
        let source = if header.log_guid == [0; 16] {
            Replayed::clean(source)
        } else {
            let (at, len) = (header.log_offset.get(), header.log_len.get());
            if header.log_version.get() != 0 {
                let version = header.log_version.get();
                return Err(unserved(format!(
                    "VHDX: version of the log is {version}: only 0 can be replayed; {CONVERT}"
                )));
            }
            Replayed::replay(source, at, len, header.log_guid).await?
        };
        let (bat, metadata) = regions(&source).await?;
        let metadata = read_metadata(&source, metadata).await?;
        let (size, block_size) = (metadata.size, metadata.block_size);
        if metadata.has_parent {
            return Err(unserved(format!(
                "VHDX: it is a differencing image (HasParent), which is not supported; {CONVERT}"
            )));
        }
        if !block_size.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_size) {
            let why = "it has to be a power of 2 from 1 MiB to 256 MiB";
            return refuse("block size", block_size, why);
        }
        if !matches!(metadata.logical_sector, 512 | 4096) {
            return refuse(
                "logical sector size",
                metadata.logical_sector,
                "it has to be 512 or 4096",
            );
        }
        if size == 0 || size > MAX_SIZE || size % metadata.logical_sector != 0 {
            return refuse("disk size", size, "it has to be a number of sectors, up to 64 TiB");
        }
        let chunk = (metadata.logical_sector << 23) / block_size;
        let blocks = size.div_ceil(block_size);
        // After each chunk there is an entry for its bitmap.
        let entries = blocks + (blocks - 1) / chunk;
        if entries * 8 > bat.1 {
            return refuse("length of the BAT", bat.1, "the disk needs more");
        }
        Ok(Vhdx { source, size, block_size, chunk, bat: bat.0, tables: Tables::new() })
    }
}

/// The header that is valid and has the higher sequence number.
async fn current_header<S: Source>(source: &S) -> Result<Header, ErrorKind> {
    let mut current: Option<Header> = None;
    for at in HEADERS {
        let bytes = read_vec(source, at, HEADER_LEN).await?;
        let Ok((header, _)) = Header::read_from_prefix(&bytes) else { continue };
        let valid = header.magic == *b"head" && is_right(checksum(&bytes), header.checksum.get());
        let newer = current.as_ref().is_none_or(|old| header.sequence.get() > old.sequence.get());
        if valid && newer {
            current = Some(header);
        }
    }
    current.ok_or_else(|| invalid_text("VHDX: neither of its two headers is valid"))
}

/// Offset and length of the BAT, and of the metadata.
async fn regions<S: Source>(source: &S) -> Result<((u64, u64), (u64, u64)), ErrorKind> {
    let mut bytes = Vec::new();
    for at in REGION_TABLES {
        let table = read_vec(source, at, TABLE_LEN).await?;
        let valid = RegionTable::ref_from_prefix(&table).is_ok_and(|(table_header, _)| {
            table_header.magic == *b"regi"
                && is_right(checksum(&table), table_header.checksum.get())
        });
        if valid {
            bytes = table;
            break;
        }
    }
    let Ok((table, rest)) = RegionTable::ref_from_prefix(&bytes) else {
        return Err(invalid_text("VHDX: neither of its two region tables is valid"));
    };
    let (mut bat, mut metadata) = (None, None);
    for bytes in entries(rest, table.count.get(), "regions")? {
        let Ok(region) = Region::ref_from_bytes(bytes) else { continue };
        let (at, len) = (region.offset.get(), u64::from(region.len.get()));
        let place = match region.guid {
            BAT => &mut bat,
            METADATA => &mut metadata,
            _ if region.required.get() & 1 == 0 => continue,
            _ => {
                return Err(unserved(format!(
                    "VHDX: it needs the region {}, which is not known; {CONVERT}",
                    in_hex(region.guid)
                )));
            }
        };
        if at < MIB || at.checked_add(len).is_none_or(|end| end > source.len()) {
            let why = "it is not inside the file, which was cut off or is damaged";
            return Err(invalid("VHDX", "offset of a region", at, why));
        }
        *place = Some((at, len));
    }
    match (bat, metadata) {
        (Some(bat), Some(metadata)) => Ok((bat, metadata)),
        _ => Err(invalid_text("VHDX: its region table names no BAT, or no metadata")),
    }
}

/// The entries, of 32 bytes each, of a table.
fn entries<'a>(
    bytes: &'a [u8],
    count: u32,
    what: &str,
) -> Result<impl Iterator<Item = &'a [u8; 32]>, ErrorKind> {
    match usize::try_from(count) {
        Ok(count) if count <= MAX_ENTRIES => Ok(bytes.as_chunks().0.iter().take(count)),
        _ => {
            let field = format!("number of {what}");
            Err(invalid("VHDX", &field, count.into(), "2047 is the most"))
        }
    }
}

async fn read_metadata<S: Source>(
    source: &S,
    (at, len): (u64, u64),
) -> Result<Metadata, ErrorKind> {
    let bytes = read_vec(source, at, TABLE_LEN).await?;
    let Ok((table, rest)) = MetadataTable::ref_from_prefix(&bytes) else {
        return Err(invalid_text("VHDX: its metadata are too short"));
    };
    if table.magic != *b"metadata" {
        return Err(invalid_text("VHDX: its metadata table has no signature"));
    }
    let mut metadata = Metadata::default();
    for bytes in entries(rest, table.count.get().into(), "metadata items")? {
        let Ok(item) = Item::ref_from_bytes(bytes) else { continue };
        let offset = u64::from(item.offset.get());
        let position = at + offset;
        let inside = |need: u64| {
            let end = offset + u64::from(item.len.get());
            if u64::from(item.len.get()) < need || end > len {
                let why = "the item is too short, or outside of its region";
                return Err(invalid("VHDX", "offset of a metadata item", offset, why));
            }
            Ok(())
        };
        match item.guid {
            FILE_PARAMETERS => {
                inside(8)?;
                let [block_size, flags]: [U32; 2] = read_struct(source, position).await?;
                metadata.block_size = block_size.get().into();
                metadata.has_parent = flags.get() & 2 != 0;
            }
            DISK_SIZE => {
                inside(8)?;
                metadata.size = read_struct::<U64, _>(source, position).await?.get();
            }
            LOGICAL_SECTOR => {
                inside(4)?;
                metadata.logical_sector =
                    read_struct::<U32, _>(source, position).await?.get().into();
            }
            DISK_ID | PHYSICAL_SECTOR => {}
            _ if item.flags.get() & REQUIRED == 0 => {}
            // A parent locator too, but that is told by its flag.
            _ if metadata.has_parent => {}
            _ => {
                return Err(unserved(format!(
                    "VHDX: it needs the metadata item {}, which is not known; {CONVERT}",
                    in_hex(item.guid)
                )));
            }
        }
    }
    Ok(metadata)
}

impl<S: Source> Layout for Vhdx<S> {
    type Source = Replayed<S>;

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u64 {
        self.block_size
    }

    async fn locate(&self, offset: u64) -> io::Result<(Target<'_, Replayed<S>>, u64)> {
        let (block, within) = (offset / self.block_size, offset % self.block_size);
        let index = block + block / self.chunk;
        let entry = self.tables.entry((0, &self.source), self.bat, index).await?;
        let entry = u64::from_le_bytes(entry);
        let target = match entry & 7 {
            // Not present, undefined, zero, unmapped; and unmapped in an old version of the format.
            0..=3 | 5 => Target::Zero,
            6 => {
                let start = entry >> 20 << 20;
                if start < MIB {
                    return Err(damaged(format!("BAT entry {index}: {entry:#x}: it has no block")));
                }
                let offset = start.checked_add(within);
                let offset =
                    offset.ok_or_else(|| damaged(format!("BAT entry {index}: {entry:#x}")))?;
                Target::Data { source: &self.source, offset }
            }
            state => return Err(damaged(format!("BAT entry {index}: its state is {state}"))),
        };
        Ok((target, self.block_size - within))
    }

    async fn unpack(&self, _: Packed) -> io::Result<Rc<[u8]>> {
        Err(damaged("VHDX has no compressed blocks"))
    }
}
