// SPDX-License-Identifier: Apache-2.0
//! Contents of fields that are compressed.

use crate::error::{Error, Result};
use std::io::Read;

/// Most bytes of a field.
pub(crate) const MAX_FIELD: u64 = 128 << 20;
/// Most memory that the decoder of XZ may take, in KiB.
const XZ_MEMORY: u32 = 256 << 10;
/// An LZ4 block's bytes say at most so many times as many.
const LZ4_RATIO: u64 = 256;

/// How a field is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Xz,
    Lz4,
    Zstd,
}

impl Compression {
    /// What the flags of an object at this offset say.
    pub(crate) fn of_flags(flags: u8, at: u64) -> Result<Option<Self>> {
        match flags & 7 {
            0 => Ok(None),
            1 => Ok(Some(Self::Xz)),
            2 => Ok(Some(Self::Lz4)),
            4 => Ok(Some(Self::Zstd)),
            _ => Err(Error::Damaged { at, what: "a field compressed in two ways" }),
        }
    }

    /// What is compressed here.
    pub(crate) fn decompress(self, bytes: &[u8], at: u64) -> Result<Vec<u8>> {
        let damaged = || Error::Damaged { at, what: "a field that cannot be decompressed" };
        let mut out = Vec::new();
        // One more byte than there may be shows that there is too much.
        let limit = MAX_FIELD + 1;
        match self {
            Self::Xz => {
                let reader = lzma_rust2::XzReader::new_mem_limit(bytes, false, XZ_MEMORY);
                reader.take(limit).read_to_end(&mut out).map_err(|_| damaged())?;
            }
            Self::Zstd => {
                let reader = ruzstd::decoding::StreamingDecoder::new(bytes);
                let reader = reader.map_err(|_| damaged())?;
                reader.take(limit).read_to_end(&mut out).map_err(|_| damaged())?;
            }
            Self::Lz4 => {
                // Before a block is the size of what is in it.
                let (size, block) = bytes.split_first_chunk().ok_or_else(damaged)?;
                let size = u64::from_le_bytes(*size);
                if size > LZ4_RATIO * block.len() as u64 {
                    return Err(damaged());
                }
                if size > MAX_FIELD {
                    return Err(Error::TooLong);
                }
                out.resize(usize::try_from(size).map_err(|_| Error::TooLong)?, 0);
                let done = lz4_flex::block::decompress_into(block, &mut out);
                if done.map_err(|_| damaged())? != out.len() {
                    return Err(damaged());
                }
            }
        }
        if out.len() as u64 > MAX_FIELD { Err(Error::TooLong) } else { Ok(out) }
    }
}
