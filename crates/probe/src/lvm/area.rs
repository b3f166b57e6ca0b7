// SPDX-License-Identifier: Apache-2.0
//! Metadata areas: a header that says where in the area the text is that holds, and a ring of texts after it.

use super::Doubt;
use super::label::SEED;
use crate::checksum::crc32;
use crate::fields::{le32, le64};
use crate::medium::Medium;

pub(crate) const MAGIC: &[u8; 16] = b"\x20LVM2\x20x[5A%r0N*>";
const VERSION: u32 = 1;
/// Bytes of the header; the ring is what follows.
pub(crate) const HEADER: usize = 512;
/// Where in it the two places begin: of the text that holds, and of one that is about to.
const PLACES: [usize; 2] = [40, 64];
/// A flag of a place: nothing is to be read in this area.
const IGNORED: u32 = 1;
/// Bytes of a text. Those of groups with hundreds of volumes are smaller; larger ones are for LVM.
const MAX_TEXT: u64 = 1 << 20;

/// What tells one text from another: LVM, too, takes those of the same checksum and size for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print {
    checksum: u32,
    size: u64,
}

/// A text, whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub print: Print,
    pub text: String,
}

/// The text in an area that begins so many bytes from the beginning of the device, and is so large; none where there
/// is none, or none to be read.
pub(super) fn read(medium: &Medium<'_>, area: (u64, u64)) -> Result<Option<Text>, Doubt> {
    let (start, size) = area;
    let header = medium.array::<HEADER>(start).ok_or(Doubt("a metadata area is out of bounds"))?;
    let sound = crc32(SEED, &header[4..]) == le32(&header, 0)
        && header[4..20] == *MAGIC
        && le32(&header, 20) == VERSION
        && (le64(&header, 24), le64(&header, 32)) == area
        && size > HEADER as u64
        && start.checked_add(size).is_some_and(|end| end <= medium.size());
    if !sound {
        return Err(Doubt("the header of a metadata area is damaged"));
    }
    let [place, next] = PLACES;
    if le64(&header, next) != 0 {
        return Err(Doubt("a change of metadata has begun and not ended"));
    }
    let (offset, len) = (le64(&header, place), le64(&header, place + 8));
    let (checksum, flags) = (le32(&header, place + 16), le32(&header, place + 20));
    match flags {
        IGNORED => return Ok(None),
        0 if offset == 0 => return Ok(None),
        0 => {}
        _ => return Err(Doubt("a metadata area has flags that are not known")),
    }
    let inside = (HEADER as u64..size).contains(&offset) && (1..=MAX_TEXT).contains(&len);
    if !inside || len > size - HEADER as u64 {
        return Err(Doubt("metadata is out of bounds, or very large"));
    }
    // What does not fit before the end of the ring goes on at its beginning.
    let first = len.min(size - offset);
    let pieces = [(start + offset, first), (start + HEADER as u64, len - first)];
    let mut bytes = Vec::new();
    for (at, len) in pieces {
        let len = usize::try_from(len).map_err(|_| Doubt("metadata is very large"))?;
        bytes.extend_from_slice(&medium.at(at, len).ok_or(Doubt("metadata cannot be read"))?);
    }
    if crc32(SEED, &bytes) != checksum {
        return Err(Doubt("metadata is damaged"));
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    let text = String::from_utf8(bytes).map_err(|_| Doubt("metadata is not UTF-8"))?;
    Ok(Some(Text { print: Print { checksum, size: len }, text }))
}

/// Gives an area, header and text, the checksums that they should have, where the text goes on behind the header.
pub(crate) fn seal(area: &mut [u8]) {
    let place = |at: usize| usize::try_from(le64(area, at)).unwrap_or(usize::MAX);
    let (offset, len) = (place(40), place(48));
    let text = offset.checked_add(len).and_then(|end| area.get(offset..end));
    if let Some(checksum) = text.map(|text| crc32(SEED, text)) {
        area[56..60].copy_from_slice(&checksum.to_le_bytes());
    }
    if let Some(header) = area.get(4..HEADER) {
        let crc = crc32(SEED, header);
        area[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An area with this text at this offset, and these flags.
    pub(crate) fn area(start: u64, size: usize, text: &[u8], offset: usize, flags: u32) -> Vec<u8> {
        let mut area = vec![0; size];
        for (i, byte) in text.iter().enumerate() {
            let at = offset + i;
            area[if at < size { at } else { at - size + HEADER }] = *byte;
        }
        area[4..20].copy_from_slice(MAGIC);
        area[20..24].copy_from_slice(&VERSION.to_le_bytes());
        area[24..32].copy_from_slice(&start.to_le_bytes());
        area[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        area[40..48].copy_from_slice(&(offset as u64).to_le_bytes());
        area[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
        area[56..60].copy_from_slice(&crc32(SEED, text).to_le_bytes());
        area[60..64].copy_from_slice(&flags.to_le_bytes());
        seal_header(&mut area);
        area
    }

    fn seal_header(area: &mut [u8]) {
        let crc = crc32(SEED, &area[4..HEADER]);
        area[..4].copy_from_slice(&crc.to_le_bytes());
    }

    fn of(area: &[u8], place: (u64, u64)) -> Result<Option<String>, Doubt> {
        Ok(read(&Medium::of_bytes(area), place)?.map(|found| found.text))
    }

    #[test]
    fn a_text_goes_on_at_the_beginning_of_its_ring() {
        for offset in [512, 1000, 2040, 2047] {
            let area = area(0, 2048, b"some metadata\n\0", offset, 0);
            let found = of(&area, (0, 2048)).unwrap();
            assert_eq!(found.as_deref(), Some("some metadata\n"), "{offset}");
        }
    }

    #[test]
    fn an_area_that_is_empty_or_ignored_has_no_text() {
        assert_eq!(of(&area(0, 2048, b"", 0, 0), (0, 2048)).unwrap(), None);
        assert_eq!(of(&area(0, 2048, b"x", 512, IGNORED), (0, 2048)).unwrap(), None);
        assert_eq!(of(&area(0, 2048, b"", 0, IGNORED), (0, 2048)).unwrap(), None);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_in_doubt() {
        let good = area(0, 2048, b"some metadata", 600, 0);
        assert!(of(&good, (0, 1024)).is_err());
        assert!(of(&good, (0, 4096)).is_err());
        assert!(of(&good, (u64::MAX - 100, 4096)).is_err());
        for at in [0, 5, 20, 24, 32, 605] {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            assert!(of(&damaged, (0, 2048)).is_err(), "{at}");
        }
        for (at, bytes) in [
            (40, [1, 0, 0, 0, 0, 0, 0, 0]),
            (40, [0xff; 8]),
            (48, [0; 8]),
            (48, [0xff; 8]),
            (60, [2, 0, 0, 0, 0, 0, 0, 0]),
            (64, [1; 8]),
        ] {
            let mut wrong = good.clone();
            wrong[at..at + 8].copy_from_slice(&bytes);
            seal_header(&mut wrong);
            assert!(of(&wrong, (0, 2048)).is_err(), "{at}");
        }
        assert!(of(&area(0, 2048, b"\xff", 512, 0), (0, 2048)).is_err());
    }
}
