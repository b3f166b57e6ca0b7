// SPDX-License-Identifier: Apache-2.0
//! Superblocks that programs make, and hostile ones.

use super::*;
use crate::blkid;
use proptest::prelude::*;
use std::ffi::OsStr;
use std::process::Command;

/// Where programs are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What `blkid` says.
fn blkid(path: &std::path::Path) -> Contents {
    let mut command = Command::new("blkid");
    let out = command.args(blkid::ARGUMENTS).arg(path).env("PATH", PATH).output();
    let out = out.unwrap_or_else(|e| panic!("blkid: {e}: please install it (util-linux)"));
    blkid::parse(&out.stdout).unwrap()
}

/// Makes a filesystem with a program, and asks both for what is there.
fn compare(mib: u64, make: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    let out = Command::new(make[0])
        .args(&make[1..])
        .arg(&path)
        .env("PATH", PATH)
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}: please install it", make[0]));
    assert!(out.status.success(), "{make:?}: {}", String::from_utf8_lossy(&out.stderr));
    let file = File::open(&path).unwrap();
    let quick = read(&file).unwrap();
    let blkid = blkid(&path);
    let Found::Known(quick) = quick else { panic!("{make:?}: {quick:?} and not {blkid:?}") };
    let sorted = |c: &Contents| {
        let mut tags = c.tags().to_vec();
        tags.sort();
        tags
    };
    assert_eq!(sorted(&quick), sorted(&blkid), "{make:?}");
}

#[test]
fn superblocks_are_read_as_blkid_reads_them() {
    for (mib, make) in [
        (16, &["mkfs.ext2", "-q", "-L", "a label", "-F"][..]),
        (16, &["mkfs.ext3", "-q", "-L", "0123456789abcdef", "-F"]),
        (16, &["mkfs.ext4", "-q", "-b", "4096", "-F"]),
        (16, &["mkfs.ext4", "-q", "-O", "^has_journal", "-F"]),
        (16, &["mkfs.ext4", "-q", "-O", "^metadata_csum", "-F"]),
        (16, &["mkfs.ext2", "-q", "-O", "meta_bg,^resize_inode", "-F"]),
        (320, &["mkfs.xfs", "-q", "-L", "twelve bytes"]),
        (320, &["mkfs.xfs", "-q", "-m", "crc=0,finobt=0", "-b", "size=1024"]),
        (128, &["mkfs.btrfs", "-q", "-L", "a label"]),
        (16, &["mkfs.vfat", "-F", "12", "-n", "TWELVE"]),
        (64, &["mkfs.vfat", "-F", "16", "-n", "SIX TEEN"]),
        (64, &["mkfs.vfat", "-F", "16"]),
        (64, &["mkfs.vfat", "-F", "32", "-n", "THIRTYTWO"]),
        (64, &["mkfs.vfat", "-F", "32", "-i", "00000001"]),
        (64, &["mkfs.vfat", "-S", "4096"]),
        (64, &["mkfs.ntfs", "-q", "-F", "-L", "a läbel"]),
        (64, &["mkfs.ntfs", "-q", "-F", "-c", "65536"]),
        (64, &["mkfs.f2fs", "-q", "-l", "a läbel"]),
        (16, &["mkswap", "-q", "-L", "a label"]),
        (16, &["mkswap", "-q", "-p", "65536"]),
    ] {
        compare(mib, make);
    }
}

#[test]
fn a_blank_device_is_blank_and_anything_else_is_for_blkid() {
    let mut bytes = vec![0; 1 << 20];
    assert_eq!(of_bytes(&bytes), Found::Blank);
    bytes[700] = 1;
    assert_eq!(of_bytes(&bytes), Found::Unsure);
    assert_eq!(of_bytes(&[]), Found::Blank);
}

#[test]
fn two_signatures_are_for_blkid() {
    let mut bytes = vec![0; 1 << 20];
    bytes[..4].copy_from_slice(b"hsqs");
    bytes[28] = 4;
    assert!(matches!(of_bytes(&bytes), Found::Known(_)));
    bytes[0x8001..0x8006].copy_from_slice(b"CD001");
    assert_eq!(of_bytes(&bytes), Found::Unsure);
}

#[test]
fn an_lvm_label_is_believed_only_with_its_checksum() {
    let mut bytes = vec![0; 1 << 20];
    let label = &mut bytes[512..1024];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(b"abcdefghijklmnopqrstuvwxyzABCDEF");
    assert_eq!(of_bytes(&bytes), Found::Unsure);
    let crc = crate::checksum::crc32(0xf597_a6cf, &bytes[532..1024]);
    bytes[528..532].copy_from_slice(&crc.to_le_bytes());
    let Found::Known(found) = of_bytes(&bytes) else { panic!("not found") };
    assert_eq!(found.uuid(), Some(OsStr::new("abcdef-ghij-klmn-opqr-stuv-wxyz-ABCDEF")));
    assert_eq!((found.fstype(), found.usage()), ("LVM2_member", "raid"));
}

/// Signatures, so that hostile contents get past the first comparison.
fn seeds() -> Vec<(usize, &'static [u8])> {
    vec![
        (0, b"XFSB"),
        (0, b"hsqs"),
        (0, b"LUKS\xba\xbe\0\x02"),
        (0, b"LUKS\xba\xbe\0\x01"),
        (3, b"NTFS    \0\x02\x08"),
        (0x52, b"FAT32   "),
        (0x36, b"FAT16   "),
        (512, b"LABELONE\x01"),
        (0x400, b"\x10\x20\xf5\xf2"),
        (0x438, b"\x53\xef"),
        (0x1000, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
        (0xff6, b"SWAPSPACE2"),
        (0x10040, b"_BHRfS_M"),
    ]
}

proptest! {
    #[test]
    fn no_contents_make_it_panic(
        seed in prop::sample::select(seeds()),
        noise in prop::collection::vec((0usize..0x11000, any::<[u8; 4]>()), 0..60),
        head in prop::collection::vec(any::<u8>(), 0..600),
        size in prop::sample::select(vec![0usize, 100, 512, 4096, 0x10048, 0x11000, 0x60000]),
    ) {
        let mut bytes = vec![0u8; size.max(0x11000)];
        bytes[..head.len()].copy_from_slice(&head);
        for (at, value) in noise {
            let at = at.min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&value);
        }
        bytes[seed.0..seed.0 + seed.1.len()].copy_from_slice(seed.1);
        bytes.truncate(size);
        crate::fuzz::superblocks(&bytes);
    }

    #[test]
    fn a_boot_sector_with_any_geometry_is_survived(
        fields in any::<[u8; 84]>(), fat in any::<bool>(),
    ) {
        let mut bytes = vec![0u8; 1 << 20];
        bytes[..84].copy_from_slice(&fields);
        bytes[510..512].copy_from_slice(b"\x55\xaa");
        match fat {
            true => bytes[0x52..0x5a].copy_from_slice(b"FAT32   "),
            false => bytes[3..11].copy_from_slice(b"NTFS    "),
        }
        bytes[11..13].copy_from_slice(&512u16.to_le_bytes());
        bytes[13] = 8;
        bytes[21] = 0xf8;
        let _ = of_bytes(&bytes);
    }
}
