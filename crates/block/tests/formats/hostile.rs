// SPDX-License-Identifier: Apache-2.0
//! Hostile images: each is refused, or read; the process goes on, and takes no memory out of
//! proportion. Short runs of what `fuzz/` does for long.
use proptest::prelude::*;

use super::common::{Dir, KIB, MIB, disk, run};

/// What is tried with an image, and the image.
type Case = (fn(&[u8]), Vec<u8>);

/// Small images of each format, made once.
fn images() -> &'static [Case] {
    static IMAGES: std::sync::OnceLock<Vec<Case>> = std::sync::OnceLock::new();
    IMAGES.get_or_init(|| {
        let dir = Dir::new();
        let raw = dir.raw("raw", &disk(200 * KIB, 1));
        let mut images: Vec<Case> = Vec::new();
        for (fuzz, format, options) in [
            (block::fuzz::vmdk as fn(&[u8]), "vmdk", "subformat=monolithicSparse"),
            (block::fuzz::vmdk, "vmdk", "subformat=streamOptimized"),
            (block::fuzz::vmdk, "vmdk", "subformat=monolithicFlat"),
            (block::fuzz::vpc, "vpc", "subformat=dynamic"),
            (block::fuzz::vpc, "vpc", "subformat=fixed"),
            (block::fuzz::vdi, "vdi", ""),
            (block::fuzz::vhdx, "vhdx", "subformat=dynamic,block_size=1M"),
            (block::fuzz::qcow, "qcow", ""),
        ] {
            images.push((fuzz, std::fs::read(dir.convert(&raw, format, options)).unwrap()));
        }
        let path = raw.to_str().unwrap();
        for (fuzz, program, args) in [
            (block::fuzz::xz as fn(&[u8]), "xz", &["-0", "--block-size=64KiB"][..]),
            (block::fuzz::zst, "zstd", &["-1"]),
            (block::fuzz::zst, "zstd", &["-1", "--no-content-size"]),
            (block::fuzz::gz, "gzip", &["-1"]),
        ] {
            images.push((fuzz, run(program, &[args, &["-q", "-c", path]].concat())));
        }
        images
    })
}

/// Values that headers are wrong with.
const VALUES: [u64; 4] = [0, 0x7fff_ffff, 0xffff_ffff, u64::MAX - 511];

/// Makes the checksums of a VHD and a VHDX right again, so that what is wrong elsewhere is looked at.
fn make_checksums_right(image: &mut [u8]) {
    if image.starts_with(b"vhdxfile") {
        for (at, len) in [
            (64 << 10, 4 << 10),
            (128 << 10, 4 << 10),
            (192 << 10, 64 << 10),
            (256 << 10, 64 << 10),
        ] {
            let Some(part) = image.get_mut(at..at + len) else { return };
            part[4..8].fill(0);
            let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, part);
            part[4..8].copy_from_slice(&u32::try_from(sum).unwrap().to_le_bytes());
        }
    }
    let tail = image.len().saturating_sub(512);
    for (start, magic, len, at) in
        [(0, b"conectix", 512, 64), (512, b"cxsparse", 1024, 36), (tail, b"conectix", 512, 64)]
    {
        let Some(part) = image.get_mut(start..start + len) else { continue };
        if part.starts_with(magic) {
            part[at..at + 4].fill(0);
            let sum = !part.iter().map(|byte| u32::from(*byte)).sum::<u32>();
            part[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

#[test]
fn every_field_of_every_header_may_have_any_value() {
    for (fuzz, image) in images() {
        let vhd = image.starts_with(b"conectix") || image.ends_with(&[0; 400]);
        let big_endian = vhd || image.starts_with(b"QFI\xfb");
        // The beginnings of all structures.
        let parts: &[usize] = if image.starts_with(b"vhdxfile") {
            &[64 << 10, 128 << 10, 192 << 10, 256 << 10, 2 << 20, (2 << 20) + (64 << 10), 3 << 20]
        } else {
            &[0, 512]
        };
        let tail = image.len().saturating_sub(512);
        let mut changed = image.clone();
        for start in parts.iter().copied().chain([tail]) {
            for at in (start..start + 100).step_by(4) {
                for value in VALUES {
                    let wide = value > u64::from(u32::MAX);
                    let (le, be) = (value.to_le_bytes(), value.to_be_bytes());
                    let bytes = match (wide, big_endian) {
                        (true, false) => &le[..],
                        (true, true) => &be[..],
                        (false, false) => &le[..4],
                        (false, true) => &be[4..],
                    };
                    let Some(field) = changed.get_mut(at..at + bytes.len()) else { continue };
                    field.copy_from_slice(bytes);
                    make_checksums_right(&mut changed);
                    fuzz(&changed);
                    changed[at..at + bytes.len()].copy_from_slice(&image[at..at + bytes.len()]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_anywhere_are_refused_or_read(
        which in 0..12_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        near in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (fuzz, image) = &images()[which];
        let mut image = image.clone();
        for (at, byte) in changes {
            let len = if near { image.len().min(1024) } else { image.len() };
            let at = at.index(len);
            image[at] = byte;
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        make_checksums_right(&mut image);
        fuzz(&image);
    }

    #[test]
    fn any_descriptor_is_refused_or_read(lines in prop::collection::vec(
        "(RW|RDONLY|createType=\"vmfs\"|parentCID) ?[0-9]{0,20} ?(FLAT|SPARSE|ZERO|VMFS)? ?(\"[a-z./]{0,4}\"?)? ?[0-9]{0,19}",
        0..8,
    )) {
        let text = format!("# Disk DescriptorFile\ncreateType=\"vmfs\"\n{}\0{}", lines.join("\n"), "x".repeat(700));
        block::fuzz::vmdk(text.as_bytes());
    }
}

#[test]
fn an_image_that_claims_much_takes_no_memory_for_it() {
    // A VDI of 4 PiB with a map of 16 GiB, in a file of 1 TiB that takes no space.
    let dir = Dir::new();
    let mut header = vec![0; 512];
    for (at, value) in [
        (64, 0xbeda_107f_u32),
        (68, 0x0001_0001),
        (72, 0x190),
        (76, 1),
        (340, 512),
        (344, 1 << 20),
        (360, 512),
        (376, 1 << 20),
        (384, u32::MAX),
    ] {
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    header[368..376].copy_from_slice(&((u64::from(u32::MAX)) << 20).to_le_bytes());
    let path = dir.raw("large.vdi", &header);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let before = resident();
    super::common::on_engine(async {
        let store = super::common::open_image("vdi", &path).await;
        for i in 0..2000 {
            super::common::read(&store, i * (1 << 41), 4096).await.unwrap();
        }
    });
    let more = resident().saturating_sub(before);
    assert!(more < 64 * MIB, "{more} bytes more");
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
