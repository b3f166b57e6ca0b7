// SPDX-License-Identifier: Apache-2.0
//! The .xz format ("The .xz File Format" 1.2.1, tukaani.org). A file consists of streams, a stream
//! of blocks and, at its end, an index with their sizes, so that opening needs only the ends of
//! streams. Blocks are decompressed by themselves; `xz -T0` or `--block-size` makes more than one.
use std::io;

use crc_fast::{CrcAlgorithm, Digest};
use lzma_rust2::{Action, Lzma2Stream, Status};
use sha2::{Digest as _, Sha256};
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::super::reader::{
    Source, damaged, invalid, invalid_text, is_right, other, read_struct, read_vec, unserved,
    unserved_io,
};
use super::{Compressed, Decoder, Format, MAX_POINTS, Point, Step};
use crate::ErrorKind;

pub(crate) const MAGIC: &[u8; 6] = b"\xfd7zXZ\0";
/// Bytes of the header and of the footer of a stream.
const END_LEN: u64 = 12;
/// Zeroes between streams are not looked through for longer than this, in bytes.
const MAX_PADDING: u64 = 1 << 20;
/// `xz -9` has 64 MiB.
const MAX_DICTIONARY: u64 = 64 << 20;
/// Blocks longer than this are named in a warning: a read in them may take long.
const LONG_BLOCK: u64 = 64 << 20;
const LZMA2: u64 = 0x21;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StreamHeader {
    magic: [u8; 6],
    flags: [u8; 2],
    checksum: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StreamFooter {
    checksum: U32,
    backward: U32,
    flags: [u8; 2],
    magic: [u8; 2],
}

fn crc32(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, bytes)
}

/// Takes a number of variable length from the start of `bytes`.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Opens an image.
pub(crate) async fn open<S: Source>(source: S) -> Result<Compressed<S, Xz>, ErrorKind> {
    let mut streams = Vec::new();
    let mut count = 0;
    let mut end = source.len();
    let first: StreamHeader = read_struct(&source, 0).await?;
    if first.magic != *MAGIC {
        return Err(other("an .xz file"));
    }
    while end > 0 {
        let (stream, start) = Stream::read(&source, end, MAX_POINTS - count).await?;
        count += stream.blocks.len();
        // Empty streams too.
        if streams.len() == MAX_POINTS {
            return Err(unserved(
                "xz: it has too many streams; compress it again, with longer ones",
            ));
        }
        streams.push(stream);
        end = start;
    }
    let mut blocks = Vec::with_capacity(count);
    let mut size = 0_u64;
    for stream in streams.iter().rev() {
        let mut packed = stream.start + END_LEN;
        for (unpadded, plain) in &stream.blocks {
            if *plain > 0 {
                let check = stream.check;
                blocks.push(Block { start: size, packed, unpadded: *unpadded, check });
            }
            packed += unpadded.next_multiple_of(4);
            size = size.saturating_add(*plain);
        }
    }
    if i64::try_from(size).is_err() {
        return Err(invalid("xz", "size", size, "it is more than 2^63 bytes"));
    }
    // All blocks of what one program made have the same filters: what cannot be read is no image.
    if let Some(first) = blocks.first() {
        read_block_header(&source, first.packed).await?;
    }
    let xz = Xz { blocks, size };
    let longest = (0..xz.blocks.len()).map(|i| xz.end(i) - xz.blocks.get(i).map_or(0, |b| b.start));
    if let Some(longest) = longest.max().filter(|longest| *longest > LONG_BLOCK) {
        tracing::warn!(
            "xz: a block has {longest} bytes: reads that are not in order are slow; xz \
             --block-size=4MiB makes an image without long blocks"
        );
    }
    Ok(Compressed::new(source, xz))
}

/// What the index of a stream says.
struct Stream {
    start: u64,
    check: u8,
    /// Of each block: length without padding, and length decompressed.
    blocks: Vec<(u64, u64)>,
}

impl Stream {
    /// Reads the index of the stream that ends at `end`, and returns where it begins. It may have
    /// `most` blocks.
    async fn read<S: Source>(
        source: &S,
        mut end: u64,
        most: usize,
    ) -> Result<(Self, u64), ErrorKind> {
        let wrong = |what: &str, at: u64| {
            invalid_text(format!(
                "xz: {what} at offset {at} is wrong; the file was cut off or is damaged"
            ))
        };
        let last = end;
        while end >= 4 && read_vec(source, end - 4, 4).await? == [0; 4] {
            end -= 4;
            if last - end > MAX_PADDING {
                return Err(wrong("the padding", end));
            }
        }
        let footer_at = end.checked_sub(END_LEN).ok_or_else(|| wrong("the end", end))?;
        let footer_bytes = read_vec(source, footer_at, 12).await?;
        let footer: StreamFooter = read_struct(source, footer_at).await?;
        let sum = crc32(footer_bytes.get(4..10).unwrap_or_default());
        if footer.magic != *b"YZ" || !is_right(sum, footer.checksum.get().into()) {
            return Err(wrong("the stream footer", footer_at));
        }
        let [0, check @ 0..=15] = footer.flags else {
            return Err(wrong("the stream footer", footer_at));
        };
        let index_len = (u64::from(footer.backward.get()) + 1) * 4;
        let index_at = footer_at.checked_sub(index_len).ok_or_else(|| wrong("the index", end))?;
        // Of each block two numbers of at most 9 bytes.
        if index_len > 18 * MAX_POINTS as u64 {
            return Err(unserved(format!(
                "xz: length of the index is {index_len}: it has too many blocks; compress it again, \
                 with longer ones"
            )));
        }
        let len = usize::try_from(index_len).map_err(io::Error::other)?;
        let index = read_vec(source, index_at, len).await?;
        let blocks = parse_index(&index, most).ok_or_else(|| wrong("the index", index_at))?;
        let len = blocks.iter().try_fold(0_u64, |sum, (unpadded, _)| {
            sum.checked_add(unpadded.checked_next_multiple_of(4)?)
        });
        let start = len.and_then(|len| index_at.checked_sub(len)?.checked_sub(END_LEN));
        let start = start.ok_or_else(|| wrong("the index", index_at))?;
        let header: StreamHeader = read_struct(source, start).await?;
        let sum = u64::from(header.checksum.get());
        if header.magic != *MAGIC
            || header.flags != footer.flags
            || !is_right(crc32(&header.flags), sum)
        {
            return Err(wrong("the stream header", start));
        }
        Ok((Stream { start, check, blocks }, start))
    }
}

fn parse_index(index: &[u8], most: usize) -> Option<Vec<(u64, u64)>> {
    let (records, sum) = index.split_last_chunk::<4>()?;
    if !is_right(crc32(records), u32::from_le_bytes(*sum).into()) {
        return None;
    }
    let (0, mut records) = records.split_first()? else { return None };
    let count = usize::try_from(number(&mut records)?).ok().filter(|count| *count <= most)?;
    let mut blocks = Vec::new();
    for _ in 0..count {
        let unpadded = number(&mut records)?;
        blocks.push((unpadded, number(&mut records)?));
        if unpadded < 5 {
            return None;
        }
    }
    // Padding.
    (records.len() < 4 && records.iter().all(|byte| *byte == 0)).then_some(blocks)
}

#[derive(Clone, Copy, Debug)]
struct Block {
    /// In the disk.
    start: u64,
    /// In the file.
    packed: u64,
    /// Header, compressed data and check.
    unpadded: u64,
    /// Which check is at its end.
    check: u8,
}

/// The blocks of a file.
#[derive(Debug)]
pub(crate) struct Xz {
    blocks: Vec<Block>,
    size: u64,
}

impl Xz {
    fn index(&self, offset: u64) -> usize {
        self.blocks.partition_point(|block| block.start <= offset).saturating_sub(1)
    }

    /// Where a block ends in the disk.
    fn end(&self, index: usize) -> u64 {
        self.blocks.get(index + 1).map_or(self.size, |next| next.start)
    }
}

impl Format for Xz {
    type Decoder = XzDecoder;

    fn size(&self) -> u64 {
        self.size
    }

    fn point(&self, offset: u64) -> Point {
        let i = self.index(offset);
        let start = self.blocks.get(i).map_or(0, |block| block.start);
        Point { start, end: Some(self.end(i)) }
    }

    async fn begin<S: Source>(&self, source: &S, offset: u64) -> io::Result<(XzDecoder, u64)> {
        let i = self.index(offset);
        let block = *self.blocks.get(i).ok_or_else(|| damaged("it has no blocks"))?;
        let at = block.packed;
        let (dictionary, len) = read_block_header(source, at).await?;
        let plain = self.end(i) - block.start;
        let check = Check::new(block.check);
        let packed = block
            .unpadded
            .checked_sub(len as u64 + check.len as u64)
            .ok_or_else(|| damaged(format!("the xz block at {at} is shorter than its header")))?;
        let dictionary = dictionary.min(plain.next_multiple_of(16).max(4096));
        if dictionary > MAX_DICTIONARY {
            return Err(unserved_io(format!(
                "the block at {at} needs {dictionary} bytes of memory, and 64 MiB is the most; compress \
                 it again, with `xz -9` or less"
            )));
        }
        let dictionary = u32::try_from(dictionary).map_err(io::Error::other)?;
        let stream = Box::new(Lzma2Stream::new(dictionary));
        let padding = usize::try_from(packed.wrapping_add(len as u64).wrapping_neg() % 4);
        let padding = padding.map_err(io::Error::other)?;
        let (memory, at_end) = (dictionary as usize, false);
        Ok((XzDecoder { stream, plain, packed, padding, check, memory, at_end }, at + len as u64))
    }
}

/// The size of the dictionary and the length of the header of the block at `at`, in bytes.
async fn read_block_header<S: Source>(source: &S, at: u64) -> io::Result<(u64, usize)> {
    let len = read_vec(source, at, 1).await?.first().map_or(0, |n| (usize::from(*n) + 1) * 4);
    let header = read_vec(source, at, len).await?;
    let dictionary = parse_block_header(&header);
    let dictionary = dictionary
        .map_err(|e| io::Error::new(e.kind(), format!("the header of the block at {at}: {e}")))?;
    Ok((dictionary, len))
}

/// The size of the dictionary, in bytes.
fn parse_block_header(header: &[u8]) -> io::Result<u64> {
    let (bytes, sum) = header.split_last_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
    if !is_right(crc32(bytes), u32::from_le_bytes(*sum).into()) {
        return Err(damaged("its checksum is wrong"));
    }
    let (Some(flags), Some(mut rest)) = (bytes.get(1), bytes.get(2..)) else {
        return Err(damaged("it is too short"));
    };
    // The sizes: the index has them too.
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            number(&mut rest).ok_or_else(|| damaged("it is too short"))?;
        }
    }
    let filter = number(&mut rest).ok_or_else(|| damaged("it is too short"))?;
    if flags & 0x3f != 0 || filter != LZMA2 {
        return Err(unserved_io(format!(
            "its filters (flags {flags:#x}, first filter {filter:#x}) are not supported; compress it \
             again, with `xz --lzma2` alone"
        )));
    }
    match rest {
        [1, bits @ 0..=39, ..] => Ok(u64::from(2 | (bits & 1)) << (bits / 2 + 11)),
        [1, 40, ..] => Ok(u32::MAX.into()),
        _ => Err(damaged("the properties of its filter are wrong")),
    }
}

/// The check at the end of a block.
struct Check {
    len: usize,
    sum: Sum,
}

enum Sum {
    /// None, or one that nobody makes.
    None,
    Crc(Box<Digest>),
    Sha256(Box<Sha256>),
}

impl Check {
    fn new(id: u8) -> Self {
        let sum = match id {
            1 => Sum::Crc(Box::new(Digest::new(CrcAlgorithm::Crc32IsoHdlc))),
            4 => Sum::Crc(Box::new(Digest::new(CrcAlgorithm::Crc64Xz))),
            10 => Sum::Sha256(Box::default()),
            _ => Sum::None,
        };
        // 0, then three of each length from 4 to 64.
        let len = if id == 0 { 0 } else { 4 << ((id - 1) / 3) };
        Check { len, sum }
    }

    fn add(&mut self, bytes: &[u8]) {
        match &mut self.sum {
            Sum::None => {}
            Sum::Crc(digest) => digest.update(bytes),
            Sum::Sha256(digest) => digest.update(bytes),
        }
    }

    fn is(&self, check: &[u8]) -> bool {
        match &self.sum {
            Sum::None => true,
            Sum::Crc(digest) => {
                let sum = digest.finalize().to_le_bytes();
                sum.get(..check.len()).is_some_and(|sum| sum == check)
            }
            Sum::Sha256(digest) => digest.clone().finalize().as_slice() == check,
        }
    }
}

/// Decompresses a block.
pub(crate) struct XzDecoder {
    stream: Box<Lzma2Stream>,
    /// Bytes that are still to come out.
    plain: u64,
    /// Bytes that are still to go in.
    packed: u64,
    /// Between them and the check.
    padding: usize,
    check: Check,
    memory: usize,
    /// All came out; the check follows.
    at_end: bool,
}

impl Decoder for XzDecoder {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step> {
        if self.at_end {
            let n = self.padding + self.check.len;
            let Some(tail) = input.get(..n) else { return Ok(Step::default()) };
            let (padding, check) = tail.split_at(self.padding);
            if padding.iter().any(|byte| *byte != 0) || !self.check.is(check) {
                return Err(damaged("the checksum of an xz block is wrong"));
            }
            return Ok(Step { consumed: n, produced: 0, finished: true });
        }
        let most = |len: usize, left: u64| len.min(usize::try_from(left).unwrap_or(usize::MAX));
        let input = input.get(..most(input.len(), self.packed)).unwrap_or_default();
        let room = most(output.len(), self.plain);
        // The end of the data needs no room; what needs some is too much.
        let mut more = [0];
        let output = if self.plain == 0 {
            &mut more[..]
        } else {
            output.get_mut(..room).unwrap_or_default()
        };
        let result = self.stream.process(input, output, Action::Run);
        let result = result.map_err(|e| damaged(format!("the data of an xz block: {e}")))?;
        let (consumed, produced) = (result.bytes_consumed, result.bytes_produced);
        let ends = result.status == Status::StreamEnd;
        let (Some(plain), Some(packed)) =
            (self.plain.checked_sub(produced as u64), self.packed.checked_sub(consumed as u64))
        else {
            return Err(damaged("an xz block is longer than the index says"));
        };
        (self.plain, self.packed) = (plain, packed);
        self.check.add(output.get(..produced).unwrap_or_default());
        self.at_end = ends;
        if ends && (plain, packed) != (0, 0) {
            return Err(damaged("an xz block is shorter than the index says"));
        }
        if !ends && packed == 0 && consumed == 0 && produced == 0 && !output.is_empty() {
            return Err(damaged("an xz block has no end"));
        }
        Ok(Step { consumed, produced, finished: false })
    }

    fn memory(&self) -> usize {
        self.memory
    }
}
