// SPDX-License-Identifier: Apache-2.0
//! The pages of vital product data of block devices: those that all devices have, and those of
//! SBC-4.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::answer::Answer;
use crate::vpd::{Device, Page, device_identification, extended_inquiry, unit_serial_number};

/// The pages, by code.
pub(super) const PAGES: &[Page] = &[
    (0x80, unit_serial_number),
    (0x83, device_identification),
    (0x86, extended_inquiry),
    (0xb0, block_limits),
    (0xb1, block_device_characteristics),
    (0xb2, logical_block_provisioning),
];

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct BlockLimitsPage {
    wsnz: u8,
    max_compare_and_write: u8,
    transfer_granularity: U16,
    max_transfer: U32,
    optimal_transfer: U32,
    max_prefetch: U32,
    max_unmap_blocks: U32,
    max_unmap_descriptors: U32,
    unmap_granularity: U32,
    /// UGAVALID in the most significant bit.
    unmap_alignment: U32,
    max_write_same: U64,
    reserved: [u8; 20],
}

/// Block limits (B0h).
fn block_limits(device: &Device) -> Answer {
    let limits = &device.limits;
    // Without UNMAP its limits are zero (SBC-4).
    let of_unmap = |n: u32| U32::new(if device.provisioning.unmap { n } else { 0 });
    let mut a = Answer::new();
    a.layout(&BlockLimitsPage {
        wsnz: u8::from(limits.write_same_non_zero),
        max_compare_and_write: limits.max_compare_and_write,
        transfer_granularity: limits.transfer_granularity.into(),
        max_transfer: limits.max_transfer.into(),
        optimal_transfer: limits.optimal_transfer.into(),
        max_prefetch: limits.max_prefetch.into(),
        max_unmap_blocks: of_unmap(limits.max_unmap_blocks),
        max_unmap_descriptors: of_unmap(limits.max_unmap_descriptors),
        unmap_granularity: limits.unmap_granularity.into(),
        unmap_alignment: limits.unmap_alignment.map_or(0, |lba| 1 << 31 | lba).into(),
        max_write_same: limits.max_write_same.into(),
        reserved: [0; 20],
    });
    a
}

/// Block device characteristics (B1h).
fn block_device_characteristics(device: &Device) -> Answer {
    let mut a = Answer::new();
    a.be16(device.rotation_rate);
    a.zeroes(60 - 2);
    a
}

/// Logical block provisioning (B2h).
fn logical_block_provisioning(device: &Device) -> Answer {
    let p = &device.provisioning;
    let mut a = Answer::new();
    a.u8(0); // no thresholds
    a.u8(u8::from(p.unmap) << 7
        | u8::from(p.write_same_unmap) << 6
        | u8::from(p.write_same_unmap) << 5
        | u8::from(p.managed() && p.reads_zeroes) << 2);
    // PROVISIONING TYPE: thin, or resource provisioned where space can be freed but is there.
    a.u8(match (p.thin, p.managed()) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    });
    a.u8(0);
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Provisioning;
    use crate::fixtures::device;
    use crate::sense::Sense;
    use crate::vpd;

    fn page(code: u8, device: &Device) -> Result<Answer, Sense> {
        vpd::page(PAGES, code, device)
    }

    #[test]
    fn page_00_lists_the_pages_that_are_there_and_no_others() {
        let list = page(0x00, &device()).unwrap();
        assert_eq!(list[..], [0, 0, 0, 7, 0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
        for code in 0..=255 {
            match page(code, &device()) {
                Ok(a) => {
                    assert!(list[4..].contains(&code));
                    assert_eq!(a[1], code);
                    assert_eq!(usize::from(u16::from_be_bytes([a[2], a[3]])), a.len() - 4);
                }
                Err(sense) => {
                    assert!(!list[4..].contains(&code));
                    assert_eq!(sense, Sense::cdb_field(2, Some(7)));
                }
            }
        }
    }

    #[test]
    fn the_naa_designator_is_made_from_the_serial_as_lio_does() {
        let naa = vpd::naa("3a0b5b32-6bd4-4a58-8a14-0d9ee1f0a1c7");
        let hex: String = naa.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "60014053a0b5b326bd44a588a140d9ee");
        assert_eq!(vpd::naa("")[..4], [0x60, 0x01, 0x40, 0x50]);
    }

    #[test]
    fn device_identification_names_the_unit_and_its_port() {
        let a = page(0x83, &device()).unwrap();
        let mut rest = &a[4..];
        let mut found = vec![];
        while let [code_set, kind, 0, len, tail @ ..] = rest {
            let (id, tail) = tail.split_at(usize::from(*len));
            found.push((*code_set, *kind, id.to_vec()));
            rest = tail;
        }
        assert!(rest.is_empty());
        let t10 = b"LIO-ORG disk0:3a0b5b32-6bd4-4a58-8a14-0d9ee1f0a1c7".to_vec();
        assert_eq!(found[0], (1, 0x03, vpd::naa(&device().identity.serial).to_vec()));
        assert_eq!(found[1], (2, 0x01, t10));
        assert_eq!(found[2..], [(1, 0x14, vec![0, 0, 0, 1]), (1, 0x15, vec![0, 0, 0, 16])]);
    }

    #[test]
    fn lengths_stay_true_with_a_serial_that_is_far_too_long() {
        let mut device = device();
        device.identity.serial = "ü".repeat(100_000);
        device.identity.product = "p".repeat(100_000);
        assert_eq!(page(0x80, &device).unwrap().len(), 4 + vpd::MAX_SERIAL);
        let a = page(0x83, &device).unwrap();
        assert_eq!(usize::from(a[4 + 20 + 3]), 8 + 16 + 1 + vpd::MAX_SERIAL);
    }

    #[test]
    fn block_limits_are_where_the_standard_puts_them() {
        let a = page(0xb0, &device()).unwrap();
        assert_eq!(a.len(), 64);
        assert_eq!(a[4..8], [0, 1, 0, 8]);
        assert_eq!(a[8..16], [0, 0, 0x20, 0, 0, 0, 8, 0]);
        assert_eq!(a[20..36], [0, 0x40, 0, 0, 0, 0, 0, 64, 0, 0, 0, 8, 0x80, 0, 0, 0]);
        assert_eq!(a[36..44], [0, 0, 0, 0, 0, 0x40, 0, 0]);
    }

    #[test]
    fn without_unmap_no_page_offers_it() {
        let mut device = device();
        device.provisioning = Provisioning::default();
        assert_eq!(page(0xb0, &device).unwrap()[20..28], [0; 8]);
        assert_eq!(page(0xb2, &device).unwrap()[4..], [0; 4]);
    }

    #[test]
    fn provisioning_and_read_capacity_agree() {
        for n in 0..16 {
            let p = Provisioning {
                thin: n & 1 != 0,
                unmap: n & 2 != 0,
                write_same_unmap: n & 4 != 0,
                reads_zeroes: n & 8 != 0,
            };
            let page = page(0xb2, &Device { provisioning: p, ..device() }).unwrap();
            let capacity = crate::capacity::read_capacity16(&crate::fixtures::capacity(), &p);
            assert_eq!(capacity[14] & 0x40 != 0, page[5] & 0x04 != 0, "LBPRZ");
            assert_eq!(capacity[14] & 0x80 != 0, page[6] & 7 != 0, "LBPME");
        }
    }

    #[test]
    fn the_other_pages_tell_cache_and_rotation() {
        assert_eq!(page(0x86, &device()).unwrap()[4..8], [0, 7, 1, 0]);
        assert_eq!(page(0x86, &device()).unwrap().len(), 64);
        assert_eq!(page(0xb1, &device()).unwrap()[4..8], [0, 1, 0, 0]);
        assert_eq!(page(0xb2, &device()).unwrap()[4..], [0, 0xe4, 2, 0]);
        let serial = &page(0x80, &device()).unwrap()[4..];
        assert_eq!(serial, b"3a0b5b32-6bd4-4a58-8a14-0d9ee1f0a1c7");
    }
}
