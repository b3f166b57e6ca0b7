// SPDX-License-Identifier: Apache-2.0
//! One file: its entries by their numbers, and the fields of an entry.

use crate::compression::{Compression, MAX_FIELD};
use crate::error::{Error, Result};
use crate::format::{
    ARCHIVED, COMPACT, FEATURES, HEADER, PAYLOAD, PAYLOAD_COMPACT, SIGNATURE, array, entry, half,
    header, id, object, word,
};
use guest_fs::source::Source;
use std::cmp::Ordering;
use std::io;

/// Most arrays of entries' offsets in a chain: each is longer than the one before.
const MAX_ARRAYS: usize = 1 << 12;
/// Most fields of an entry.
const MAX_FIELDS: u64 = 1 << 16;
/// Times from here on are none.
const MAX_TIME: u64 = 1 << 55;

/// What tells an entry's place among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    seqnum_id: [u8; 16],
    seqnum: u64,
    boot: [u8; 16],
    monotonic: u64,
    /// Microseconds since 1970.
    pub(crate) realtime: u64,
    hash: u64,
}

impl Stamp {
    /// Which entry comes first. Entries of one source count up, those of one boot have its clock; else the time of day
    /// decides.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let among = |same: bool, order: Ordering| if same { order } else { Ordering::Equal };
        if self == other {
            return Ordering::Equal;
        }
        among(self.seqnum_id == other.seqnum_id, self.seqnum.cmp(&other.seqnum))
            .then(among(self.boot == other.boot, self.monotonic.cmp(&other.monotonic)))
            .then(self.realtime.cmp(&other.realtime))
            .then(self.hash.cmp(&other.hash))
    }
}

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    at: u64,
    fields: u64,
    pub(crate) stamp: Stamp,
}

/// An array of entries' offsets: where it is, and the number of its first entry.
#[derive(Clone, Copy, Debug)]
struct Array {
    at: u64,
    first: u64,
}

/// A journal file.
#[derive(Debug)]
pub(crate) struct File<S> {
    source: S,
    compact: bool,
    seqnum_id: [u8; 16],
    arrays: Vec<Array>,
    /// How many entries there are.
    pub(crate) len: u64,
}

impl<S: Source> File<S> {
    pub(crate) fn open(source: S) -> Result<Self> {
        let mut bytes = [0; HEADER];
        source.read_exact_at(&mut bytes, 0).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::NotAJournal("too short"),
            _ => Error::Io(e),
        })?;
        if !bytes.starts_with(SIGNATURE) {
            return Err(Error::NotAJournal("it does not begin as one"));
        }
        let features = half(&bytes, header::INCOMPATIBLE);
        if features & !FEATURES != 0 {
            return Err(Error::NotAJournal("it has features that are not known"));
        }
        if bytes[header::STATE] > ARCHIVED {
            return Err(Error::NotAJournal("of an unknown state"));
        }
        let size = word(&bytes, header::HEADER_SIZE);
        let end = size.checked_add(word(&bytes, header::ARENA_SIZE));
        if size < HEADER as u64 || end.is_none_or(|end| source.len().is_ok_and(|len| end > len)) {
            return Err(Error::NotAJournal("it is cut short"));
        }
        let mut file = Self {
            source,
            compact: features & COMPACT != 0,
            seqnum_id: id(&bytes, header::SEQNUM_ID),
            arrays: Vec::new(),
            len: 0,
        };
        file.find_arrays(word(&bytes, header::ENTRY_ARRAY), word(&bytes, header::N_ENTRIES));
        Ok(file)
    }

    /// Follows the chain of arrays, as far as it makes sense.
    fn find_arrays(&mut self, mut at: u64, entries: u64) {
        while at != 0 && self.len < entries && self.arrays.len() < MAX_ARRAYS {
            let Ok((head, size)) = self.object::<{ array::ITEMS }>(at, object::ENTRY_ARRAY) else {
                break;
            };
            let items = (size - array::ITEMS as u64) / self.offset_size();
            self.arrays.push(Array { at, first: self.len });
            self.len = self.len.saturating_add(items).min(entries);
            let next = word(&head, array::NEXT);
            // A chain goes forward.
            at = if next > at { next } else { 0 };
        }
    }

    /// The entry of this number; none if it makes no sense.
    pub(crate) fn entry(&self, number: u64) -> Result<Option<Entry>> {
        match self.read_entry(number) {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::Io(e)) if e.kind() != io::ErrorKind::UnexpectedEof => Err(Error::Io(e)),
            Err(_) => Ok(None),
        }
    }

    fn read_entry(&self, number: u64) -> Result<Entry> {
        if number >= self.len {
            return Err(Error::NoEntry);
        }
        let array = self.arrays.partition_point(|array| array.first <= number).checked_sub(1);
        let array = array.and_then(|i| self.arrays.get(i)).ok_or(Error::NoEntry)?;
        let place = array.at + array::ITEMS as u64 + (number - array.first) * self.offset_size();
        let at = self.offset(place)?;
        let (head, size) = self.object::<{ entry::ITEMS }>(at, object::ENTRY)?;
        let items = size - entry::ITEMS as u64;
        let stamp = Stamp {
            seqnum_id: self.seqnum_id,
            seqnum: word(&head, entry::SEQNUM),
            boot: id(&head, entry::BOOT_ID),
            monotonic: word(&head, entry::MONOTONIC),
            realtime: word(&head, entry::REALTIME),
            hash: word(&head, entry::XOR_HASH),
        };
        let bad = items == 0
            || !items.is_multiple_of(self.item_size())
            || stamp.seqnum == 0
            || stamp.realtime == 0
            || stamp.realtime.max(stamp.monotonic) >= MAX_TIME;
        if bad {
            return Err(Error::Damaged { at, what: "an entry that makes no sense" });
        }
        Ok(Entry { at, fields: items / self.item_size(), stamp })
    }

    /// Calls for each field of an entry (`NAME=content`).
    pub(crate) fn fields<E: From<Error>>(
        &self,
        entry: &Entry,
        mut each: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        for i in 0..entry.fields.min(MAX_FIELDS) {
            let place = entry.at + entry::ITEMS as u64 + i * self.item_size();
            let data = self.offset(place).and_then(|at| self.data(at));
            match data {
                Ok(data) => each(&data)?,
                Err(Error::Damaged { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The content of a field.
    fn data(&self, at: u64) -> Result<Vec<u8>> {
        let payload = if self.compact { PAYLOAD_COMPACT } else { PAYLOAD };
        let (head, size) = self.object::<{ object::HEAD }>(at, object::DATA)?;
        let len = size.checked_sub(payload as u64).filter(|len| *len > 0);
        let len = len.ok_or(Error::Damaged { at, what: "a field without content" })?;
        if len > MAX_FIELD {
            return Err(Error::TooLong);
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Error::TooLong)?];
        self.read(&mut bytes, at + payload as u64)?;
        match Compression::of_flags(head[object::FLAGS], at)? {
            None => Ok(bytes),
            Some(compression) => compression.decompress(&bytes, at),
        }
    }

    /// The first bytes of an object of this kind, and its size, which is inside of the file.
    fn object<const N: usize>(&self, at: u64, kind: u8) -> Result<([u8; N], u64)> {
        let mut head = [0; N];
        if !at.is_multiple_of(8) {
            return Err(Error::Damaged { at, what: "no object begins here" });
        }
        self.read(&mut head, at)?;
        let size = word(&head, object::SIZE);
        let end = at.checked_add(size);
        let inside = end.is_some_and(|end| self.source.len().is_ok_and(|len| end <= len));
        if head[object::KIND] != kind || size < N as u64 || !inside {
            return Err(Error::Damaged { at, what: "not the object that should be here" });
        }
        Ok((head, size))
    }

    /// Bytes of an offset in an array.
    fn offset_size(&self) -> u64 {
        if self.compact { 4 } else { 8 }
    }

    /// Bytes of an item of an entry: an offset, and a hash where there is room for one.
    fn item_size(&self) -> u64 {
        if self.compact { 4 } else { 16 }
    }

    /// The offset that is stored here.
    fn offset(&self, place: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        let size = if self.compact { 4 } else { 8 };
        self.read(&mut bytes[..size], place)?;
        match u64::from_le_bytes(bytes) {
            0 => Err(Error::Damaged { at: place, what: "an offset of 0" }),
            offset => Ok(offset),
        }
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        match self.source.read_exact_at(bytes, at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::Damaged { at, what: "the file ends before" })
            }
            done => Ok(done?),
        }
    }
}
