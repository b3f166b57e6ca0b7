// SPDX-License-Identifier: Apache-2.0
//! What is said of images that are damaged, or of a kind that cannot be served: bytes of a good one
//! are changed, and the error names the image, the layer, the field with its value, and one remedy.
use std::path::{Path, PathBuf};

use super::common::{Dir, KIB, disk, on_engine, qemu_img, read, run, try_open};

/// What helps, as an error ends.
const COPY: &str = "; nothing repairs that: use another copy of the image";
const COPY_OF_QCOW: &str = ": nothing repairs that: use another copy of the image";
const VMDK: &str =
    "; `vmware-vdiskmanager -R` may repair it; if not, use another copy of the image";
const XZ: &str = "; fetch it again; `xz -t` tells whether it is whole";
const ZSTD: &str = "; fetch it again; `zstd -t` tells whether it is whole";
const GZIP: &str = "; fetch it again; `gzip -t` tells whether it is whole";
const SALVAGE: &str = "; if there is no other copy, run `qemu-img convert --salvage -O qcow2` and use \
                       the new image, in which what is missing is zero";
const FILE: &str = "; `file` tells what it is";
const CLONE: &str = "; `VBoxManage clonemedium` makes one";
const CONVERT_VMDK: &str = "; `qemu-img convert -O qcow2` makes one, where it knows this";

/// The image, by the name of its format; bytes that are changed, at an offset from the beginning
/// or, where that is less than 0, from the end; words of the error; and what helps.
type Row = (&'static str, &'static [(isize, &'static [u8])], &'static str, &'static str);

const ROWS: &[Row] = &[
    ("vdi", &[(64, &[0])], "it is not a VDI image", FILE),
    ("vdi", &[(68, &[9, 0, 0, 0])], "VDI: version is 0x9: only 1.1", CLONE),
    ("vdi", &[(76, &[4])], "VDI: image type is 4: only dynamic", CLONE),
    ("vdi", &[(340, &[1])], "VDI: offset of the map is 513: it has to be", COPY),
    ("vdi", &[(343, &[0xf0])], "VDI: offset of the map is 4026532352: the map is past", COPY),
    ("vdi", &[(360, &[1])], "VDI: sector size is 513: it has to be 512", COPY),
    ("vdi", &[(376, &[3])], "VDI: block size is 1048579: it has to be", COPY),
    ("vdi", &[(380, &[8])], "VDI: extra bytes of a block are 8: only", CLONE),
    ("vdi", &[(384, &[0])], "VDI: disk size is 204800: it is more", COPY),
    ("vdi", &[(512, &[0, 0, 0, 0x70])], "in a VDI image: 204800 bytes at ", COPY),
    ("vpc", &[(-448, &[0, 0, 0, 0])], "VHD: checksum of the footer is 0: it is wrong", COPY),
    ("vpc", &[(-512, b"no"), (0, b"no")], "it is not a VHD image: there is no footer", COPY),
    ("vpc", &[(512, b"no")], "VHD: offset of the second header is 512: there is none", COPY),
    ("vpc", &[(548, &[0, 0, 0, 0])], "VHD: checksum of the second header is 0", COPY),
    ("vhdx", &[(0, b"no")], "it is not a VHDX image", FILE),
    ("vhdx", &[(65536, b"no"), (131_072, b"no")], "VHDX: neither of its two headers", COPY),
    ("vhdx", &[(196_608, b"no"), (262_144, b"no")], "VHDX: neither of its two region", COPY),
    ("vmdk", &[(0, b"no")], "it is not a VMDK image", FILE),
    ("vmdk", &[(4, &[9])], "VMDK: version is 9: 1 to 3", CONVERT_VMDK),
    ("vmdk", &[(12, &[0; 8])], "VMDK: capacity in sectors is 0: it is not a size", VMDK),
    ("vmdk", &[(20, &[0; 8])], "VMDK: grain size in sectors is 0: 1 to", VMDK),
    ("vmdk", &[(44, &[0; 4])], "VMDK: entries of a grain table is 0: 1 to 512", VMDK),
    (
        "vmdk",
        &[(56, &[0xff; 3]), (48, &[0xff; 3])],
        "VMDK: sector of the grain directory is ",
        VMDK,
    ),
    ("vmdk", &[(73, b"\n\n")], "VMDK: its line ends are [10, 10, 13, 10]", VMDK),
    ("vmdk", &[(77, &[7])], "VMDK: compression is 7: 0 and 1", CONVERT_VMDK),
    ("xz", &[(0, &[0])], "it is not an .xz file", FILE),
    ("xz", &[(-12, &[0; 4])], "xz: the stream footer at offset ", XZ),
    ("xz", &[(100, &[0; 64])], "in an .xz file: ", XZ),
    ("zst", &[(0, &[0])], "it is not a zstd file", FILE),
    ("zst", &[(-4, &[0; 4])], "in a zstd file: the checksum of a zstd frame is wrong", ZSTD),
    ("gz", &[(0, &[0])], "it is not a gzip file", FILE),
    ("gz", &[(-8, &[0; 4])], "in a gzip file: the checksum or length of a gzip member", GZIP),
    ("qcow", &[(32, &[40])], "its cluster_bits are 40, its l2_bits 9", COPY_OF_QCOW),
    ("qcow", &[(24, &[0xff; 2])], "its size of 18446462598733", COPY_OF_QCOW),
    ("qcow", &[(15, &[48]), (18, &[8])], "its backing file's name has 2048 bytes", COPY_OF_QCOW),
    ("qcow", &[(48, &[0xff])], "the L1 entry 0 is 0xff", SALVAGE),
];

/// A good image of each format, with all of the disk in it.
fn images(dir: &Dir) -> Vec<(&'static str, PathBuf)> {
    let raw = dir.raw("raw", &disk(200 * KIB, 1));
    let made = [("vdi", ""), ("vpc", ""), ("vhdx", "block_size=1M"), ("vmdk", ""), ("qcow", "")];
    let mut images: Vec<_> =
        made.map(|(format, how)| (format, dir.convert(&raw, format, how))).into();
    let path = raw.to_str().unwrap();
    for (format, program, args) in [
        ("xz", "xz", &["-0", "-q", "-c", path][..]),
        ("zst", "zstd", &["-1", "-q", "-c", path]),
        ("gz", "gzip", &["-1", "-q", "-c", path]),
    ] {
        images.push((format, dir.raw(&format!("image.{format}"), &run(program, args))));
    }
    images
}

/// The error of opening an image, or of reading all of it.
fn error(format: &str, path: &Path) -> Option<String> {
    on_engine(async {
        let store = try_open(format, path).await?;
        read(&store, 0, usize::try_from(200 * KIB).unwrap()).await
    })
    .err()
    .map(|error| error.to_string())
}

#[test]
fn each_damage_of_each_format_is_named_with_one_remedy() {
    let dir = Dir::new();
    let images = images(&dir);
    for (format, path) in &images {
        assert_eq!(error(format, path), None, "{format}");
    }
    for (number, (format, changes, what, remedy)) in ROWS.iter().enumerate() {
        let name = format!("row {number} ({format}, {what})");
        let (_, path) = images.iter().find(|(name, _)| name == format).unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        for (at, change) in *changes {
            let end = isize::try_from(bytes.len()).unwrap();
            let at = usize::try_from(if *at < 0 { end + at } else { *at }).unwrap();
            bytes[at..at + change.len()].copy_from_slice(change);
        }
        let damaged = dir.raw("damaged", &bytes);
        let error = error(format, &damaged).expect(&name);
        assert!(error.starts_with(damaged.to_str().unwrap()), "{name}: {error}");
        assert!(error.contains(what) && error.ends_with(remedy), "{name}: {error}");
    }
}

#[test]
fn what_is_said_to_help_with_a_damaged_qcow_image_of_version_1_helps() {
    let dir = Dir::new();
    let raw = dir.raw("raw", &disk(200 * KIB, 1));
    let path = dir.convert(&raw, "qcow", "");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[48] = 0xff;
    std::fs::write(&path, bytes).unwrap();
    assert!(error("qcow", &path).unwrap().ends_with(SALVAGE));
    let new = dir.path("new");
    let names = [path.to_str().unwrap(), new.to_str().unwrap()];
    qemu_img(&[&["convert", "--salvage", "-O", "qcow2"], &names[..]].concat());
    assert_eq!(error("qcow", &new), None);
}
