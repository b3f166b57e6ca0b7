// SPDX-License-Identifier: Apache-2.0
//! Signatures of what is not recognized here: where one of them is, `blkid` is asked.

use crate::fields::{be16, le16};
use crate::medium::Medium;
use crate::partition_table::{foreign, gpt, mbr};

/// Signatures at offsets from the beginning.
const AT_BEGIN: &[(u64, &[u8])] = &[
    (0x3, b"EXFAT   "),
    (0x3, b"-FVE-FS-"),
    (0x3, b"ReFS\0"),
    (0x0, b"\xfe\xed\xba\xbe"),
    (0x0, b"sqsh"),
    (0x0, b"qshs"),
    (0x0, b"shsq"),
    (0x0, b"UBI#"),
    (0x0, b"SnAp"),
    (0x0, b"verity\0\0"),
    (0x0, b"integrt\0"),
    (0x0, b"dmvdo001"),
    (0x0, b"SKUL\xba\xbe"),
    (0x0, b"-rom1fs-"),
    (0x0, b"\x45\x3d\xcd\x28"),
    (0x400, b"\xe2\xe1\xf5\xe0"),
    (0x1000, b"!Stra0tis\x86\xff\x02^\x41rh"),
    (0x2000, b"!Stra0tis\x86\xff\x02^\x41rh"),
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    (0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    (0x8000, b"JFS1"),
    (0x8001, b"CD001"),
    (0x8001, b"CDROM"),
    (0x8001, b"BEA01"),
    (0x8001, b"NSR02"),
    (0x8001, b"NSR03"),
    (0x8009, b"CDROM"),
    (0x2034, b"ReIsErFs"),
    (0x2034, b"ReIsEr2Fs"),
    (0x10034, b"ReIsErFs"),
    (0x10034, b"ReIsEr2Fs"),
    (0x10034, b"ReIsEr3Fs"),
    (0x10000, b"ReIsEr4"),
    (0x10000, b"\x01\x16\x19\x70"),
    (0x400, b"OCFSV2"),
    (0x800, b"OCFSV2"),
    (0x1000, b"OCFSV2"),
    (0x2000, b"OCFSV2"),
    (0x100000, b"\x0d\xd0\x01\xc0"),
    (0x200000, b"\x5e\xf1\xab\x2f"),
];

/// Signatures at distances from the end, of RAIDs of firmware and others.
const AT_END: &[(u64, &[u8])] = &[
    (0x200, b"\x11\xde\x11\xde"),
    (0x200, b"\xde\x11\xde\x11"),
    (0x400, b"Intel Raid ISM Cfg Sig. "),
    (0x200, b"$XIDE$"),
    (0x400, b"NVIDIA"),
    (0x200, b"JM"),
    (0x200, b"\x90\x07\x65\xc4"),
    (0x1000, b"\x83\x74\x02\x6b"),
    (0x1000, b"\x83\x74\x02\x67"),
];

/// Offsets that a ZFS uberblock may be at: each KiB of the second half of the first label.
const ZFS_UBERBLOCKS: std::ops::Range<u64> = 128..256;

/// Hibernation images write these over the signature of the swap area they are in.
const SUSPENDED: &[&[u8]] = &[b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"TuxOnIce", b"LINHIB0001"];

/// Whether there could be a partition table.
pub(super) fn partition_table(medium: &Medium<'_>) -> bool {
    medium.has(510, &mbr::SIGNATURE)
        || gpt::PLACES.iter().any(|offset| medium.has(*offset, gpt::SIGNATURE))
        || foreign::TABLES.iter().any(|(offset, magic)| medium.has(*offset, magic))
}

/// Whether there is something that only `blkid` knows.
pub(super) fn others(medium: &Medium<'_>) -> bool {
    let size = medium.size();
    AT_BEGIN.iter().any(|(offset, magic)| medium.has(*offset, magic))
        || AT_END.iter().any(|(back, magic)| size > *back && medium.has(size - back, magic))
        || super::linux::PAGES.iter().any(|page| SUSPENDED.iter().any(|m| medium.has(page - 10, m)))
        || ZFS_UBERBLOCKS.clone().any(|kib| {
            medium.has(kib << 10, b"\x0c\xb1\xba\0\0\0\0\0")
                || medium.has(kib << 10, b"\0\0\0\0\0\xba\xb1\x0c")
        })
        || bare_fat(medium)
}

/// A boot sector that could be that of a FAT filesystem without the usual text in it.
fn bare_fat(medium: &Medium<'_>) -> bool {
    let Some(sector) = medium.array::<512>(0) else { return false };
    let (sector_size, fats, media) = (le16(&sector, 11), sector[16], sector[21]);
    be16(&sector, 510) == 0x55aa
        && matches!(sector[0], 0xe9 | 0xeb)
        && sector[13].is_power_of_two()
        && matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && fats != 0
        && (media == 0xf0 || media >= 0xf8)
        && super::microsoft::fat_text(&sector).is_none()
        && &sector[3..11] != b"NTFS    "
}
