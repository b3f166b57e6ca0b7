// SPDX-License-Identifier: Apache-2.0
//! The log of a VHDX ([MS-VHDX] 2.3): what its last user wanted to write to its tables, and may not
//! have written. It is a ring of entries; those that belong together are an unbroken sequence of
//! numbers. Replaying it does not write to the file: [`Replayed`] lays it over what is read.
use std::collections::BTreeMap;
use std::io;

use sgl::Sgl;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::super::reader::{Source, invalid, invalid_text, is_right, read_struct, read_vec};
use super::{Checksum, Guid, MIB};
use crate::ErrorKind;

/// Bytes of a sector of the log.
const SECTOR: u64 = 4 << 10;
/// Longer logs are not replayed: what they hold is in memory. Usual is 1 MiB.
const MAX_LOG: u32 = 32 << 20;
/// Bytes of an entry's header; its descriptors follow.
const HEADER_LEN: usize = 64;

#[derive(Clone, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    checksum: U32,
    len: U32,
    tail: U32,
    sequence: U64,
    descriptors: U32,
    reserved: U32,
    log_guid: Guid,
    flushed_len: U64,
    last_len: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Descriptor {
    magic: [u8; 4],
    /// The last 4 bytes of the sector.
    trailing: [u8; 4],
    /// The first 8 bytes of the sector; of zeroes: their length.
    leading: [u8; 8],
    offset: U64,
    sequence: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Data {
    magic: [u8; 4],
    sequence_high: U32,
    bytes: [u8; 4084],
    sequence_low: U32,
}

/// What the log puts over a part of the file, from its key on.
#[derive(Debug)]
enum Patch {
    Sector(Box<[u8; 4096]>),
    /// Zeroes up to this offset.
    Zeroes(u64),
}

impl Patch {
    fn end(&self, start: u64) -> u64 {
        match self {
            Patch::Sector(_) => start.saturating_add(SECTOR),
            Patch::Zeroes(end) => *end,
        }
    }
}

/// A file with what its log says over it.
#[derive(Debug)]
pub(crate) struct Replayed<S> {
    source: S,
    /// They do not overlap.
    patches: BTreeMap<u64, Patch>,
    len: u64,
}

impl<S: Source> Replayed<S> {
    /// A file without a log.
    pub(super) fn clean(source: S) -> Self {
        let len = source.len();
        Replayed { source, patches: BTreeMap::new(), len }
    }

    /// A file with the log at `at`.
    pub(super) async fn replay(
        source: S,
        at: u64,
        len: u32,
        guid: Guid,
    ) -> Result<Self, ErrorKind> {
        let size = u64::from(len);
        if len == 0 || size % MIB != 0 || !at.is_multiple_of(MIB) || at < MIB {
            let why = "offset and length have to be multiples of 1 MiB";
            return Err(invalid("VHDX", "length of the log", size, why));
        }
        if len > MAX_LOG {
            let why = "the log is not empty, and logs of more than 32 MiB are not replayed; open the \
                       image with its own program (Hyper-V, QEMU) once";
            return Err(invalid("VHDX", "length of the log", size, why));
        }
        let log = Log { source: &source, at, len: size, guid };
        let sequence = log.active().await?;
        let Some(newest) = sequence.last() else {
            return Err(invalid_text(
                "VHDX: its log is not empty, but holds no valid entry; Hyper-V's Repair-VHD, or \
                 qemu-img check -r all, may help",
            ));
        };
        if newest.header.flushed_len.get() > source.len() {
            let why = "the file is shorter: it was cut off";
            let value = newest.header.flushed_len.get();
            return Err(invalid("VHDX", "length of the file in the log", value, why));
        }
        let len = newest.header.last_len.get().max(source.len());
        let mut patches = BTreeMap::new();
        for entry in &sequence {
            log.apply(entry, &mut patches).await?;
        }
        tracing::info!(
            "VHDX: {} entries of its log were replayed in memory; the file stays as it is",
            sequence.len()
        );
        Ok(Replayed { source, patches, len })
    }
}

impl<S: Source> Source for Replayed<S> {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        if self.patches.is_empty() {
            return self.source.read(data, offset).await;
        }
        let end = offset.saturating_add(data.len() as u64).min(self.len);
        // What the log makes longer is zeroes where the log has nothing else.
        let there = end.min(self.source.len()).saturating_sub(offset);
        let there = usize::try_from(there).map_err(io::Error::other)?;
        let part = |from: u64, to: u64| {
            let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            index(from)..index(to)
        };
        if end - offset.min(end) < data.len() as u64 {
            // Says that it is past the end.
            return self.source.read(data, offset).await;
        }
        self.source.read(&data.slice(0..there), offset).await?;
        data.fill(there..data.len(), 0);
        let first = self.patches.range(..=offset).next_back().map_or(offset, |(start, _)| *start);
        for (start, patch) in self.patches.range(first..end) {
            let (from, to) = ((*start).max(offset), patch.end(*start).min(end));
            if from >= to {
                continue;
            }
            match patch {
                Patch::Zeroes(_) => data.fill(part(from, to), 0),
                Patch::Sector(bytes) => {
                    let skip = usize::try_from(from - start).map_err(io::Error::other)?;
                    let range = part(from, to);
                    let bytes = bytes.get(skip..skip + range.len()).unwrap_or_default();
                    data.write_at(range.start, bytes);
                }
            }
        }
        Ok(())
    }
}

/// Lays a patch over others.
fn put(patches: &mut BTreeMap<u64, Patch>, start: u64, patch: Patch) {
    let end = patch.end(start);
    // Those that begin before and reach into it: only zeroes can, for all begin at whole sectors.
    if let Some((&before, old)) = patches.range(..start).next_back() {
        let old_end = old.end(before);
        if old_end > start {
            patches.insert(before, Patch::Zeroes(start));
            if old_end > end {
                patches.insert(end, Patch::Zeroes(old_end));
            }
        }
    }
    while let Some((&inner, old)) = patches.range(start..end).next() {
        let old_end = old.end(inner);
        patches.remove(&inner);
        if old_end > end {
            patches.insert(end, Patch::Zeroes(old_end));
        }
    }
    patches.insert(start, patch);
}

/// The unbroken sequence of valid entries that begins at a sector.
fn sequence(entries: &[Option<Header>], tail: usize) -> Vec<Entry> {
    let mut sequence: Vec<Entry> = Vec::new();
    let (mut at, mut used) = (tail, 0);
    while let Some(Some(header)) = entries.get(at) {
        let number = header.sequence.get();
        let last = sequence.last().map(|last| last.header.sequence.get());
        if last.is_some_and(|last| last.checked_add(1) != Some(number)) {
            break;
        }
        let sectors = usize::try_from(u64::from(header.len.get()) / SECTOR).unwrap_or(usize::MAX);
        used += sectors;
        if used > entries.len() {
            break;
        }
        sequence.push(Entry { at: at as u64 * SECTOR, header: header.clone() });
        at = (at + sectors) % entries.len();
    }
    sequence
}

/// The log of a file.
struct Log<'a, S> {
    source: &'a S,
    at: u64,
    len: u64,
    guid: Guid,
}

/// A valid entry.
struct Entry {
    /// Its offset in the log.
    at: u64,
    header: Header,
}

impl<S: Source> Log<'_, S> {
    /// The entries that are to be replayed, the oldest first ([MS-VHDX] 2.3.3).
    async fn active(&self) -> Result<Vec<Entry>, ErrorKind> {
        let entries = self.entries().await?;
        let mut best: Vec<Entry> = Vec::new();
        for tail in 0..entries.len() {
            let sequence = sequence(&entries, tail);
            let Some(newest) = sequence.last() else { continue };
            // It is whole if its newest entry says that it begins in it.
            let oldest = u64::from(newest.header.tail.get());
            let Some(from) = sequence.iter().position(|entry| entry.at == oldest) else { continue };
            let number = newest.header.sequence.get();
            if best.last().is_none_or(|other| number > other.header.sequence.get()) {
                best = sequence.into_iter().skip(from).collect();
            }
        }
        Ok(best)
    }

    /// For each sector of the log the header of a valid entry that begins there.
    async fn entries(&self) -> Result<Vec<Option<Header>>, ErrorKind> {
        // Entries do not overlap, but what is left of old ones may.
        let mut budget = 8 * self.len;
        let mut entries = Vec::new();
        for i in 0..self.len / SECTOR {
            let header: Header = read_struct(self.source, self.at + i * SECTOR).await?;
            let len = u64::from(header.len.get());
            let plain = header.magic == *b"loge"
                && header.log_guid == self.guid
                && len.is_multiple_of(SECTOR)
                && (SECTOR..=self.len).contains(&len)
                && header.sequence.get() > 0
                && u64::from(header.tail.get()) % SECTOR == 0;
            if !plain {
                entries.push(None);
                continue;
            }
            let Some(left) = budget.checked_sub(len) else {
                let why = "its entries overlap: it is damaged";
                return Err(invalid("VHDX", "length of the log", self.len, why));
            };
            budget = left;
            let valid = is_right(self.checksum(i * SECTOR, len).await?, header.checksum.get());
            entries.push(valid.then_some(header));
        }
        Ok(entries)
    }

    async fn checksum(&self, at: u64, len: u64) -> io::Result<u32> {
        let mut sum = Checksum::new(&self.sector(at).await?);
        for i in 1..len / SECTOR {
            sum.add(&self.sector(at + i * SECTOR).await?);
        }
        Ok(sum.value())
    }

    async fn sector(&self, at: u64) -> io::Result<Vec<u8>> {
        read_vec(self.source, self.at + at % self.len, 4096).await
    }

    /// Adds what an entry says.
    async fn apply(
        &self,
        entry: &Entry,
        patches: &mut BTreeMap<u64, Patch>,
    ) -> Result<(), ErrorKind> {
        let wrong = |field, value: u64| Err(invalid("VHDX", field, value, "its log is damaged"));
        let count = u64::from(entry.header.descriptors.get());
        let sequence = entry.header.sequence.get();
        let sectors = u64::from(entry.header.len.get()) / SECTOR;
        let descriptor_len = size_of::<Descriptor>() as u64;
        let mut next_data = (HEADER_LEN as u64 + count * descriptor_len).div_ceil(SECTOR);
        if next_data > sectors {
            return wrong("descriptors of a log entry", count);
        }
        let mut sector = (u64::MAX, Vec::new());
        for i in 0..count {
            let position = HEADER_LEN as u64 + i * descriptor_len;
            if sector.0 != position / SECTOR {
                sector =
                    (position / SECTOR, self.sector(entry.at + position / SECTOR * SECTOR).await?);
            }
            let within = usize::try_from(position % SECTOR).map_err(io::Error::other)?;
            let bytes = sector.1.get(within..).unwrap_or_default();
            let Ok((descriptor, _)) = Descriptor::ref_from_prefix(bytes) else {
                return wrong("descriptors of a log entry", count);
            };
            let offset = descriptor.offset.get();
            if descriptor.sequence.get() != sequence || offset % SECTOR != 0 {
                return wrong("offset of a log descriptor", offset);
            }
            match &descriptor.magic {
                b"zero" => {
                    let len = u64::from_le_bytes(descriptor.leading);
                    let end = offset.checked_add(len).filter(|_| len % SECTOR == 0);
                    match end {
                        Some(end) if end > offset => put(patches, offset, Patch::Zeroes(end)),
                        Some(_) => {}
                        None => return wrong("length of zeroes in the log", len),
                    }
                }
                b"desc" if next_data < sectors => {
                    let bytes = self.sector(entry.at + next_data * SECTOR).await?;
                    next_data += 1;
                    let Ok(data) = Data::ref_from_bytes(&bytes) else {
                        return wrong("offset of a log descriptor", offset);
                    };
                    let number = u64::from(data.sequence_high.get()) << 32
                        | u64::from(data.sequence_low.get());
                    if data.magic != *b"data" || number != sequence {
                        return wrong("sequence number of a data sector in the log", number);
                    }
                    let mut whole = Box::new([0; 4096]);
                    whole[..8].copy_from_slice(&descriptor.leading);
                    whole[8..4092].copy_from_slice(&data.bytes);
                    whole[4092..].copy_from_slice(&descriptor.trailing);
                    put(patches, offset, Patch::Sector(whole));
                }
                _ => return wrong("descriptors of a log entry", count),
            }
        }
        Ok(())
    }
}
