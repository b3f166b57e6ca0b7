// SPDX-License-Identifier: Apache-2.0
//! `vdi//path`: VirtualBox's format, dynamic and fixed ("static"), for reading.
//!
//! A header, a map with an entry of 4 bytes for each block of the disk, then the blocks. All is
//! little-endian. The header is described in VirtualBox's `VDICore.h` and in QEMU's documentation.
use std::io;
use std::rc::Rc;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::reader::{
    Layout, Packed, Source, Tables, Target, damaged, invalid, other, read_struct, unserved,
};
use crate::ErrorKind;

/// At offset 64, after a text.
const MAGIC: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
/// Map entries from here on: not allocated, or zeroes.
const NO_BLOCK: u32 = 0xffff_fffe;
/// What makes an image that can be served.
const CLONE: &str = "`VBoxManage clonemedium` makes one";
/// Blocks of this size at most.
const MAX_BLOCK: u32 = 1 << 30;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    text: [u8; 64],
    magic: U32,
    version: U32,
    header_len: U32,
    kind: U32,
    flags: U32,
    description: [u8; 256],
    map_offset: U32,
    data_offset: U32,
    cylinders: U32,
    heads: U32,
    sectors: U32,
    sector_size: U32,
    unused: U32,
    disk_size: U64,
    block_size: U32,
    block_extra: U32,
    blocks: U32,
    blocks_allocated: U32,
    uuid: [u8; 16],
    uuid_snapshot: [u8; 16],
    uuid_link: [u8; 16],
    uuid_parent: [u8; 16],
}

/// An open image.
#[derive(Debug)]
pub(crate) struct Vdi<S> {
    source: S,
    size: u64,
    block_size: u64,
    map_offset: u64,
    data_offset: u64,
    tables: Tables,
}

impl<S: Source> Vdi<S> {
    /// Reads and judges the header.
    pub(crate) async fn open(source: S) -> Result<Self, ErrorKind> {
        let raw: Raw = read_struct(&source, 0).await?;
        let refuse = |field, value: u64, why| Err(invalid("VDI", field, value, why));
        if raw.magic.get() != MAGIC {
            return Err(other("a VDI image"));
        }
        if raw.version.get() != VERSION {
            let version = raw.version.get();
            return Err(unserved(format!(
                "VDI: version is {version:#x}: only 1.1 can be served; {CLONE}"
            )));
        }
        if !matches!(raw.kind.get(), 1 | 2) || raw.uuid_link != [0; 16] {
            let kind = raw.kind.get();
            return Err(unserved(format!(
                "VDI: image type is {kind}: only dynamic (1) and fixed (2) images without a parent \
                 can be served; {CLONE}"
            )));
        }
        if raw.sector_size.get() != 512 {
            return refuse("sector size", raw.sector_size.get().into(), "it has to be 512");
        }
        let block_size = raw.block_size.get();
        if !block_size.is_power_of_two() || !(512..=MAX_BLOCK).contains(&block_size) {
            return refuse("block size", block_size.into(), "it has to be a power of 2");
        }
        if raw.block_extra.get() != 0 {
            let extra = raw.block_extra.get();
            return Err(unserved(format!(
                "VDI: extra bytes of a block are {extra}: only images without can be served; {CLONE}"
            )));
        }
        for (field, value) in [("map", raw.map_offset.get()), ("data", raw.data_offset.get())] {
            if value % 512 != 0 {
                let field = format!("offset of the {field}");
                return Err(invalid("VDI", &field, value.into(), "it has to be a multiple of 512"));
            }
        }
        let blocks = u64::from(raw.blocks.get());
        let size = raw.disk_size.get();
        if size.div_ceil(block_size.into()) > blocks {
            return refuse("disk size", size, "it is more than the blocks hold");
        }
        let map_offset = u64::from(raw.map_offset.get());
        if map_offset + size.div_ceil(block_size.into()) * 4 > source.len() {
            return refuse("offset of the map", map_offset, "the map is past the end of the file");
        }
        Ok(Vdi {
            source,
            size,
            block_size: block_size.into(),
            map_offset,
            data_offset: raw.data_offset.get().into(),
            tables: Tables::new(),
        })
    }
}

impl<S: Source> Layout for Vdi<S> {
    type Source = S;

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u64 {
        self.block_size
    }

    async fn locate(&self, offset: u64) -> io::Result<(Target<'_, S>, u64)> {
        let (block, within) = (offset / self.block_size, offset % self.block_size);
        let entry = self.tables.entry((0, &self.source), self.map_offset, block).await?;
        let entry = u32::from_le_bytes(entry);
        let target = if entry >= NO_BLOCK {
            Target::Zero
        } else {
            // 2^62 and 2^32 at most.
            let start = self.data_offset + u64::from(entry) * self.block_size;
            Target::Data { source: &self.source, offset: start + within }
        };
        Ok((target, self.block_size - within))
    }

    async fn unpack(&self, _: Packed) -> io::Result<Rc<[u8]>> {
        Err(damaged("VDI has no compressed blocks"))
    }
}
