// SPDX-License-Identifier: Apache-2.0
//! Mode pages (SPC-4 7.5): MODE SENSE is built from, and MODE SELECT checked against, the [`Table`]
//! of a device type. In: the values that differ by device, [`Modes`]. Out: parameter data, or the
//! new values.

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

/// The mode pages of a device type.
#[derive(Debug)]
pub struct Table {
    /// The device-specific parameter of headers, but for WP.
    pub(crate) device_specific: u8,
    pub(crate) pages: &'static [Page],
}

/// A page of the table, header included, as long as it is on the wire.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) code: u8,
    pub(crate) subpage: u8,
    /// What does not differ by device.
    pub(crate) base: &'static [u8],
    /// What does.
    pub(crate) fill: fn(&Modes, &mut [u8]),
    /// The bits that MODE SELECT may change: byte and mask.
    pub(crate) changeable: &'static [(usize, u8)],
    /// Takes them over.
    pub(crate) take: fn(&mut Modes, &[u8]),
}

/// WP in the device-specific parameter.
const WP: u8 = 0x80;
/// SPF in the header of a page: it has a subpage code and a length of two bytes.
pub(crate) const SPF: u8 = 0x40;

/// A page of which nothing differs and nothing can be changed.
pub(crate) const fn fixed(code: u8, base: &'static [u8]) -> Page {
    Page { code, subpage: 0, base, fill: |_, _| (), changeable: &[], take: |_, _| () }
}

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

impl Table {
    /// MODE SENSE (6) and (10) (SPC-4 6.11, 6.12).
    ///
    /// # Errors
    /// INVALID FIELD IN CDB for a page or subpage that is not there.
    pub fn sense(&self, request: &ModeRequest, modes: &Modes) -> Result<Answer, Sense> {
        let mut pages = Answer::new();
        for page in self.pages.iter().filter(|page| page.matches(request.page, request.subpage)) {
            pages.bytes(&page.values(modes, request.control));
        }
        if pages.is_empty() {
            let known = self.pages.iter().any(|page| page.matches(request.page, 0xff));
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

        let device_specific = self.device_specific | if modes.write_protected { WP } else { 0 };
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
    pub fn select(&self, list: &[u8], ten: bool, modes: &Modes) -> Result<Modes, Sense> {
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
            let page = self
                .pages
                .iter()
                .find(|page| (page.code, page.subpage, page.header()) == (code, subpage, header))
                .ok_or_else(|| Sense::list_field(at, Some(5)))?;
            if len != page.base.len() {
                return Err(Sense::list_field(
                    at + header - if header == 2 { 1 } else { 2 },
                    Some(7),
                ));
            }
            let new = rest.get(..len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
            let current = page.values(modes, PageControl::Current);
            for (i, (new, current)) in new.iter().zip(&current).enumerate().skip(header) {
                let mask =
                    page.changeable.iter().find(|(byte, _)| *byte == i).map_or(0, |(_, m)| *m);
                if let Some(bit) = top_bit((new ^ current) & !mask) {
                    return Err(Sense::list_field(at + i, Some(bit)));
                }
            }
            (page.take)(&mut after, new);
            at += len;
        }
        Ok(after)
    }
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
