// SPDX-License-Identifier: Apache-2.0
//! Makes qcow2 images, independent of the engine: empty ones, and such as other programs leave:
//! with clusters that have a place and content, or a place alone, that are zero by a flag, or
//! compressed; and with persistent bitmaps.
use io_engine::sim::Rng;

use crate::crash::check::bitmaps::{AUTO, EXTENSION};
use crate::crash::target::{BACKING, BASE};

/// How an image is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// 2 or 3.
    pub version: u32,
    /// Of the size of a cluster.
    pub cluster_bits: u32,
    /// Of the bits of a refcount.
    pub refcount_order: u32,
    /// Entries for subclusters.
    pub extended_l2: bool,
    /// Refcounts that are only right once it is closed.
    pub lazy_refcounts: bool,
    /// An external data file.
    pub data_file: bool,
    /// What is below it.
    pub below: Below,
    /// Whether it has persistent bitmaps ([`TRACKING`] and [`KEPT`]), and the power of two that is
    /// the size of what a bit of them stands for.
    pub bitmaps: Option<u32>,
    /// Whether its header has an extension that nobody knows. What that refers to cannot be told, so
    /// that nothing is a leak.
    pub unknown: bool,
    /// What is in it at the beginning.
    pub filled: Filled,
}

/// What is below an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing.
    Nothing,
    /// A file.
    Raw,
    /// Another image, and below that a file.
    Image,
    /// As of that other image.
    Base,
}

impl Below {
    /// The name of the file that is next.
    fn name(self) -> Option<&'static str> {
        match self {
            Below::Nothing => None,
            Below::Raw | Below::Image => Some(BACKING),
            Below::Base => Some(BASE),
        }
    }
}

/// The name of the bitmap that tells of all changes.
pub const TRACKING: &str = "tracking";
/// The name of the bitmap that is kept as it is: every other bit is set.
pub const KEPT: &str = "kept";

/// What a guest's clusters are at the beginning: chances in a million; the rest have no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// They have content.
    pub data: u32,
    /// They have a place, which reads as zeroes: as preallocation leaves them.
    pub preallocated: u32,
    /// They have a place, and a flag says that they are zero.
    pub zero: u32,
    /// They have content, compressed.
    pub compressed: u32,
}

/// What a cluster is at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no place.
    Unallocated,
    /// See [`Filled::data`].
    Data,
    /// See [`Filled::preallocated`].
    Preallocated,
    /// See [`Filled::zero`].
    Zero,
    /// See [`Filled::compressed`].
    Compressed,
}

impl Filled {
    /// What the clusters of a seed are, one after the other.
    pub fn states(self, seed: u64) -> impl Iterator<Item = State> {
        let mut rng = Rng::new(seed ^ 0xf111);
        std::iter::repeat_with(move || {
            let mut drawn = rng.below(1_000_000);
            for (share, state) in [
                (self.data, State::Data),
                (self.preallocated, State::Preallocated),
                (self.zero, State::Zero),
                (self.compressed, State::Compressed),
            ] {
                if drawn < u64::from(share) {
                    return state;
                }
                drawn -= u64::from(share);
            }
            State::Unallocated
        })
    }
}

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An image, and its external data file.
struct Builder {
    format: Format,
    image: Vec<u8>,
    data: Vec<u8>,
    /// By cluster.
    refcounts: Vec<u64>,
    /// Where the next compressed cluster may begin: inside the last cluster.
    rest: Option<usize>,
}

impl Builder {
    fn cluster(&self) -> usize {
        1 << self.format.cluster_bits
    }

    /// So many clusters at the end; where they begin.
    fn allocate(&mut self, clusters: usize) -> usize {
        let at = self.image.len();
        self.image.resize(at + clusters * self.cluster(), 0);
        self.refcounts.resize(self.image.len() / self.cluster(), 1);
        self.rest = None;
        at
    }

    /// The bitmaps of a disk of `size` bytes; where their directory is, and its length.
    fn bitmaps(&mut self, size: usize, granularity_bits: u32) -> (usize, usize) {
        let cluster = self.cluster();
        let parts = size.div_ceil(1 << granularity_bits).div_ceil(cluster * 8);
        let directory = self.allocate(1);
        let mut at = directory;
        for (name, flags) in [(TRACKING, AUTO), (KEPT, 0)] {
            let table = self.allocate((parts * 8).div_ceil(cluster));
            for part in 0..if name == KEPT { parts } else { 0 } {
                let bits = self.allocate(1);
                let granules = size.div_ceil(1 << granularity_bits) - part * cluster * 8;
                let bytes = granules.div_ceil(8).min(cluster);
                self.image[bits..bits + bytes].fill(0x55);
                put(&mut self.image, table + part * 8, &(bits as u64).to_be_bytes());
            }
            put(&mut self.image, at, &(table as u64).to_be_bytes());
            let entries = u32::try_from(parts).unwrap_or(0);
            put(&mut self.image, at + 8, &entries.to_be_bytes());
            put(&mut self.image, at + 12, &flags.to_be_bytes());
            let granularity_bits = u8::try_from(granularity_bits).unwrap_or(0);
            let name_len = u8::try_from(name.len()).unwrap_or(0);
            put(&mut self.image, at + 16, &[1, granularity_bits, 0, name_len]);
            put(&mut self.image, at + 24, name.as_bytes());
            at = (at + 24 + name.len()).next_multiple_of(8);
        }
        (directory, at - directory)
    }

    fn header(&mut self, size: u64, l1: usize, l1_entries: u64) {
        let bytes = usize::try_from(size).unwrap_or(0);
        let bitmaps = self.format.bitmaps.map(|granularity| self.bitmaps(bytes, granularity));
        let Format { version, cluster_bits, .. } = self.format;
        let (format, cluster) = (self.format, self.cluster() as u64);
        let image = &mut self.image;
        put(image, 0, b"QFI\xfb");
        put(image, 4, &version.to_be_bytes());
        put(image, 20, &cluster_bits.to_be_bytes());
        put(image, 24, &size.to_be_bytes());
        put(image, 36, &u32::try_from(l1_entries).unwrap_or(0).to_be_bytes());
        put(image, 40, &(l1 as u64).to_be_bytes());
        put(image, 48, &cluster.to_be_bytes());
        put(image, 56, &1u32.to_be_bytes());
        let mut at = 72;
        if version == 3 {
            let data_file = u64::from(format.data_file) << 2;
            let incompatible = data_file | u64::from(format.extended_l2) << 4;
            put(image, 72, &incompatible.to_be_bytes());
            put(image, 80, &u64::from(format.lazy_refcounts).to_be_bytes());
            put(image, 96, &format.refcount_order.to_be_bytes());
            put(image, 100, &104u32.to_be_bytes());
            at = 104;
            if format.data_file {
                put(image, at, &0x4441_5441u32.to_be_bytes());
                put(image, at + 4, &4u32.to_be_bytes());
                put(image, at + 8, b"data");
                at += 16;
            }
            if let Some((directory, len)) = bitmaps {
                // They count.
                put(image, 88, &1u64.to_be_bytes());
                put(image, at, &EXTENSION.to_be_bytes());
                put(image, at + 4, &24u32.to_be_bytes());
                put(image, at + 8, &2u32.to_be_bytes());
                put(image, at + 16, &(len as u64).to_be_bytes());
                put(image, at + 24, &(directory as u64).to_be_bytes());
                at += 32;
            }
            if format.unknown {
                put(image, at, b"none");
                put(image, at + 4, &8u32.to_be_bytes());
                at += 16;
            }
        }
        at += 8;
        if let Some(name) = format.below.name() {
            put(image, 8, &(at as u64).to_be_bytes());
            put(image, 16, &u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
            put(image, at, name.as_bytes());
        }
    }

    /// The L2 entry of guest cluster `number`, which is `state`, with its place.
    fn entry(&mut self, number: usize, state: State, content: &[u8]) -> [u64; 2] {
        if state == State::Unallocated {
            return [0, 0];
        }
        if state == State::Compressed && !self.format.data_file {
            return [self.compress(content), 0];
        }
        let start = number * self.cluster();
        let host = if self.format.data_file { start } else { self.allocate(1) };
        let place = if self.format.data_file { &mut self.data } else { &mut self.image };
        if matches!(state, State::Data | State::Compressed) {
            let len = content.len().min(place.len() - host);
            put(place, host, &content[..len]);
        }
        let entry = host as u64 | COPIED;
        match (state, self.format) {
            (State::Zero, Format { extended_l2: true, .. }) => [entry, 0xffff_ffff << 32],
            (State::Zero, Format { version: 3, .. }) => [entry | ZERO, 0],
            _ => [entry, 0xffff_ffff],
        }
    }

    /// Compresses a cluster to what any inflater takes, but no shorter: blocks that are stored.
    /// Unless refcounts have one bit, the next one begins where this one ends.
    fn compress(&mut self, content: &[u8]) -> u64 {
        let mut stream = Vec::new();
        let pieces = content.chunks(0x8000);
        let last = pieces.len() - 1;
        for (n, piece) in pieces.enumerate() {
            let len = u16::try_from(piece.len()).unwrap_or(0);
            stream.push(u8::from(n == last));
            stream.extend(len.to_le_bytes());
            stream.extend((!len).to_le_bytes());
            stream.extend(piece);
        }
        let cluster = self.cluster();
        let bits = self.format.cluster_bits - 8;
        let sectors = |at: usize| (at + stream.len() - 1) / 512 - at / 512;
        let shared = self.rest.filter(|_| self.format.refcount_order >= 1);
        let shared = shared.filter(|&at| sectors(at) < 1 << bits);
        let at = match shared {
            Some(at) => {
                self.refcounts[at / cluster] += 1;
                let more = (at + stream.len()).saturating_sub(self.image.len());
                self.allocate(more.div_ceil(cluster));
                at
            }
            None => self.allocate(stream.len().div_ceil(cluster)),
        };
        put(&mut self.image, at, &stream);
        self.rest = Some(at + stream.len()).filter(|end| !end.is_multiple_of(cluster));
        COMPRESSED | (sectors(at) as u64) << (62 - bits) | at as u64
    }

    fn tables(&mut self, l1: usize, content: &[u8], states: impl Iterator<Item = State>) {
        let cluster = self.cluster();
        let width = if self.format.extended_l2 { 16 } else { 8 };
        let mut table = 0;
        let mut whole = vec![0; cluster];
        for ((number, piece), state) in (0..).zip(content.chunks(cluster)).zip(states) {
            let slot = number % (cluster / width);
            if slot == 0 {
                table = self.allocate(1);
                let entry = table as u64 | COPIED;
                put(&mut self.image, l1 + number / (cluster / width) * 8, &entry.to_be_bytes());
            }
            whole.fill(0);
            put(&mut whole, 0, piece);
            let [entry, bitmap] = self.entry(number, state, &whole);
            put(&mut self.image, table + slot * width, &entry.to_be_bytes());
            if width == 16 {
                put(&mut self.image, table + slot * width + 8, &bitmap.to_be_bytes());
            }
        }
    }

    /// The refcounts, the first block of which is at the third cluster.
    fn count(&mut self) {
        let (cluster, order) = (self.cluster(), self.format.refcount_order);
        let per_block = (cluster * 8) >> order;
        let mut block = 2 * cluster;
        let mut number = 0;
        loop {
            put(&mut self.image, cluster + number * 8, &(block as u64).to_be_bytes());
            number += 1;
            if number * per_block >= self.refcounts.len() {
                break;
            }
            block = self.allocate(1);
        }
        for (n, &count) in self.refcounts.iter().enumerate() {
            let entry = cluster + n / per_block * 8;
            let block =
                self.image[entry..entry + 8].iter().fold(0, |n, &b| n << 8 | usize::from(b));
            let block = &mut self.image[block..block + cluster];
            set_refcount(block, order, n % per_block, count);
        }
    }
}

/// An image with this content, as far as its clusters have one, and its data file.
pub fn create(format: &Format, content: &[u8], seed: u64) -> (Vec<u8>, Vec<u8>) {
    let cluster = 1usize << format.cluster_bits;
    let l2_entry = if format.extended_l2 { 16 } else { 8 };
    let covered = cluster / l2_entry * cluster;
    let l1_entries = content.len().div_ceil(covered).max(1);
    let data = vec![0; if format.data_file { content.len() } else { 0 }];
    let (image, refcounts) = (Vec::new(), Vec::new());
    let mut builder = Builder { format: *format, image, data, refcounts, rest: None };
    // The header, the refcount table, its first block.
    builder.allocate(3);
    let l1 = builder.allocate((l1_entries * 8).div_ceil(cluster));
    builder.header(content.len() as u64, l1, l1_entries as u64);
    if format.filled != Filled::default() {
        builder.tables(l1, content, format.filled.states(seed));
    }
    builder.count();
    (builder.image, builder.data)
}

pub(crate) fn set_refcount(block: &mut [u8], order: u32, n: usize, value: u64) {
    if order < 3 {
        let (bits, per) = (1 << order, 8 >> order);
        block[n / per] |= u8::try_from(value).unwrap_or(0) << (n % per * bits);
    } else {
        let width = 1 << (order - 3);
        put(block, n * width, &value.to_be_bytes()[8 - width..]);
    }
}
