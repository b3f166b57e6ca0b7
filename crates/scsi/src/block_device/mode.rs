// SPDX-License-Identifier: Apache-2.0
//! The mode pages of block devices (SPC-4 7.5, SBC-4).

use crate::mode::{Page, Table, fixed};

/// DPOFUA in the device-specific parameter: DPO and FUA are obeyed.
const DPOFUA: u8 = 0x10;
const WCE: u8 = 0x04;

pub(super) const TABLE: Table = Table { device_specific: DPOFUA, pages: PAGES };

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

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers are small")]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::capacity::Capacity;
    use crate::command::{ModeRequest, PageControl};
    use crate::fixtures;
    use crate::mode::{Modes, SPF};
    use crate::sense::Sense;

    fn sense(request: &ModeRequest, modes: &Modes) -> Result<Answer, Sense> {
        TABLE.sense(request, modes)
    }

    fn select(list: &[u8], ten: bool, modes: &Modes) -> Result<Modes, Sense> {
        TABLE.select(list, ten, modes)
    }

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
        let refused = |page, subpage| {
            sense(&request(page, subpage, PageControl::Current), &modes()).unwrap_err()
        };
        assert_eq!(refused(0x05, 0), Sense::cdb_field(2, Some(5)));
        assert_eq!(refused(0x08, 1), Sense::cdb_field(3, Some(7)));
        assert_eq!(refused(0x3f, 2), Sense::cdb_field(3, Some(7)));
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
