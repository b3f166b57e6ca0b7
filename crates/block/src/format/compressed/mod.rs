// SPDX-License-Identifier: Apache-2.0
//! Raw images that are compressed as a whole: `xz//path`, `zst//path`, `gz//path`, served as they
//! were downloaded.
//!
//! Decompression begins at points that the format has (blocks of xz, frames of zstd, members of
//! bgzf) or that were found on the way through the file (gzip), and goes forward from there. How
//! fast a read far from the last one is depends on how far such a point is: an image that is one
//! block (`xz` with one thread, `zstd` without a seek table) has to be decompressed from its
//! beginning. Sequential reads are fast in all of them.
//!
//! In memory are some decompressed pieces and a few decompressors, each where a reader has come to.
mod gz;
mod xz;
mod zst;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use io_engine::unblock;
use sgl::Sgl;

use super::reader::{Cache, Source, damaged, read_vec};
pub(crate) use gz::{Gz, MAGIC as GZ_MAGIC, open as open_gz};
pub(crate) use xz::{MAGIC as XZ_MAGIC, Xz, open as open_xz};
pub(crate) use zst::{
    MAGIC as ZST_MAGIC, Zst, begins as begins_zst,
    begins_after_skippable as zst_begins_after_skippable, open as open_zst,
};

/// Bytes that are decompressed, and kept, together.
const PIECE: usize = 128 << 10;
/// Of pieces that are kept, in bytes.
const KEPT: usize = 16 << 20;
/// How much is read of the file at once, in bytes.
const INPUT: usize = 256 << 10;
/// Memory of the decompressors together, in bytes, unless one alone takes more.
const DECODERS: usize = 64 << 20;
const MAX_DECODERS: usize = 4;
/// Points of an image at most, of formats that have them in the file.
const MAX_POINTS: usize = 1 << 20;
/// How often a pass through a whole file says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// What a step of decompression did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    /// Bytes of the input that are used up.
    pub(super) consumed: usize,
    /// Bytes of the output that are filled.
    pub(super) produced: usize,
    /// Nothing comes after these bytes before the next point.
    pub(super) finished: bool,
}

/// Decompresses from a point on. It needs no I/O of its own.
pub(crate) trait Decoder: Send + 'static {
    /// Goes forward. If it neither consumes nor produces anything it needs more input than there
    /// is; `INPUT` bytes are always enough.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step>;

    /// Roughly, in bytes.
    fn memory(&self) -> usize;
}

/// Where decompression can begin, and how far it then goes: offsets in the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(super) start: u64,
    /// Where the decoder has to finish; `None` where it goes on over other points.
    pub(super) end: Option<u64>,
}

/// What is known of a compressed file.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub(crate) trait Format {
    type Decoder: Decoder;

    /// Of the disk, in bytes.
    fn size(&self) -> u64;

    /// The last point at or before an offset of the disk, which is less than its size.
    fn point(&self, offset: u64) -> Point;

    /// A decompressor for that point, and where in the file it begins to read.
    async fn begin<S: Source>(&self, source: &S, offset: u64) -> io::Result<(Self::Decoder, u64)>;
}

/// An open image.
pub(crate) struct Compressed<S, F: Format> {
    source: S,
    format: F,
    pieces: Cache<u64>,
    /// The one used last at the end.
    cursors: RefCell<Vec<Cursor<F::Decoder>>>,
}

/// A decompressor on its way.
struct Cursor<D> {
    decoder: D,
    input: Input,
    /// Where it is in the disk.
    plain: u64,
    /// Where the decoder has to finish.
    end: Option<u64>,
    finished: bool,
}

impl<S: fmt::Debug, F: Format + fmt::Debug> fmt::Debug for Compressed<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, format) = (&self.source, &self.format);
        f.debug_struct("Compressed")
            .field("source", source)
            .field("format", format)
            .finish_non_exhaustive()
    }
}

/// Bytes of the file that were read and are not used up.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// How many of them are used up.
    used: usize,
    /// The offset of what follows them.
    next: u64,
}

impl Input {
    pub(super) fn new(offset: u64) -> Self {
        Input { bytes: Vec::new(), used: 0, next: offset }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    /// The offset in the file of the first of them.
    pub(super) fn position(&self) -> u64 {
        self.next - self.bytes().len() as u64
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.used += n;
    }

    /// Reads more; false at the end of the file.
    pub(super) async fn fill<S: Source>(&mut self, source: &S) -> io::Result<bool> {
        self.bytes.drain(..self.used);
        self.used = 0;
        let n = source.len().saturating_sub(self.next).min(INPUT as u64);
        let n = usize::try_from(n).map_err(io::Error::other)?;
        self.bytes.extend(read_vec(source, self.next, n).await?);
        self.next += n as u64;
        Ok(n > 0)
    }
}

impl<D: Decoder> Cursor<D> {
    /// Goes forward until `output` is full, the decoder needs more input, or has finished. Returns
    /// how many bytes were filled.
    fn run(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        // What comes after the last byte (a checksum) belongs to it.
        while !self.finished && (filled < output.len() || self.end == Some(self.plain)) {
            let rest = output.get_mut(filled..).unwrap_or_default();
            let step = self.decoder.step(self.input.bytes(), rest)?;
            self.input.consume(step.consumed);
            self.plain += step.produced as u64;
            self.finished = step.finished;
            filled += step.produced;
            if step.consumed == 0 && step.produced == 0 {
                break;
            }
        }
        Ok(filled)
    }

    /// Whether `run` has something to do after `filled` of `len` bytes are filled.
    fn goes_on(&self, filled: usize, len: usize) -> bool {
        filled < len || (self.end == Some(self.plain) && !self.finished)
    }
}

impl<S: Source, F: Format> Compressed<S, F> {
    pub(super) fn new(source: S, format: F) -> Self {
        let cursors = RefCell::default();
        // One piece at a time: each may need a decompressor's memory.
        Compressed { source, format, pieces: Cache::new(KEPT, 1), cursors }
    }

    /// Of the disk, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.format.size()
    }

    /// Best length of a read, in bytes.
    pub(crate) fn optimal_io(&self) -> u64 {
        PIECE as u64
    }

    /// Fills all of `data`; what lies past the end of the disk is zero.
    pub(crate) async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let at = offset.saturating_add(done as u64);
            if at >= self.size() {
                data.fill(done..data.len(), 0);
                break;
            }
            let number = at / PIECE as u64;
            let piece = self.pieces.get(number, async || self.make(number).await).await?;
            let skip = usize::try_from(at % PIECE as u64).map_err(io::Error::other)?;
            let rest = data.slice(done..data.len());
            match rest.write_at(0, piece.get(skip..).unwrap_or_default()) {
                0 => return Err(damaged("a decompressed piece is too short")),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Decompresses a piece.
    async fn make(&self, number: u64) -> io::Result<Rc<[u8]>> {
        let start = number * PIECE as u64;
        let mut cursor = self.take_cursor(start).await?;
        loop {
            let at = cursor.plain;
            // On the way to it everything is decompressed, up to the end of each piece.
            let end = (at / PIECE as u64 + 1).saturating_mul(PIECE as u64).min(self.size());
            let len = usize::try_from(end - at).map_err(io::Error::other)?;
            let bytes;
            (cursor, bytes) = self.forward(cursor, len).await?;
            if at % PIECE as u64 == 0 {
                let piece: Rc<[u8]> = Rc::from(bytes);
                if at == start {
                    self.keep_cursor(cursor);
                    return Ok(piece);
                }
                self.pieces.put(at / PIECE as u64, piece);
            }
        }
    }

    /// The cursor from which the way to an offset is the shortest.
    async fn take_cursor(&self, offset: u64) -> io::Result<Cursor<F::Decoder>> {
        let point = self.format.point(offset);
        {
            let mut cursors = self.cursors.borrow_mut();
            let near = |cursor: &Cursor<F::Decoder>| {
                (point.start..=offset).contains(&cursor.plain).then_some(cursor.plain)
            };
            let best =
                (0..cursors.len()).filter_map(|i| Some((cursors.get(i).and_then(near)?, i))).max();
            if let Some((_, i)) = best {
                return Ok(cursors.remove(i));
            }
            // It makes room before a new one takes memory.
            if cursors.len() >= MAX_DECODERS {
                cursors.remove(0);
            }
        }
        self.begin(point.start).await
    }

    /// Begins at a point.
    async fn begin(&self, start: u64) -> io::Result<Cursor<F::Decoder>> {
        let (decoder, packed) = self.format.begin(&self.source, start).await?;
        let Point { start: plain, end } = self.format.point(start);
        Ok(Cursor { decoder, input: Input::new(packed), plain, end, finished: false })
    }

    fn keep_cursor(&self, cursor: Cursor<F::Decoder>) {
        let mut cursors = self.cursors.borrow_mut();
        cursors.push(cursor);
        let memory = |cursors: &[Cursor<F::Decoder>]| {
            cursors.iter().map(|cursor| cursor.decoder.memory()).sum::<usize>()
        };
        while cursors.len() > 1 && memory(&cursors) > DECODERS {
            cursors.remove(0);
        }
    }

    /// Decompresses the next `len` bytes, over the points that are on the way.
    async fn forward(
        &self,
        mut cursor: Cursor<F::Decoder>,
        len: usize,
    ) -> io::Result<(Cursor<F::Decoder>, Vec<u8>)> {
        let mut output = vec![0; len];
        let mut filled = 0;
        while cursor.goes_on(filled, len) {
            if cursor.finished {
                if cursor.end != Some(cursor.plain) {
                    let text =
                        format!("the compressed data for offset {} are not there", cursor.plain);
                    return Err(damaged(text));
                }
                cursor = self.begin(cursor.plain).await?;
            }
            let result;
            (cursor, output, result) = unblock(move || {
                let result = cursor.run(output.get_mut(filled..).unwrap_or_default());
                (cursor, output, result)
            })
            .await;
            filled += result?;
            let goes_on = cursor.goes_on(filled, len) && !cursor.finished;
            if goes_on && !cursor.input.fill(&self.source).await? {
                let position = cursor.input.position();
                return Err(damaged(format!(
                    "the compressed data end at {position}; it was cut off"
                )));
            }
        }
        Ok((cursor, output))
    }
}

/// Says how far a pass through a file is, now and then.
#[derive(Debug)]
pub(super) struct Progress {
    since: Instant,
    what: &'static str,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Progress { since: Instant::now(), what }
    }

    pub(super) fn tell(&mut self, done: u64, len: u64) {
        if self.since.elapsed() > PROGRESS {
            self.since = Instant::now();
            let percent = done.saturating_mul(100) / len.max(1);
            tracing::info!("{}: {percent} % of {len} bytes", self.what);
        }
    }
}
