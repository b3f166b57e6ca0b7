// SPDX-License-Identifier: Apache-2.0
//! Zstandard (RFC 8878), and its seekable format (a skippable frame with a table of frames at the
//! end). Frames are decompressed by themselves. Without a table the headers of frames and blocks
//! say where each frame is; no data is decompressed for that, unless a frame does not tell its size.
use std::io::{self, Read as _};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::super::reader::{
    Source, damaged, invalid, invalid_text, other, read_struct, read_vec, unserved,
};
use super::{Compressed, Cursor, Decoder, Format, Input, MAX_POINTS, PIECE, Point, Progress, Step};
use crate::ErrorKind;

pub(crate) const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Of skippable frames: these, whatever the last 4 bits are.
const SKIPPABLE: u32 = 0x184d_2a50;
/// Of the skippable frame that is a seek table, and at the end of its footer.
const SEEK_TABLE: u32 = 0x184d_2a5e;
const SEEKABLE: u32 = 0x8f92_eab1;
/// `zstd --long` has 128 MiB.
const MAX_WINDOW: u64 = 128 << 20;
const MAX_FRAME_HEADER: usize = 18;
/// Frames longer than this are named in a warning: a read in them may take long.
const LONG_FRAME: u64 = 64 << 20;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SeekFooter {
    frames: U32,
    descriptor: u8,
    magic: U32,
}

/// Whether a file begins with a frame.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    let skippable = |magic: &[u8; 4]| u32::from_le_bytes(*magic) & !15 == SKIPPABLE;
    bytes.first_chunk().is_some_and(|magic| *magic == MAGIC || skippable(magic))
}

/// Whether a file begins with skippable frames, and then one with data. A skippable frame alone may
/// be anything: other formats have it too.
pub(crate) fn begins_after_skippable(head: &[u8]) -> bool {
    let mut rest = head;
    while let Some((magic, after)) = rest.split_first_chunk::<4>() {
        if u32::from_le_bytes(*magic) & !15 != SKIPPABLE {
            return *magic == MAGIC && rest.len() < head.len();
        }
        let Some((len, after)) = after.split_first_chunk::<4>() else { return false };
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        rest = after.get(len..).unwrap_or_default();
    }
    false
}

/// Opens an image.
pub(crate) async fn open<S: Source>(source: S) -> Result<Compressed<S, Zst>, ErrorKind> {
    if !begins(&read_vec(&source, 0, 4).await?) {
        return Err(other("a zstd file"));
    }
    let zst = match Zst::from_table(&source).await? {
        Some(zst) => zst,
        None => Zst::walk(&source).await?,
    };
    if i64::try_from(zst.size).is_err() {
        return Err(invalid("zstd", "size", zst.size, "it is more than 2^63 bytes"));
    }
    let longest =
        (0..zst.frames.len()).map(|i| zst.end(i) - zst.frames.get(i).map_or(0, |f| f.start));
    if let Some(longest) = longest.max().filter(|longest| *longest > LONG_FRAME) {
        tracing::warn!(
            "zstd: a frame has {longest} bytes: reads that are not in order are slow; zstd's \
             seekable format (t2sz, zeekstd), or xz --block-size=4MiB, makes an image without long \
             ones"
        );
    }
    Ok(Compressed::new(source, zst))
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    /// In the disk.
    start: u64,
    /// In the file.
    packed: u64,
}

/// The frames of a file.
#[derive(Debug, Default)]
pub(crate) struct Zst {
    frames: Vec<Frame>,
    size: u64,
}

impl Zst {
    fn push(&mut self, packed: u64, plain: u64) -> Result<(), ErrorKind> {
        if plain == 0 {
            return Ok(());
        }
        if self.frames.len() == MAX_POINTS {
            return Err(unserved(
                "zstd: it has too many frames; compress it again, with longer ones",
            ));
        }
        self.frames.push(Frame { start: self.size, packed });
        self.size = self.size.saturating_add(plain);
        Ok(())
    }

    /// The frames that the seek table at the end names, if there is one that fits the file.
    async fn from_table<S: Source>(source: &S) -> Result<Option<Self>, ErrorKind> {
        const FOOTER: u64 = size_of::<SeekFooter>() as u64;
        let len = source.len();
        let Some(footer_at) = len.checked_sub(FOOTER) else { return Ok(None) };
        let footer: SeekFooter = read_struct(source, footer_at).await?;
        let entry = if footer.descriptor & 0x80 == 0 { 8 } else { 12 };
        let table_len = u64::from(footer.frames.get()) * entry;
        let count = usize::try_from(footer.frames.get()).map_err(io::Error::other)?;
        if footer.magic.get() != SEEKABLE || footer.descriptor & 0x7c != 0 {
            return Ok(None);
        }
        if count > MAX_POINTS {
            return Err(unserved(format!(
                "zstd: number of frames is {count}: {MAX_POINTS} is the most; compress it again, with \
                 longer ones"
            )));
        }
        let Some(table_at) = footer_at.checked_sub(table_len + 8) else { return Ok(None) };
        let [magic, frame_len]: [U32; 2] = read_struct(source, table_at).await?;
        let fits = u64::from(frame_len.get()) == table_len + FOOTER;
        if magic.get() != SEEK_TABLE || !fits {
            return Ok(None);
        }
        let table = read_vec(source, table_at + 8, usize::try_from(table_len).unwrap_or(0)).await?;
        let mut zst = Zst::default();
        let mut packed = 0;
        for entry in table.chunks_exact(usize::try_from(entry).unwrap_or(8)) {
            let Ok(([packed_len, plain], _)) = <[U32; 2]>::ref_from_prefix(entry) else { continue };
            zst.push(packed, plain.get().into())?;
            packed += u64::from(packed_len.get());
        }
        if packed != table_at {
            let why = "they are not the whole file, which is damaged";
            return Err(invalid("zstd", "length of the frames in the seek table", packed, why));
        }
        Ok(Some(zst))
    }

    /// Goes through the frames, from header to header.
    async fn walk<S: Source>(source: &S) -> Result<Self, ErrorKind> {
        let mut zst = Zst::default();
        let mut progress = Progress::new("zstd: look for frames");
        let mut at = 0;
        let len = source.len();
        while at < len {
            let magic: U32 = read_struct(source, at).await?;
            if magic.get() & !15 == SKIPPABLE {
                let [_, skipped]: [U32; 2] = read_struct(source, at).await?;
                at += 8 + u64::from(skipped.get());
                continue;
            }
            let n = len.saturating_sub(at).min(MAX_FRAME_HEADER as u64);
            let bytes = read_vec(source, at, usize::try_from(n).unwrap_or(0)).await?;
            let header = FrameHeader::parse(&bytes).ok_or_else(|| {
                invalid_text(format!(
                    "zstd: what is at offset {at} is not a frame; the file was cut off or is damaged \
                    "
                ))
            })?;
            let end = header.end(source, at, &mut progress).await?;
            let plain = match header.plain {
                Some(plain) => plain,
                None => count(source, at, &mut progress).await?,
            };
            zst.push(at, plain)?;
            at = end;
        }
        if at > len {
            return Err(invalid("zstd", "end of the last frame", at, "the file was cut off"));
        }
        Ok(zst)
    }

    fn index(&self, offset: u64) -> usize {
        self.frames.partition_point(|frame| frame.start <= offset).saturating_sub(1)
    }

    /// Where a frame ends in the disk.
    fn end(&self, index: usize) -> u64 {
        self.frames.get(index + 1).map_or(self.size, |next| next.start)
    }
}

/// What is needed of a frame's header.
struct FrameHeader {
    len: u64,
    plain: Option<u64>,
    checksum: bool,
}

impl FrameHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (descriptor, rest) = rest.split_first()?;
        if *magic != MAGIC || descriptor & 8 != 0 {
            return None;
        }
        let single = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let before = usize::from(!single) + dictionary;
        let size_len = match descriptor >> 6 {
            0 => usize::from(single),
            n => 1 << n,
        };
        let size = rest.get(before..before + size_len)?;
        let mut value = [0; 8];
        value.get_mut(..size_len)?.copy_from_slice(size);
        let plain = u64::from_le_bytes(value) + if size_len == 2 { 256 } else { 0 };
        Some(FrameHeader {
            len: (5 + before + size_len) as u64,
            plain: (size_len > 0).then_some(plain),
            checksum: descriptor & 4 != 0,
        })
    }

    /// Where the frame that begins at `at` ends.
    async fn end<S: Source>(
        &self,
        source: &S,
        at: u64,
        progress: &mut Progress,
    ) -> Result<u64, ErrorKind> {
        let mut at = at + self.len;
        loop {
            let header = read_vec(source, at, 3).await?;
            let (last, len) = block(&header).ok_or_else(|| damaged("a block's header"))?;
            at += len as u64;
            progress.tell(at, source.len());
            if last {
                return Ok(at + if self.checksum { 4 } else { 0 });
            }
        }
    }
}

/// Whether a block is the last of its frame, and its length with its header of 3 bytes.
fn block(input: &[u8]) -> Option<(bool, usize)> {
    let [a, b, c] = *input.first_chunk()?;
    let header = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    let len = if header >> 1 & 3 == 1 { 1 } else { header >> 3 };
    Some((header & 1 != 0, 3 + len))
}

/// Decompresses the frame at `at` to find out its length.
async fn count<S: Source>(source: &S, at: u64, progress: &mut Progress) -> Result<u64, ErrorKind> {
    let (decoder, packed) = ZstDecoder::begin(source, at, None).await?;
    let input = Input::new(packed);
    let mut cursor = Cursor { decoder, input, plain: 0, end: None, finished: false };
    let mut output = vec![0; PIECE];
    while !cursor.finished {
        let result;
        (cursor, output, result) = io_engine::unblock(move || {
            let result = cursor.run(&mut output);
            (cursor, output, result)
        })
        .await;
        if result? < PIECE && !cursor.finished && !cursor.input.fill(source).await? {
            return Err(invalid("zstd", "frame at offset", at, "it has no end: it was cut off"));
        }
        progress.tell(cursor.input.position(), source.len());
    }
    Ok(cursor.plain)
}

impl Format for Zst {
    type Decoder = ZstDecoder;

    fn size(&self) -> u64 {
        self.size
    }

    fn point(&self, offset: u64) -> Point {
        let i = self.index(offset);
        let start = self.frames.get(i).map_or(0, |frame| frame.start);
        Point { start, end: Some(self.end(i)) }
    }

    async fn begin<S: Source>(&self, source: &S, offset: u64) -> io::Result<(ZstDecoder, u64)> {
        let i = self.index(offset);
        let frame = *self.frames.get(i).ok_or_else(|| damaged("it has no frames"))?;
        ZstDecoder::begin(source, frame.packed, Some(self.end(i) - frame.start)).await
    }
}

/// Decompresses a frame.
pub(crate) struct ZstDecoder {
    decoder: Box<FrameDecoder>,
    /// Bytes that are still to come out, where that is known.
    plain: Option<u64>,
    checksum: bool,
    memory: usize,
}

impl ZstDecoder {
    /// For the frame at `at`, of `plain` bytes; and where its blocks begin.
    async fn begin<S: Source>(source: &S, at: u64, plain: Option<u64>) -> io::Result<(Self, u64)> {
        let n = source.len().saturating_sub(at).min(MAX_FRAME_HEADER as u64);
        let bytes = read_vec(source, at, usize::try_from(n).unwrap_or(0)).await?;
        let header = FrameHeader::parse(&bytes)
            .ok_or_else(|| damaged(format!("there is no zstd frame at {at}")))?;
        let mut decoder = Box::new(FrameDecoder::new());
        decoder.set_max_window_size(MAX_WINDOW);
        decoder.init(&bytes[..]).map_err(|e| damaged(format!("the zstd frame at {at}: {e}")))?;
        // Its window is not more than this, and what it has is not more than the frame.
        let memory = plain.unwrap_or(u64::MAX).min(MAX_WINDOW);
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        Ok((ZstDecoder { decoder, plain, checksum: header.checksum, memory }, at + header.len))
    }
}

impl Decoder for ZstDecoder {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step> {
        let ready = self.decoder.can_collect();
        if self.plain.is_some_and(|left| (ready as u64) > left) {
            return Err(damaged("a zstd frame is longer than it says"));
        }
        if ready > 0 {
            let produced = self.decoder.read(output)?;
            if let Some(left) = &mut self.plain {
                *left -= produced as u64;
            }
            return Ok(Step { consumed: 0, produced, finished: false });
        }
        if self.decoder.is_finished() {
            if self.plain.is_some_and(|left| left > 0) {
                return Err(damaged("a zstd frame is shorter than it says"));
            }
            let sums =
                (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
            if self.checksum && sums.0.is_some() && sums.0 != sums.1 {
                return Err(damaged("the checksum of a zstd frame is wrong"));
            }
            return Ok(Step { consumed: 0, produced: 0, finished: true });
        }
        let Some((last, mut len)) = block(input) else { return Ok(Step::default()) };
        if last && self.checksum {
            len += 4;
        }
        let Some(block) = input.get(..len) else { return Ok(Step::default()) };
        self.decoder
            .decode_blocks(block, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|e| damaged(format!("a zstd block: {e}")))?;
        Ok(Step { consumed: len, produced: 0, finished: false })
    }

    fn memory(&self) -> usize {
        self.memory
    }
}
