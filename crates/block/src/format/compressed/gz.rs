// SPDX-License-Identifier: Apache-2.0
//! gzip (RFC 1952), which has no index. One is made when an image is opened, by decompressing it
//! once: points at which decompression can begin, each with the 32 KiB that come before it and that
//! what follows may refer to. How much memory they take is bounded: in a larger image they are
//! farther apart. That pass finds the size too, which the end of the file tells only modulo 2^32, and
//! checks every checksum.
//!
//! Of bgzf, gzip in members of 64 KiB that tell their compressed lengths (SAM specification 4.1),
//! only headers and ends of members are read.
use std::io;

use crc_fast::{CrcAlgorithm, Digest};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use super::super::reader::{Source, damaged, invalid, other, read_vec};
use super::{Compressed, Decoder, Format, INPUT, Input, Point, Progress, Step};
use crate::ErrorKind;

pub(crate) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// How far back deflate refers, in bytes.
const WINDOW: usize = 32 << 10;
/// What is decompressed goes here; a power of 2.
const RING: usize = 2 * WINDOW;
/// Distance of points in a small image, in bytes of the disk.
const SPACING: u64 = 1 << 20;
/// Memory of the points of an image, in bytes.
const POINTS: usize = 32 << 20;
/// Longer headers of members are refused, in bytes.
const MAX_HEADER: usize = 128 << 10;

/// Opens an image.
pub(crate) async fn open<S: Source>(source: S) -> Result<Compressed<S, Gz>, ErrorKind> {
    let start = read_vec(&source, 0, MAGIC.len()).await?;
    if start != MAGIC {
        return Err(other("a gzip file"));
    }
    let gz = match Gz::walk(&source).await? {
        Some(gz) => gz,
        None => Gz::pass(&source).await?,
    };
    if i64::try_from(gz.size).is_err() {
        return Err(invalid("gzip", "size", gz.size, "it is more than 2^63 bytes"));
    }
    Ok(Compressed::new(source, gz))
}

/// Where decompression can begin.
#[derive(Debug)]
struct Access {
    /// In the disk.
    plain: u64,
    /// In the file.
    packed: u64,
    /// `None`: at the beginning of a member.
    inside: Option<Inside>,
}

/// Between two blocks of a member.
#[derive(Debug)]
struct Inside {
    /// How many bits of the last byte belong to the next block, and these bits.
    bits: (u8, u8),
    /// What comes before.
    window: Box<[u8]>,
}

impl Access {
    fn memory(&self) -> usize {
        size_of::<Self>() + self.inside.as_ref().map_or(0, |inside| inside.window.len())
    }
}

/// The points of a file.
#[derive(Debug)]
pub(crate) struct Gz {
    points: Vec<Access>,
    size: u64,
    spacing: u64,
    memory: usize,
}

impl Gz {
    fn new() -> Self {
        Gz { points: Vec::new(), size: 0, spacing: SPACING, memory: 0 }
    }

    /// Whether a point at `plain` is far enough from the last one.
    fn wants(&self, plain: u64) -> bool {
        self.points.last().is_none_or(|last| plain - last.plain >= self.spacing)
    }

    /// Adds a point. Where there are too many, every other one goes.
    fn push(&mut self, point: Access) {
        self.memory += point.memory();
        self.points.push(point);
        while self.memory > POINTS {
            self.spacing *= 2;
            let mut last: Option<u64> = None;
            self.points.retain(|point| {
                let keep = last.is_none_or(|last| point.plain - last >= self.spacing);
                if keep {
                    last = Some(point.plain);
                }
                keep
            });
            self.memory = self.points.iter().map(Access::memory).sum();
        }
    }

    /// Goes from member to member of a bgzf file; `None` if it is none.
    async fn walk<S: Source>(source: &S) -> Result<Option<Self>, ErrorKind> {
        /// Header with the one field that bgzf has; longer ones are not looked into.
        const HEADER: u64 = 18;
        const TRAILER: u64 = 8;
        let mut gz = Gz::new();
        let mut progress = Progress::new("bgzf: look for members");
        let len = source.len();
        let (mut at, mut last) = (0, 0);
        while at < len {
            let n = usize::try_from((len - at).min(HEADER)).map_err(io::Error::other)?;
            let header = read_vec(source, at, n).await?;
            let Some(member) = bgzf_len(&header) else { return Ok(None) };
            let end = at + member;
            if member < HEADER + TRAILER || end > len {
                return Ok(None);
            }
            let size = read_vec(source, end - 4, 4).await?;
            let size = size.first_chunk().map_or(0, |size| u32::from_le_bytes(*size));
            if size > 0 && gz.wants(gz.size) {
                gz.push(Access { plain: gz.size, packed: at, inside: None });
            }
            gz.size += u64::from(size);
            last = size;
            at = end;
            progress.tell(at, len);
        }
        if last > 0 {
            tracing::warn!(
                "bgzf: the empty member at its end is missing: it may have been cut off"
            );
        }
        Ok(Some(gz))
    }

    /// Decompresses a whole file.
    async fn pass<S: Source>(source: &S) -> Result<Self, ErrorKind> {
        let mut progress = Progress::new("gzip: make the index");
        let mut gz = Gz::new();
        let mut decoder = GzDecoder::new();
        let mut input = Input::new(0);
        gz.push(Access { plain: 0, packed: 0, inside: None });
        loop {
            let result;
            (gz, decoder, input, result) = io_engine::unblock(move || {
                let result = gz.add(&mut decoder, &mut input);
                (gz, decoder, input, result)
            })
            .await;
            if result? {
                break;
            }
            progress.tell(input.position(), source.len());
            if !input.fill(source).await? {
                // What is left may be the beginning of a header.
                if decoder.is_between_members() && input.bytes().is_empty() {
                    break;
                }
                let why = "it ends in the middle of a member: it was cut off";
                return Err(invalid("gzip", "length", source.len(), why));
            }
        }
        if input.position() < source.len() && input.bytes().iter().any(|byte| *byte != 0) {
            let at = input.position();
            tracing::warn!(
                "gzip: what follows the last member, at {at}, is not gzip; it is left out"
            );
        }
        Ok(gz)
    }

    /// Goes on with what is in `input`; true at the end of the file.
    fn add(&mut self, decoder: &mut GzDecoder, input: &mut Input) -> io::Result<bool> {
        let mut output = vec![0; RING];
        loop {
            let step = decoder.step(input.bytes(), &mut output)?;
            input.consume(step.consumed);
            self.size += step.produced as u64;
            if step.finished {
                return Ok(true);
            }
            let packed = input.position();
            if let Some(bits) = decoder.boundary.take() {
                if self.wants(self.size) {
                    let inside = Some(Inside { bits, window: decoder.window() });
                    self.push(Access { plain: self.size, packed, inside });
                }
            } else if step.consumed == 0 && step.produced == 0 {
                return Ok(false);
            } else if decoder.is_between_members() && self.wants(self.size) {
                self.push(Access { plain: self.size, packed, inside: None });
            }
        }
    }

    fn access(&self, offset: u64) -> Option<&Access> {
        let i = self.points.partition_point(|point| point.plain <= offset);
        self.points.get(i.checked_sub(1)?)
    }
}

impl Format for Gz {
    type Decoder = GzDecoder;

    fn size(&self) -> u64 {
        self.size
    }

    fn point(&self, offset: u64) -> Point {
        Point { start: self.access(offset).map_or(0, |access| access.plain), end: None }
    }

    async fn begin<S: Source>(&self, _: &S, offset: u64) -> io::Result<(GzDecoder, u64)> {
        let access = self.access(offset).ok_or_else(|| damaged("it has no members"))?;
        let mut decoder = GzDecoder::new();
        decoder.indexing = false;
        if let Some(inside) = &access.inside {
            decoder.resume(inside);
        }
        Ok((decoder, access.packed))
    }
}

/// The length of a bgzf member, from its header; `None` if it is none.
fn bgzf_len(header: &[u8]) -> Option<u64> {
    // ID1, ID2, CM, FLG = FEXTRA, MTIME, XFL, OS, XLEN = 6, "BC", 2, BSIZE.
    let fits = header.starts_with(&[0x1f, 0x8b, 8, 4]) && header.get(10..16)? == b"\x06\0BC\x02\0";
    let size = header.get(16..18)?.first_chunk().map(|size| u16::from_le_bytes(*size))?;
    fits.then_some(u64::from(size) + 1)
}

/// The length of a member's header; `None` while it is not all there.
fn header_len(bytes: &[u8]) -> Option<usize> {
    const CHECKSUM: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let flags = *bytes.get(3)?;
    let mut len = 10;
    if flags & EXTRA != 0 {
        let extra = bytes.get(len..len + 2)?.first_chunk()?;
        len += 2 + usize::from(u16::from_le_bytes(*extra));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            len += bytes.get(len..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & CHECKSUM != 0 {
        len += 2;
    }
    (bytes.len() >= len).then_some(len)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A member's header follows.
    Header,
    Blocks,
    /// A member's checksum and length follow.
    Trailer,
}

/// Decompresses members.
pub(crate) struct GzDecoder {
    state: State,
    inflate: Box<DecompressorOxide>,
    ring: Box<[u8]>,
    /// Where in the ring the next byte goes.
    next: usize,
    /// Bytes before it that are to be handed out.
    pending: usize,
    /// What is known of the member, if it was decompressed from its beginning.
    member: Option<(Digest, u64)>,
    /// Whether a member has ended.
    had_member: bool,
    /// Whether it stops between blocks.
    indexing: bool,
    /// That it has stopped there: the bits of the last byte that belong to the next block.
    boundary: Option<(u8, u8)>,
}

impl GzDecoder {
    fn new() -> Self {
        GzDecoder {
            state: State::Header,
            inflate: Box::new(DecompressorOxide::new()),
            ring: vec![0; RING].into(),
            next: 0,
            pending: 0,
            member: None,
            had_member: false,
            indexing: true,
            boundary: None,
        }
    }

    fn resume(&mut self, inside: &Inside) {
        let (num_bits, bit_buf) = inside.bits;
        let state = BlockBoundaryState { num_bits, bit_buf, ..BlockBoundaryState::default() };
        *self.inflate = DecompressorOxide::from_block_boundary_state(&state);
        let at = RING - inside.window.len();
        self.ring.get_mut(at..).unwrap_or_default().copy_from_slice(&inside.window);
        self.state = State::Blocks;
    }

    /// Whether a member has ended, and all of it was handed out.
    fn is_between_members(&self) -> bool {
        self.state == State::Header && self.pending == 0 && self.had_member
    }

    /// What may be referred to.
    fn window(&self) -> Box<[u8]> {
        let len = self.member.as_ref().map_or(WINDOW as u64, |(_, len)| *len);
        let len = usize::try_from(len).unwrap_or(WINDOW).min(WINDOW);
        let start = self.next + RING - len;
        let byte = |i| self.ring.get((start + i) % RING).copied().unwrap_or_default();
        (0..len).map(byte).collect()
    }

    fn hand_out(&mut self, output: &mut [u8]) -> usize {
        let start = (self.next + RING - self.pending) % RING;
        let n = self.pending.min(output.len()).min(RING - start);
        let bytes = self.ring.get(start..start + n).unwrap_or_default();
        output.get_mut(..n).unwrap_or_default().copy_from_slice(bytes);
        self.pending -= n;
        n
    }

    /// Decompresses into the ring; returns how many bytes of the input were used up.
    fn inflate(&mut self, input: &[u8]) -> io::Result<usize> {
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        let (status, consumed, n) =
            decompress(&mut self.inflate, input, &mut self.ring, self.next, flags);
        if let Some((digest, len)) = &mut self.member {
            digest.update(self.ring.get(self.next..self.next + n).unwrap_or_default());
            *len += n as u64;
        }
        self.next = (self.next + n) % RING;
        self.pending = n;
        match status {
            TINFLStatus::Done => self.state = State::Trailer,
            TINFLStatus::BlockBoundary => {
                let state = self.inflate.block_boundary_state();
                self.boundary = state.map(|state| (state.num_bits, state.bit_buf));
            }
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
            _ => return Err(damaged("the deflate data of a gzip member are damaged")),
        }
        Ok(consumed)
    }

    fn trailer(&mut self, trailer: [u8; 8]) -> io::Result<()> {
        let [a, b, c, d, e, f, g, h] = trailer;
        let (sum, size) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if let Some((digest, len)) = self.member.take()
            && (digest.finalize() != u64::from(sum) || len & u64::from(u32::MAX) != u64::from(size))
        {
            return Err(damaged("the checksum or length of a gzip member is wrong"));
        }
        self.state = State::Header;
        self.had_member = true;
        Ok(())
    }
}

impl Decoder for GzDecoder {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step> {
        let mut step = Step::default();
        loop {
            let rest = input.get(step.consumed..).unwrap_or_default();
            if self.pending > 0 {
                step.produced = self.hand_out(output);
                return Ok(step);
            }
            match self.state {
                State::Header => {
                    let known = rest.len().min(MAGIC.len());
                    if rest.get(..known) != MAGIC.get(..known) {
                        if !self.had_member {
                            return Err(damaged("a gzip member has no header"));
                        }
                        step.finished = true;
                        return Ok(step);
                    }
                    let Some(len) = header_len(rest) else {
                        if rest.len() > MAX_HEADER {
                            return Err(damaged("the header of a gzip member has no end"));
                        }
                        return Ok(step);
                    };
                    step.consumed += len;
                    *self.inflate = DecompressorOxide::new();
                    self.member = Some((Digest::new(CrcAlgorithm::Crc32IsoHdlc), 0));
                    self.state = State::Blocks;
                }
                State::Blocks => {
                    let consumed = self.inflate(rest)?;
                    step.consumed += consumed;
                    let stopped = self.boundary.is_some();
                    if !self.indexing {
                        self.boundary = None;
                    } else if stopped && self.pending == 0 {
                        return Ok(step);
                    }
                    let moved = consumed > 0 || self.pending > 0 || stopped;
                    if !moved && self.state == State::Blocks {
                        return Ok(step);
                    }
                }
                State::Trailer => {
                    let Some(trailer) = rest.first_chunk() else { return Ok(step) };
                    self.trailer(*trailer)?;
                    step.consumed += 8;
                    // The one who makes an index looks at it.
                    return Ok(step);
                }
            }
        }
    }

    fn memory(&self) -> usize {
        RING + size_of::<DecompressorOxide>() + INPUT
    }
}
