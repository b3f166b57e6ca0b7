// SPDX-License-Identifier: Apache-2.0
//! The label that makes a device a physical volume, and the header in it: whose it is, and where its metadata is.

use super::Doubt;
use crate::checksum::crc32;
use crate::fields::{le32, le64};
use std::os::fd::AsFd;

/// What it begins with, and the sectors in which it may be (`man pvcreate`).
pub(crate) const MAGIC: &[u8] = b"LABELONE";
const SECTORS: usize = 4;
pub(crate) const SECTOR: usize = 512;
/// Bytes from the beginning of a device in which it may be.
pub(crate) const HEAD: usize = SECTORS * SECTOR;
/// What LVM's checksums begin with.
pub(super) const SEED: u32 = 0xf597_a6cf;
const TYPE: &[u8] = b"LVM2 001";
/// What the checksum is of.
const CHECKED: usize = 20;
/// Characters of a UUID without its dashes.
pub(super) const ID: usize = 32;
/// Of the flags of a header: it is in a group.
const IN_USE: u32 = 1;
/// Versions of the header's second part.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;

/// A UUID of LVM, without its dashes.
pub(crate) type Id = [u8; ID];

/// A label that is whole.
#[derive(Debug)]
pub(crate) struct Label {
    sector: [u8; SECTOR],
    header: usize,
}

/// What a physical volume says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub id: Id,
    /// Whether it is in a group; none where that is not said.
    pub in_use: Option<bool>,
    /// Where metadata is, each with its size in bytes.
    pub areas: Vec<(u64, u64)>,
}

/// Whether LVM takes a device for a physical volume: it has a label, whatever that says.
pub fn is_physical_volume(device: impl AsFd) -> bool {
    let mut sectors = [0; HEAD];
    // What cannot be read LVM cannot read either.
    rustix::io::pread(device, &mut sectors, 0)
        .is_ok_and(|n| sectors[..n].chunks(SECTOR).any(|sector| sector.starts_with(MAGIC)))
}

/// The label in the first sectors of a device; none if there is none, whole or not.
pub(crate) fn find(head: &[u8]) -> Option<Result<Label, Doubt>> {
    let sectors = head.chunks_exact(SECTOR).take(SECTORS).enumerate();
    let mut found = sectors.filter(|(_, sector)| sector.starts_with(MAGIC));
    let (number, sector) = found.next()?;
    Some(match found.next() {
        None => check(number, sector),
        Some(_) => Err(Doubt("there are two labels")),
    })
}

fn check(number: usize, sector: &[u8]) -> Result<Label, Doubt> {
    let sector: [u8; SECTOR] = sector.try_into().map_err(|_| Doubt("a label is cut off"))?;
    let header = usize::try_from(le32(&sector, 20)).unwrap_or(usize::MAX);
    // LVM finds it in the others, blkid does not.
    let sound = number < 2
        && &sector[24..32] == TYPE
        && le64(&sector, 8) == number as u64
        && crc32(SEED, &sector[CHECKED..]) == le32(&sector, 16)
        && header <= SECTOR - ID;
    if sound { Ok(Label { sector, header }) } else { Err(Doubt("a label is damaged")) }
}

/// Gives the sector of a label the checksum that it should have.
pub(crate) fn seal(sector: &mut [u8; SECTOR]) {
    let crc = crc32(SEED, &sector[CHECKED..]);
    sector[16..20].copy_from_slice(&crc.to_le_bytes());
}

impl Label {
    /// The UUID.
    pub(crate) fn id(&self) -> Id {
        let mut id = [0; ID];
        id.copy_from_slice(&self.sector[self.header..self.header + ID]);
        id
    }

    pub(super) fn header(&self) -> Result<Header, Doubt> {
        let id = self.id();
        if !id.iter().all(u8::is_ascii_alphanumeric) {
            return Err(Doubt("a UUID has other characters than letters and digits"));
        }
        // After it the size of the device, which may have changed since.
        let mut rest = Fields(self.sector.get(self.header + ID + 8..).unwrap_or_default());
        let _data = rest.places()?;
        let areas = rest.places()?;
        let version = rest.word()?;
        let in_use = match (version, rest.word()?) {
            (0, _) => None,
            (version, flags @ 0..=IN_USE) if VERSIONS.contains(&version) => Some(flags == IN_USE),
            _ => return Err(Doubt("a physical volume is of a version that is not known")),
        };
        Ok(Header { id, in_use, areas })
    }
}

/// What is yet to be read of a header.
struct Fields<'s>(&'s [u8]);

impl Fields<'_> {
    fn word(&mut self) -> Result<u32, Doubt> {
        let word;
        (word, self.0) = self.0.split_first_chunk().ok_or(CUT_OFF)?;
        Ok(u32::from_le_bytes(*word))
    }

    fn long(&mut self) -> Result<u64, Doubt> {
        let long;
        (long, self.0) = self.0.split_first_chunk().ok_or(CUT_OFF)?;
        Ok(u64::from_le_bytes(*long))
    }

    /// Offsets and sizes, up to the offset zero.
    fn places(&mut self) -> Result<Vec<(u64, u64)>, Doubt> {
        let mut places = Vec::new();
        loop {
            match (self.long()?, self.long()?) {
                (0, _) => return Ok(places),
                place => places.push(place),
            }
        }
    }
}

const CUT_OFF: Doubt = Doubt("the header of a physical volume does not end in its sector");

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The first sectors of a physical volume with one metadata area, and room for that.
    pub(crate) fn labelled(id: &Id, flags: u32, area: (u64, u64)) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        let sector = own(&mut head);
        sector[..8].copy_from_slice(MAGIC);
        sector[8] = 1;
        sector[20] = 32;
        sector[24..32].copy_from_slice(TYPE);
        sector[32..64].copy_from_slice(id);
        // The end of the list of data areas is behind one that has no size.
        sector[72..80].copy_from_slice(&(1u64 << 20).to_le_bytes());
        sector[104..112].copy_from_slice(&area.0.to_le_bytes());
        sector[112..120].copy_from_slice(&area.1.to_le_bytes());
        sector[136..140].copy_from_slice(&2u32.to_le_bytes());
        sector[140..144].copy_from_slice(&flags.to_le_bytes());
        seal(sector);
        head
    }

    fn own(head: &mut [u8]) -> &mut [u8; SECTOR] {
        head[SECTOR..].first_chunk_mut().unwrap()
    }

    fn header(head: &[u8]) -> Result<Header, Doubt> {
        find(head).unwrap()?.header()
    }

    const OWN: &Id = b"abcdefghijklmnopqrstuvwxyzABCDEF";

    #[test]
    fn a_header_says_who_it_is_and_where_its_metadata_is() {
        let head = labelled(OWN, 1, (4096, 1 << 20));
        let areas = vec![(4096, 1 << 20)];
        assert_eq!(header(&head).unwrap(), Header { id: *OWN, in_use: Some(true), areas });
        assert_eq!(header(&labelled(OWN, 0, (0, 0))).unwrap().areas, []);
        assert!(find(&[0; HEAD]).is_none());
        assert!(find(&head[..600]).is_none());
    }

    #[test]
    fn what_is_not_as_it_should_be_is_in_doubt() {
        let head = labelled(OWN, 1, (4096, 1 << 20));
        for at in [8, 16, 20, 24, 40, 200] {
            let mut damaged = head.clone();
            damaged[SECTOR + at] ^= 2;
            assert!(header(&damaged).is_err(), "{at}");
        }
        // With a checksum that is right, too.
        for (at, byte) in [(20, 0xff), (32, b'!'), (136, 9), (140, 4)] {
            let mut wrong = head.clone();
            let sector = own(&mut wrong);
            sector[at] = byte;
            seal(sector);
            assert!(header(&wrong).is_err(), "{at}");
        }
        // A list without an end.
        let mut endless = head.clone();
        endless[SECTOR + 72..2 * SECTOR].fill(1);
        seal(own(&mut endless));
        assert!(header(&endless).is_err());
        // LVM finds it in any of four sectors, the first one of two.
        let mut later = vec![0; HEAD];
        later[3 * SECTOR..].copy_from_slice(&head[SECTOR..2 * SECTOR]);
        assert!(header(&later).is_err());
        let mut twice = head.clone();
        twice[3 * SECTOR..].copy_from_slice(&head[SECTOR..2 * SECTOR]);
        assert!(header(&twice).is_err());
    }
}
