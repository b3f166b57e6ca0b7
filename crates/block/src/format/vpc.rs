// SPDX-License-Identifier: Apache-2.0
//! `vpc//path`: the format of Microsoft Virtual PC and Azure (VHD), fixed and dynamic, for
//! reading. The source: "Virtual Hard Disk Image Format Specification" 1.0.
//!
//! A footer of 512 bytes at the end; dynamic images have a copy of it at the beginning, then a
//! second header, and a table with the sector of each block, which begins with a bitmap. All is
//! big-endian. Images without parents do not need the bitmaps.
use std::io;
use std::rc::Rc;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::reader::{
    Layout, Packed, Source, Tables, Target, damaged, invalid, invalid_text, is_right, read_struct,
    unserved,
};
use crate::ErrorKind;

const MAGIC: &[u8; 8] = b"conectix";
const DYNAMIC_MAGIC: &[u8; 8] = b"cxsparse";
const SECTOR: u64 = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
const NO_BLOCK: u32 = u32::MAX;
/// What makes an image that can be served.
const CONVERT: &str = "Hyper-V's Convert-VHD makes one that can be";
/// The most that a geometry can say: 127 GiB.
const MAX_GEOMETRY: u64 = 65535 * 16 * 255;
/// 2040 GiB, the most that the format can hold.
const MAX_SIZE: u64 = 2040 << 30;
/// Programs that tell the size of the disk in `current_size`, and in the geometry a rounded one.
/// For all others the geometry is the size, as guests of Virtual PC see it. QEMU decides alike.
const EXACT: [&[u8; 4]; 6] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"];

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Footer {
    magic: [u8; 8],
    features: U32,
    version: U32,
    data_offset: U64,
    time: U32,
    creator: [u8; 4],
    creator_version: U32,
    creator_os: [u8; 4],
    original_size: U64,
    current_size: U64,
    cylinders: U16,
    heads: u8,
    sectors: u8,
    kind: U32,
    checksum: U32,
    uuid: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Dynamic {
    magic: [u8; 8],
    data_offset: U64,
    table_offset: U64,
    version: U32,
    entries: U32,
    block_size: U32,
    checksum: U32,
    rest: [u8; 984],
}

/// The complement of the sum of all bytes except those of the sum itself.
fn checksum(bytes: &[u8], own: U32) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    !sum(bytes).wrapping_sub(sum(own.as_bytes()))
}

/// An open image.
#[derive(Debug)]
pub(crate) struct Vpc<S> {
    source: S,
    size: u64,
    blocks: Option<Blocks>,
}

/// Where the blocks of a dynamic image are.
#[derive(Debug)]
struct Blocks {
    size: u64,
    /// Bytes of the bitmap before each block.
    bitmap: u64,
    table: u64,
    tables: Tables,
}

impl<S: Source> Vpc<S> {
    /// Reads and judges the footer.
    pub(crate) async fn open(source: S) -> Result<Self, ErrorKind> {
        // The first sector of a fixed image is the guest's, who could write a footer there: the one
        // at the end decides.
        let mut footer: Footer = read_struct(&source, source.len().saturating_sub(SECTOR)).await?;
        if footer.magic != *MAGIC {
            footer = read_struct(&source, 0).await?;
            if footer.kind.get() == FIXED {
                footer.magic = [0; 8];
            }
        }
        let refuse = |field, value: u64, why| Err(invalid("VHD", field, value, why));
        if footer.magic != *MAGIC {
            let text = "it is not a VHD image: there is no footer at its end; if it was one, it was \
                        cut off";
            return Err(invalid_text(text));
        }
        let sum = footer.checksum;
        if !is_right(checksum(footer.as_bytes(), sum), sum.get()) {
            return refuse("checksum of the footer", sum.get().into(), "it is wrong");
        }
        if footer.version.get() >> 16 != 1 {
            let version = footer.version.get();
            return Err(unserved(format!(
                "VHD: version is {version:#x}: only 1 can be served; {CONVERT}"
            )));
        }
        let size = size_of_disk(&footer);
        if size > MAX_SIZE {
            return refuse("size of the disk", size, "it is more than 2040 GiB");
        }
        match footer.kind.get() {
            FIXED => Self::fixed(source, size),
            DYNAMIC => Self::dynamic(source, size, footer.data_offset.get()).await,
            DIFFERENCING => {
                let text = "VHD: type is 4: it is a differencing image, which needs its parent";
                Err(unserved(format!("{text}; {CONVERT}")))
            }
            other => refuse("type", other.into(), "it has to be 2 (fixed) or 3 (dynamic)"),
        }
    }

    fn fixed(source: S, size: u64) -> Result<Self, ErrorKind> {
        let most = source.len().saturating_sub(SECTOR);
        if size > most {
            let why = format!("the file has only {most} bytes before its footer");
            return Err(invalid("VHD", "size of the disk", size, &why));
        }
        Ok(Vpc { source, size, blocks: None })
    }

    async fn dynamic(source: S, size: u64, at: u64) -> Result<Self, ErrorKind> {
        let refuse = |field, value: u64, why| Err(invalid("VHD", field, value, why));
        let header: Dynamic = read_struct(&source, at).await?;
        if header.magic != *DYNAMIC_MAGIC {
            return refuse("offset of the second header", at, "there is none");
        }
        let sum = header.checksum;
        if !is_right(checksum(header.as_bytes(), sum), sum.get()) {
            return refuse("checksum of the second header", sum.get().into(), "it is wrong");
        }
        let block_size = u64::from(header.block_size.get());
        if !block_size.is_power_of_two() || block_size < SECTOR {
            return refuse("block size", block_size, "it has to be a power of 2 from 512");
        }
        let entries = u64::from(header.entries.get());
        if size.div_ceil(block_size) > entries {
            return refuse("entries of the table", entries, "the disk needs more");
        }
        let table = header.table_offset.get();
        if table.checked_add(entries * 4).is_none_or(|end| end > source.len()) {
            return refuse("offset of the table", table, "the table is past the end of the file");
        }
        let bitmap = (block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        let blocks = Blocks { size: block_size, bitmap, table, tables: Tables::new() };
        Ok(Vpc { source, size, blocks: Some(blocks) })
    }
}

fn size_of_disk(footer: &Footer) -> u64 {
    let sectors =
        u64::from(footer.cylinders.get()) * u64::from(footer.heads) * u64::from(footer.sectors);
    if EXACT.contains(&&footer.creator) || sectors == MAX_GEOMETRY {
        footer.current_size.get()
    } else {
        sectors * SECTOR
    }
}

impl<S: Source> Layout for Vpc<S> {
    type Source = S;

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u64 {
        self.blocks.as_ref().map_or(4096, |blocks| blocks.size)
    }

    async fn locate(&self, offset: u64) -> io::Result<(Target<'_, S>, u64)> {
        let source = &self.source;
        let Some(blocks) = &self.blocks else {
            return Ok((Target::Data { source, offset }, self.size - offset));
        };
        let (block, within) = (offset / blocks.size, offset % blocks.size);
        let entry = blocks.tables.entry((0, source), blocks.table, block).await?;
        let entry = u32::from_be_bytes(entry);
        let target = if entry == NO_BLOCK {
            Target::Zero
        } else {
            let start = u64::from(entry) * SECTOR + blocks.bitmap;
            Target::Data { source, offset: start + within }
        };
        Ok((target, blocks.size - within))
    }

    async fn unpack(&self, _: Packed) -> io::Result<Rc<[u8]>> {
        Err(damaged("VHD has no compressed blocks"))
    }
}
