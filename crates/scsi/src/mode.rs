// SPDX-License-Identifier: Apache-2.0
//! Mode pages (SPC-4 7.5, SBC-4): MODE SENSE is built from, and MODE SELECT checked against, one
//! table. In: the values that differ by device, [`Modes`]. Out: parameter data, or the new values.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::answer::Answer;
use crate::capacity::Capacity;
use crate::cdb::top_bit;
use crate::command::{ModeRequest, PageControl};
use crate::sense::Sense;

/// The values that pages and headers tell of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// WCE: a write may end before its data is on stable storage. MODE SELECT can change it.
    pub write_cache: bool,
    /// WCE as it is after opening.
    pub write_cache_default: bool,
    /// WP: the medium cannot be written.
    pub write_protected: bool,
    /// IALUAE: ALUA states may change by themselves.
    pub implicit_alua: bool,
    /// For block descriptors.
    pub capacity: Capacity,
}

/// A page of the table, header included, as long as it is on the wire.
struct Page {
    code: u8,
    subpage: u8,
    /// What does not differ by device.
    base: &'static [u8],
    /// What does.
    fill: fn(&Modes, &mut [u8]),
    /// The bits that MODE SELECT may change: byte and mask.
    changeable: &'static [(usize, u8)],
    /// Takes them over.
    take: fn(&mut Modes, &[u8]),
}

/// DPOFUA in the device-specific parameter: DPO and FUA are obeyed.
const DPOFUA: u8 = 0x10;
/// WP in the device-specific parameter.
const WP: u8 = 0x80;
const WCE: u8 = 0x04;
/// SPF in the header of a page: it has a subpage code and a length of two bytes.
const SPF: u8 = 0x40;

const fn fixed(code: u8, base: &'static [u8]) -> Page {
    Page { code, subpage: 0, base, fill: |_, _| (), changeable: &[], take: |_, _| () }
}

const PAGES: &[Page] = &[
    // Read-write error recovery: nothing is retried or reassigned.
    fixed(0x01, &[0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // Disconnect-reconnect: no limits.
    fixed(0x02, &[0x02, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // Caching.
    Page {
        code: 0x08,
        subpage: 0,
        base: &[0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        fill: |modes, page| page[2] |= if modes.write_cache { WCE } else { 0 },
        changeable: &[(2, WCE)],
        take: |modes, page| modes.write_cache = page[2] & WCE != 0,
    },
    // Control: GLTSD; unrestricted reordering; TAS; unlimited busy time-out.
    fixed(0x0a, &[0x0a, 0x0a, 0x02, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0]),
    // Control extension.
    Page {
        code: 0x0a,
        subpage: 0x01,
        base: &[
            0x4a, 0x01, 0, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0,
        ],
        fill: |modes, page| page[4] |= u8::from(modes.implicit_alua),
        changeable: &[],
        take: |_, _| (),
    },
    // Informational exceptions: DEXCPT, there are none.
    fixed(0x1c, &[0x1c, 0x0a, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
];

impl Page {
    /// Length of the header.
    fn header(&self) -> usize {
        if self.subpage == 0 { 2 } else { 4 }
    }

    fn values(&self, modes: &Modes, control: PageControl) -> Vec<u8> {
        let mut page = self.base.to_vec();
        match control {
            PageControl::Current => (self.fill)(modes, &mut page),
            PageControl::Default => {
                let default = Modes { write_cache: modes.write_cache_default, ..*modes };
                (self.fill)(&default, &mut page);
            }
            PageControl::Changeable => {
                page[self.header()..].fill(0);
                for (byte, mask) in self.changeable {
                    page[*byte] = *mask;
                }
            }
        }
        page
    }

    fn matches(&self, page: u8, subpage: u8) -> bool {
        (page == 0x3f || page == self.code) && (subpage == 0xff || subpage == self.subpage)
    }
}

/// Block descriptor of direct access devices (SBC-4), as short as its name.
fn short_descriptor(capacity: &Capacity) -> [u8; 8] {
    let blocks = u32::try_from(capacity.blocks).unwrap_or(u32::MAX).to_be_bytes();
    let [_, size @ ..] = capacity.block_size.to_be_bytes();
    let mut descriptor = [0; 8];
    descriptor[..4].copy_from_slice(&blocks);
    descriptor[5..].copy_from_slice(&size);
    descriptor
}

/// The same for LLBAA (SBC-4).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LongDescriptor {
    blocks: U64,
    reserved: [u8; 4],
    block_size: U32,
}

/// MODE SENSE (6) and (10) (SPC-4 6.11, 6.12).
///
/// # Errors
/// INVALID FIELD IN CDB for a page or subpage that is not there.
pub fn sense(request: &ModeRequest, modes: &Modes) -> Result<Answer, Sense> {
    let mut pages = Answer::new();
    for page in PAGES.iter().filter(|page| page.matches(request.page, request.subpage)) {
        pages.bytes(&page.values(modes, request.control));
    }
    if pages.is_empty() {
        let known = PAGES.iter().any(|page| page.matches(request.page, 0xff));
        return Err(if known {
            Sense::cdb_field(3, Some(7))
        } else {
            Sense::cdb_field(2, Some(5))
        });
    }

    let mut descriptor = Answer::new();
    if request.no_descriptors {
    } else if request.long_lba {
        descriptor.layout(&LongDescriptor {
            blocks: modes.capacity.blocks.into(),
            reserved: [0; 4],
            block_size: modes.capacity.block_size.into(),
        });
    } else {
        descriptor.bytes(&short_descriptor(&modes.capacity));
    }

    let device_specific = DPOFUA | if modes.write_protected { WP } else { 0 };
    let rest = descriptor.len() + pages.len();
    let mut a = Answer::new();
    // All pages together are shorter than 256 bytes: both formats' length fields hold them.
    let byte = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    if request.ten {
        a.bytes(&[0, byte(rest + 6), 0, device_specific]);
        a.bytes(&[u8::from(request.long_lba && !request.no_descriptors), 0]);
        a.bytes(&[0, byte(descriptor.len())]);
    } else {
        a.bytes(&[byte(rest + 3), 0, device_specific, byte(descriptor.len())]);
    }
    a.bytes(&descriptor);
    a.bytes(&pages);
    Ok(a)
}

/// MODE SELECT (6) and (10) (SPC-4 6.9, 6.10): the values after it. `list` is the parameter list;
/// an empty one changes nothing. Either all of it is taken over or none.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR when the list ends within a header, descriptor or page; INVALID FIELD
/// IN PARAMETER LIST, with its place, for a page that is not there, of the wrong length, or that
/// changes what cannot be changed.
pub fn select(list: &[u8], ten: bool, modes: &Modes) -> Result<Modes, Sense> {
    let mut after = *modes;
    if list.is_empty() {
        return Ok(after);
    }
    let (header, medium_type, long, descriptor_len) = match (ten, list) {
        (false, [_, medium_type, _, len, ..]) => (4, *medium_type, false, usize::from(*len)),
        (true, [_, _, medium_type, _, flags, _, high, low, ..]) => {
            let len = u16::from_be_bytes([*high, *low]);
            (8, *medium_type, flags & 1 != 0, usize::from(len))
        }
        _ => return Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
    };
    if medium_type != 0 {
        return Err(Sense::list_field(if ten { 2 } else { 1 }, Some(7)));
    }
    let descriptor =
        list.get(header..header + descriptor_len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    check_descriptor(descriptor, header, long, &modes.capacity)?;

    let mut at = header + descriptor_len;
    while at < list.len() {
        let rest = &list[at..];
        let (code, subpage, header, len) = match rest {
            [code, subpage, high, low, ..] if code & SPF != 0 => {
                (code & 0x3f, *subpage, 4, 4 + usize::from(u16::from_be_bytes([*high, *low])))
            }
            [code, len, ..] if code & SPF == 0 => (code & 0x3f, 0, 2, 2 + usize::from(*len)),
            _ => return Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
        };
        let page = PAGES
            .iter()
            .find(|page| (page.code, page.subpage, page.header()) == (code, subpage, header))
            .ok_or_else(|| Sense::list_field(at, Some(5)))?;
        if len != page.base.len() {
            return Err(Sense::list_field(at + header - if header == 2 { 1 } else { 2 }, Some(7)));
        }
        let new = rest.get(..len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let current = page.values(modes, PageControl::Current);
        for (i, (new, current)) in new.iter().zip(&current).enumerate().skip(header) {
            let mask = page.changeable.iter().find(|(byte, _)| *byte == i).map_or(0, |(_, m)| *m);
            if let Some(bit) = top_bit((new ^ current) & !mask) {
                return Err(Sense::list_field(at + i, Some(bit)));
            }
        }
        (page.take)(&mut after, new);
        at += len;
    }
    Ok(after)
}

/// A block descriptor may say what is, or leave the number of blocks open; it cannot change either.
fn check_descriptor(
    descriptor: &[u8],
    at: usize,
    long: bool,
    capacity: &Capacity,
) -> Result<(), Sense> {
    let (blocks, all, block_size, size_at) = match (long, descriptor) {
        (_, []) => return Ok(()),
        (false, [b0, b1, b2, b3, _, s0, s1, s2]) => {
            let blocks = u32::from_be_bytes([*b0, *b1, *b2, *b3]);
            (u64::from(blocks), blocks == u32::MAX, u32::from_be_bytes([0, *s0, *s1, *s2]), 5)
        }
        (true, [b @ .., _, _, _, _, s0, s1, s2, s3]) if b.len() == 8 => {
            let blocks = b.iter().fold(0, |n, b| n << 8 | u64::from(*b));
            (blocks, blocks == u64::MAX, u32::from_be_bytes([*s0, *s1, *s2, *s3]), 12)
        }
        // The length of the descriptors is the last field of the header.
        (true, _) => return Err(Sense::list_field(6, Some(7))),
        (false, _) => return Err(Sense::list_field(if at == 4 { 3 } else { 6 }, Some(7))),
    };
    if blocks != 0 && !all && blocks != capacity.blocks {
        return Err(Sense::list_field(at, Some(7)));
    }
    if block_size != capacity.block_size {
        return Err(Sense::list_field(at + size_at, Some(7)));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers are small")]
mod tests {
    use super::*;
    use crate::fixtures;

    fn modes() -> Modes {
        Modes {
            write_cache: true,
            write_cache_default: false,
            write_protected: false,
            implicit_alua: true,
            capacity: fixtures::capacity(),
        }
    }

    fn request(page: u8, subpage: u8, control: PageControl) -> ModeRequest {
        ModeRequest { ten: false, page, subpage, control, no_descriptors: true, long_lba: false }
    }

    fn pages(page: u8, subpage: u8, control: PageControl) -> Vec<u8> {
        sense(&request(page, subpage, control), &modes()).unwrap()[4..].to_vec()
    }

    #[test]
    fn headers_tell_the_length_and_what_the_device_does() {
        let all = request(0x3f, 0xff, PageControl::Current);
        let six = sense(&all, &modes()).unwrap();
        assert_eq!(six[..4], [six.len() as u8 - 1, 0, 0x10, 0]);
        let ten = ModeRequest { ten: true, no_descriptors: false, ..all };
        let protected = Modes { write_protected: true, ..modes() };
        let short = sense(&ten, &protected).unwrap();
        assert_eq!(short[..8], [0, short.len() as u8 - 2, 0, 0x90, 0, 0, 0, 8]);
        assert_eq!(short[8..16], [0, 8, 0, 0, 0, 0, 2, 0]);
        let long = sense(&ModeRequest { long_lba: true, ..ten }, &modes()).unwrap();
        assert_eq!(long[..8], [0, long.len() as u8 - 2, 0, 0x10, 1, 0, 0, 16]);
        assert_eq!(long[8..24], [0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(long[24..], six[4..]);
    }

    #[test]
    fn a_device_too_large_for_a_short_descriptor_says_so() {
        let large = Capacity { blocks: 1 << 40, block_size: 4096, ..fixtures::capacity() };
        let six = ModeRequest { no_descriptors: false, ..request(0x08, 0, PageControl::Current) };
        let a = sense(&six, &Modes { capacity: large, ..modes() }).unwrap();
        assert_eq!(a[4..12], [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]);
    }

    #[test]
    fn the_cache_bit_is_current_default_or_changeable() {
        assert_eq!(pages(0x08, 0, PageControl::Current)[..3], [0x08, 0x12, 0x04]);
        assert_eq!(pages(0x08, 0, PageControl::Default)[..3], [0x08, 0x12, 0x00]);
        let changeable = pages(0x08, 0, PageControl::Changeable);
        assert_eq!(changeable[..3], [0x08, 0x12, 0x04]);
        assert!(changeable[3..].iter().all(|b| *b == 0));
        assert!(pages(0x0a, 0, PageControl::Changeable)[2..].iter().all(|b| *b == 0));
    }

    #[test]
    fn all_pages_come_in_order_and_each_is_as_long_as_it_says() {
        for (subpage, expected) in [
            (0x00, &[(1, 0), (2, 0), (8, 0), (0x0a, 0), (0x1c, 0)][..]),
            (0xff, &[(1, 0), (2, 0), (8, 0), (0x0a, 0), (0x0a, 1), (0x1c, 0)][..]),
        ] {
            let all = pages(0x3f, subpage, PageControl::Current);
            let mut rest = &all[..];
            let mut found = vec![];
            while let [code, second, ..] = rest {
                let (subpage, len) = if code & SPF != 0 {
                    (*second, 4 + usize::from(rest[3]))
                } else {
                    (0, 2 + usize::from(*second))
                };
                found.push((code & 0x3f, subpage));
                rest = &rest[len..];
            }
            assert_eq!(found, expected);
        }
        assert_eq!(pages(0x0a, 0xff, PageControl::Current).len(), 12 + 32);
        assert_eq!(pages(0x0a, 0x01, PageControl::Current)[4], 1);
    }

    #[test]
    fn an_unknown_page_or_subpage_is_an_invalid_field() {
        let sense = |page, subpage| {
            super::sense(&request(page, subpage, PageControl::Current), &modes()).unwrap_err()
        };
        assert_eq!(sense(0x05, 0), Sense::cdb_field(2, Some(5)));
        assert_eq!(sense(0x08, 1), Sense::cdb_field(3, Some(7)));
        assert_eq!(sense(0x3f, 2), Sense::cdb_field(3, Some(7)));
    }

    fn caching(wce: u8) -> Vec<u8> {
        let mut page = pages(0x08, 0, PageControl::Current);
        page[2] = wce;
        page
    }

    #[test]
    fn mode_select_switches_the_cache_and_nothing_else() {
        let list = [&[0; 4][..], &caching(0)].concat();
        let off = Modes { write_cache: false, ..modes() };
        assert_eq!(select(&list, false, &modes()), Ok(off));
        assert_eq!(select(&list, false, &off), Ok(off));
        let ten = [&[0; 8][..], &caching(4)].concat();
        assert_eq!(select(&ten, true, &off), Ok(modes()));
        // RCD cannot be changed.
        let rcd = [&[0; 4][..], &caching(5)].concat();
        assert_eq!(select(&rcd, false, &modes()), Err(Sense::list_field(6, Some(0))));
    }

    #[test]
    fn what_mode_sense_tells_mode_select_accepts() {
        for ten in [false, true] {
            for long_lba in [false, ten] {
                for no_descriptors in [false, true] {
                    let request = ModeRequest {
                        ten,
                        long_lba,
                        no_descriptors,
                        ..request(0x3f, 0xff, PageControl::Current)
                    };
                    let list = sense(&request, &modes()).unwrap();
                    assert_eq!(select(&list, ten, &modes()), Ok(modes()), "{request:?}");
                }
            }
        }
    }

    #[test]
    fn a_list_of_pages_is_taken_as_a_whole_or_not_at_all() {
        let mut control = pages(0x0a, 0, PageControl::Current);
        control[3] = 0;
        let list = [&[0; 4][..], &caching(0), &control].concat();
        assert_eq!(select(&list, false, &modes()), Err(Sense::list_field(4 + 20 + 3, Some(4))));
    }

    #[test]
    fn lists_that_end_early_are_length_errors() {
        let list = [&[0; 4][..], &caching(0)].concat();
        assert_eq!(select(&[], false, &modes()), Ok(modes()));
        for len in (1..list.len()).filter(|len| *len != 4) {
            let sense = select(&list[..len], false, &modes());
            assert_eq!(sense, Err(Sense::PARAMETER_LIST_LENGTH_ERROR), "{len} bytes");
        }
    }

    #[test]
    fn pages_of_the_wrong_kind_or_length_are_refused_with_their_place() {
        let select = |tail: &[u8]| select(&[&[0; 4][..], tail].concat(), false, &modes());
        assert_eq!(select(&[0x05, 0]), Err(Sense::list_field(4, Some(5))));
        assert_eq!(select(&[0x48, 0, 0, 0]), Err(Sense::list_field(4, Some(5))));
        assert_eq!(select(&[0x08, 0x11]), Err(Sense::list_field(5, Some(7))));
        assert_eq!(select(&[0x4a, 0x01, 0, 1]), Err(Sense::list_field(6, Some(7))));
    }

    #[test]
    fn block_descriptors_may_not_change_the_capacity() {
        let select = |descriptor: &[u8]| {
            let header = [0, 0, 0, descriptor.len() as u8];
            select(&[&header[..], descriptor].concat(), false, &modes())
        };
        assert_eq!(select(&[0, 0, 0, 0, 0, 0, 2, 0]), Ok(modes()));
        assert_eq!(select(&[0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]), Ok(modes()));
        assert_eq!(select(&[0, 0, 0, 1, 0, 0, 2, 0]), Err(Sense::list_field(4, Some(7))));
        assert_eq!(select(&[0, 0, 0, 0, 0, 0, 4, 0]), Err(Sense::list_field(9, Some(7))));
        assert_eq!(select(&[0; 16]), Err(Sense::list_field(3, Some(7))));
    }
}
