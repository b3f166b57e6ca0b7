// SPDX-License-Identifier: Apache-2.0
//! The persistent bitmaps of an image, as its file has them.
use super::index;
use super::owners::{Image, Owner};

/// The type of the header extension.
pub(crate) const EXTENSION: u32 = 0x2385_2875;
/// The flag of a bitmap that does not count.
pub(crate) const IN_USE: u32 = 1;
/// The flag of a bitmap that tells of all changes.
pub(crate) const AUTO: u32 = 2;

/// A bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    flags: u32,
    granularity_bits: u32,
    /// Where the directory is: offset and length.
    directory: (u64, u64),
    /// Where its table is: offset and entries.
    table: (u64, u64),
    /// The table's entries.
    entries: Vec<u64>,
    /// The bits of each entry; none where all are alike.
    parts: Vec<Vec<u8>>,
    /// Bytes of the guest that a part stands for.
    covered: u64,
}

impl Bitmap {
    /// Whether what it says is to be relied upon.
    pub fn counts(&self) -> bool {
        self.flags & IN_USE == 0
    }

    /// Whether it tells of all changes.
    pub fn tracks(&self) -> bool {
        self.flags & AUTO != 0
    }

    /// Whether the bit is set that stands for the byte at `offset` of the guest.
    pub fn has(&self, offset: u64) -> bool {
        let part = index(offset / self.covered);
        match (self.entries.get(part), self.parts.get(part).map(Vec::as_slice)) {
            (Some(&entry), Some([])) => entry == 1,
            (Some(_), Some(bytes)) => {
                let bit = (offset % self.covered) >> self.granularity_bits;
                bytes.get(index(bit / 8)).is_some_and(|byte| (byte >> (bit % 8)) & 1 == 1)
            }
            _ => false,
        }
    }

    /// Judges one that is as it was made, [`KEPT`](crate::crash::image::KEPT), of a disk of `size`
    /// bytes.
    ///
    /// # Errors
    /// The first bit that is not.
    pub fn judge_kept(&self, size: u64) -> Result<(), String> {
        let granule = 1u64 << self.granularity_bits;
        let wrong =
            (0..size.div_ceil(granule)).find(|n| self.has(n * granule) != n.is_multiple_of(2));
        wrong.map_or(Ok(()), |n| Err(format!("bit {n} of the bitmap {:?} has changed", self.name)))
    }

    /// Notes its clusters; those of the directory with the first one.
    pub(super) fn own(&self, image: &mut Image<'_>, number: u64) -> Result<(), String> {
        if number == 0 {
            let (at, len) = self.directory;
            image.own(at, len.max(1), Owner::BitmapDirectory, 1)?;
        }
        let (at, entries) = self.table;
        image.own(at, (entries * 8).max(1), Owner::BitmapTable(number), 1)?;
        for &entry in self.entries.iter().filter(|&&entry| entry > 1) {
            image.own(entry, 1, Owner::BitmapData(number), 1)?;
        }
        Ok(())
    }
}

/// The bitmaps of an image.
///
/// # Errors
/// What is wrong with it.
pub fn bitmaps(bytes: &[u8]) -> Result<Vec<Bitmap>, String> {
    list(&Image::new(bytes)?)
}

/// The directory: how many bitmaps, length, offset. Without the bit in the header it does not count.
fn directory(image: &Image<'_>) -> Option<(u64, u64, u64)> {
    if !image.is_version_3() || image.number(88) & 1 == 0 {
        return None;
    }
    let mut at = image.word(100);
    while at + 8 <= image.cluster && image.word(at) != 0 {
        if image.word(at) == u64::from(EXTENSION) {
            return Some((image.word(at + 8), image.number(at + 16), image.number(at + 24)));
        }
        at += 8 + image.word(at + 4).next_multiple_of(8);
    }
    None
}

pub(super) fn list(image: &Image<'_>) -> Result<Vec<Bitmap>, String> {
    let Some((count, len, start)) = directory(image) else { return Ok(Vec::new()) };
    let (mut at, mut found) = (start, Vec::new());
    for number in 0..count {
        let table = (image.number(at), image.word(at + 8));
        let flags = u32::try_from(image.word(at + 12)).unwrap_or(0);
        let (kinds, extra) = (image.word(at + 16), image.word(at + 20));
        let (granularity_bits, name_len) = (u32::try_from((kinds >> 16) & 0xff), kinds & 0xffff);
        let granularity_bits = granularity_bits.unwrap_or(0);
        let name = at + 24 + extra;
        let name = image.bytes.get(index(name)..index(name + name_len)).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        at = (at + 24 + extra + name_len).next_multiple_of(8);
        if at - start > len {
            return Err(format!("the directory of {count} bitmaps ends in bitmap {number}"));
        }
        let entries: Vec<u64> = (0..table.1).map(|n| image.number(table.0 + n * 8)).collect();
        let bits = |&entry: &u64| match entry {
            0 | 1 => Vec::new(),
            _ => image.cluster_bytes(entry).to_vec(),
        };
        let parts = entries.iter().map(bits).collect();
        let covered = (image.cluster * 8) << granularity_bits;
        let directory = (start, len);
        found.push(Bitmap {
            name,
            flags,
            granularity_bits,
            directory,
            table,
            entries,
            parts,
            covered,
        });
    }
    Ok(found)
}
