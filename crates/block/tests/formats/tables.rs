// SPDX-License-Identifier: Apache-2.0
//! vmdk, vhdx, vpc and vdi.
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use block::{ErrorKind, Locking, OpenOptions, Store, open};

use super::common::{
    Dir, KIB, MIB, compare, disk, mapped, on_engine, open_image, qemu_img, read, refusal, try_open,
};

/// Each format with each of its options.
const IMAGES: [(&str, &str); 20] = [
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "subformat=twoGbMaxExtentFlat"),
    ("vmdk", "subformat=streamOptimized"),
    ("vmdk", "subformat=monolithicSparse,zeroed_grain=on,compat6=on"),
    ("vmdk", "adapter_type=lsilogic,hwversion=10"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=fixed"),
    ("vhdx", "subformat=dynamic,block_size=1M,log_size=2M"),
    ("vhdx", "subformat=dynamic,block_size=256M"),
    ("vhdx", "block_state_zero=off"),
    ("vpc", "subformat=dynamic"),
    ("vpc", "subformat=fixed"),
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vdi", ""),
    ("vdi", "static=on"),
    ("vdi", "static=off"),
    ("vmdk", ""),
];

/// What QEMU reads in an image.
fn content(dir: &Dir, format: &str, image: &Path) -> Vec<u8> {
    let raw = dir.path("content");
    let args =
        ["convert", "-f", format, "-O", "raw", image.to_str().unwrap(), raw.to_str().unwrap()];
    qemu_img(&args);
    fs::read(raw).unwrap()
}

/// The ranges of an image that take up space, as QEMU says.
fn qemu_map(format: &str, image: &Path) -> Vec<(u64, u64)> {
    let map = qemu_img(&["map", "-f", format, "--output=json", image.to_str().unwrap()]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for entry in map.as_array().unwrap() {
        let (start, len) = (entry["start"].as_u64().unwrap(), entry["length"].as_u64().unwrap());
        // What is a hole of a flat file is still allocated in the format.
        if entry["data"] == true || entry.get("offset").is_some() {
            match ranges.last_mut() {
                Some((_, end)) if *end == start => *end = start + len,
                _ => ranges.push((start, start + len)),
            }
        }
    }
    ranges
}

#[test]
fn images_of_all_options_are_read_and_mapped_as_qemu_does() {
    for (i, (format, options)) in IMAGES.iter().enumerate() {
        let dir = Dir::new();
        let what = format!("{format} {options}");
        let raw = dir.raw("raw", &disk(9 * MIB + 3 * KIB + 512, i as u64));
        let image = dir.convert(&raw, format, options);
        let content = content(&dir, format, &image);
        on_engine(async {
            let store = open_image(format, &image).await;
            compare(&store, &content, i as u64, &what).await;
            assert_eq!(mapped(&store).await, qemu_map(format, &image), "{what}");
            let optimal = store.facts().optimal_io;
            assert!(optimal.is_power_of_two() && optimal >= 512, "{what}: {optimal}");
        });
    }
}

#[test]
fn large_images_without_data_are_opened_and_read_at_once() {
    for (format, options, size) in [
        ("vmdk", "", "16T"),
        ("vmdk", "subformat=twoGbMaxExtentSparse", "100G"),
        ("vhdx", "", "60T"),
        ("vpc", "force_size=on", "2040G"),
        ("vdi", "", "100T"),
    ] {
        let dir = Dir::new();
        let image = dir.path("image");
        let mut args = vec!["create", "-q", "-f", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend([image.to_str().unwrap(), size]);
        qemu_img(&args);
        on_engine(async {
            let store = open_image(format, &image).await;
            let size = store.facts().size;
            for at in [0, size / 3, size - 4096] {
                assert!(read(&store, at, 4096).await.unwrap().iter().all(|byte| *byte == 0));
            }
            let past = store.provisioning(size - 512, 512).await.unwrap();
            assert_eq!(past.1, 512, "{format}");
        });
    }
}

#[test]
fn a_vmdk_that_was_streamed_with_its_directory_at_the_end_is_read() {
    let dir = Dir::new();
    let content = disk(3 * MIB, 7);
    let raw = dir.raw("raw", &content);
    let image = dir.convert(&raw, "vmdk", "subformat=streamOptimized");
    // What VMware's tools write: the header names no directory, a footer does.
    let mut bytes = fs::read(&image).unwrap();
    let len = bytes.len().next_multiple_of(512);
    bytes.resize(len, 0);
    let header = bytes[..512].to_vec();
    let mut marker = vec![0; 512];
    marker[0] = 1;
    marker[12] = 3;
    // QEMU's own footer, if there is one, is left where it is.
    bytes[56..64].fill(0xff);
    bytes.extend(&marker);
    let footer_at = bytes.len();
    bytes.extend(&header);
    if header[56..64] == [0xff; 8] {
        let old = len - 1024;
        let old: Vec<_> = bytes[old..old + 512].to_vec();
        bytes[footer_at..footer_at + 512].copy_from_slice(&old);
    }
    bytes.extend([0; 512]);
    let image = dir.raw("stream.vmdk", &bytes);
    on_engine(async {
        let store = open_image("vmdk", &image).await;
        compare(&store, &content, 1, "footer").await;
    });
    let cut = dir.raw("cut.vmdk", &bytes[..bytes.len() - 512]);
    assert!(refusal("vmdk", &cut).contains("its footer is missing, and it was cut off"));
}

#[test]
fn extents_of_zeroes_and_parts_of_files_make_a_disk() {
    let dir = Dir::new();
    let content = disk(64 * KIB, 3);
    dir.raw("a b.img", &content);
    dir.raw("c.img", &content);
    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
                createType=\"twoGbMaxExtentFlat\"\nRW 3 FLAT \"a b.img\" 5\nRW 2 ZERO\n\
                RDONLY 8 FLAT \"c.img\" 0\n";
    let image = dir.raw("image.vmdk", text.as_bytes());
    let want = [&content[5 * 512..8 * 512], &[0; 1024], &content[..8 * 512]].concat();
    on_engine(async {
        let store = open_image("vmdk", &image).await;
        compare(&store, &want, 1, "extents").await;
        assert_eq!(mapped(&store).await, [(0, 3 * 512), (5 * 512, 13 * 512)]);
    });
}

#[test]
fn an_extent_outside_of_the_allowed_directories_is_not_opened() {
    let (dir, other) = (Dir::new(), Dir::new());
    let outside = other.raw("secret", &[1; 4096]);
    let options =
        OpenOptions { allowed_backing_dirs: Some(vec![dir.path("")]), ..OpenOptions::default() };
    std::os::unix::fs::symlink(&outside, dir.path("link")).unwrap();
    for name in [outside.to_str().unwrap(), "link"] {
        let text = format!(
            "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \
             \"{name}\" 0\n"
        );
        let image = dir.raw("image.vmdk", text.as_bytes());
        let config = format!("vmdk/{}", image.display());
        let e = on_engine(open(&config, &options)).err().unwrap().to_string();
        assert!(e.contains("image.vmdk: open: its extent"), "{e}");
        assert!(e.contains("which is in none of the directories"), "{e}");
    }
    let inside = dir.raw("inside", &[2; 4096]);
    let text = format!(
        "# Disk DescriptorFile\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"{}\" 0\n",
        inside.display()
    );
    let image = dir.raw("image.vmdk", text.as_bytes());
    let config = format!("vmdk/{}", image.display());
    on_engine(async {
        let store = open(&config, &options).await.unwrap();
        assert_eq!(read(&store, 0, 4096).await.unwrap(), [2; 4096]);
    });
}

#[test]
fn the_size_of_a_vhd_is_its_geometry_or_what_its_creator_says() {
    let dir = Dir::new();
    let raw = dir.raw("raw", &vec![0; usize::try_from(5 * MIB).unwrap()]);
    let size = |image: &Path| {
        let info = qemu_img(&["info", "-f", "vpc", "--output=json", image.to_str().unwrap()]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        info["virtual-size"].as_u64().unwrap()
    };
    let mut sizes = std::collections::BTreeSet::new();
    for creator in
        [b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS", b"vpc ", b"vs  ", b"wa\0\0"]
    {
        let image = dir.convert(&raw, "vpc", "subformat=dynamic");
        let file = fs::OpenOptions::new().read(true).write(true).open(&image).unwrap();
        let len = file.metadata().unwrap().len();
        for at in [0, len - 512] {
            let mut footer = [0; 512];
            file.read_exact_at(&mut footer, at).unwrap();
            footer[28..32].copy_from_slice(creator);
            footer[48..56].copy_from_slice(&(5 * MIB).to_be_bytes());
            footer[64..68].fill(0);
            let sum = !footer.iter().map(|byte| u32::from(*byte)).sum::<u32>();
            footer[64..68].copy_from_slice(&sum.to_be_bytes());
            file.write_all_at(&footer, at).unwrap();
        }
        let ours = on_engine(open_image("vpc", &image)).facts().size;
        // Azure's images became known to QEMU later.
        let want = if creator == b"wa\0\0" { 5 * MIB } else { size(&image) };
        assert_eq!(ours, want, "{creator:?}");
        sizes.insert(ours);
    }
    assert_eq!(sizes.len(), 2, "the geometry says another size: {sizes:?}");
}

#[test]
fn images_of_any_format_are_below_qcow2_images() {
    for (format, options) in [
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vhdx", "subformat=dynamic"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vdi", "static=off"),
    ] {
        let dir = Dir::new();
        let mut content = disk(3 * MIB, 4);
        let raw = dir.raw("raw", &content);
        let below = dir.convert(&raw, format, options);
        let top = dir.path("top.qcow2");
        let (from, to) = (below.to_str().unwrap(), top.to_str().unwrap());
        qemu_img(&["create", "-q", "-f", "qcow2", "-F", format, "-b", from, to]);
        on_engine(async {
            let store = open_image("qcow", &top).await;
            let mut bytes = [7; 512];
            store.write(&sgl::Sgl::from_slice(&mut bytes), 70_144, true).await.unwrap();
            content[70_144..70_656].fill(7);
            let all = read(&store, 0, content.len()).await.unwrap();
            assert!(all == content, "{format} {options}");
            store.close().await.unwrap();
        });
        // A file that is missing is named.
        std::fs::remove_file(&below).unwrap();
        let e = refusal("qcow", &top);
        assert!(e.contains("look up") && e.contains(below.to_str().unwrap()), "{e}");
    }
}

#[test]
fn a_guest_cannot_turn_a_fixed_vhd_into_another_image() {
    let dir = Dir::new();
    let raw = dir.raw("raw", &disk(5 * MIB, 1));
    let dynamic = fs::read(dir.convert(&raw, "vpc", "subformat=dynamic")).unwrap();
    let mut content = vec![0; usize::try_from(9 * MIB).unwrap()];
    content[..dynamic.len().min(8 << 20)].copy_from_slice(&dynamic[..dynamic.len().min(8 << 20)]);
    let raw = dir.raw("raw", &content);
    let image = dir.convert(&raw, "vpc", "subformat=fixed,force_size=on");
    on_engine(async {
        let store = open_image("vpc", &image).await;
        compare(&store, &content, 1, "a footer in the first sector").await;
    });
}

#[test]
fn what_is_no_image_or_was_cut_off_is_refused() {
    let dir = Dir::new();
    let raw = dir.raw("raw", &disk(4 * MIB, 1));
    for (format, options) in IMAGES {
        let junk = dir.raw("junk", &[0x5a; 4096]);
        let e = refusal(format, &junk);
        assert!(e.contains("it is not a ") && e.contains("junk: open"), "{format}: {e}");
        let e = block::check(&format!("{format}/{}", junk.display()), &OpenOptions::default())
            .unwrap_err()
            .to_string();
        assert!(e.contains("it is not a "), "{format}: {e}");
        let image = dir.convert(&raw, format, options);
        block::check(&format!("{format}/{}", image.display()), &OpenOptions::default()).unwrap();
        let empty = dir.raw("empty", b"");
        assert!(refusal(format, &empty).contains("empty: open"), "{format}");
        // Refused, or an error where the rest was; but never other data.
        let bytes = fs::read(&image).unwrap();
        let content = content(&dir, format, &image);
        for part in [2, 3, 5] {
            let cut = dir.raw("cut", &bytes[..bytes.len() - bytes.len() / part]);
            on_engine(async {
                let Ok(store) = try_open(format, &cut).await else { return };
                for at in (0..content.len()).step_by(64 << 10) {
                    let len = content.len().min(at + 4096) - at;
                    if let Ok(bytes) = read(&store, at as u64, len).await {
                        assert!(bytes == content[at..at + len], "{format} {options}: {at}");
                    }
                }
            });
        }
    }
}

#[test]
fn an_image_is_write_protected_and_not_locked_against_readers() {
    let dir = Dir::new();
    let raw = dir.raw("raw", &disk(2 * MIB, 1));
    let image = dir.convert(&raw, "vdi", "");
    on_engine(async {
        let store = open_image("vdi", &image).await;
        let again = open_image("vdi", &image).await;
        let mut bytes = [0; 512];
        let data = sgl::Sgl::from_slice(&mut bytes);
        for e in [
            store.write(&data, 0, false).await.unwrap_err(),
            store.discard(0, 512).await.unwrap_err(),
            store.write_zeroes(0, 512, true).await.unwrap_err(),
            store.resize(3 * MIB).await.unwrap_err(),
        ] {
            assert!(matches!(e.kind, ErrorKind::ReadOnly), "{e}");
        }
        store.resize(MIB).await.unwrap();
        assert_eq!(store.facts().size, MIB);
        store.flush().await.unwrap();
        store.close().await.unwrap();
        drop(again);
        // Against writers it is.
        let config = format!("file/{}", image.display());
        let e = open(&config, &OpenOptions::default()).await.err().unwrap();
        assert!(matches!(e.kind, ErrorKind::InUse), "{e}");
        drop(store);
        let options = OpenOptions { locking: Locking::None, ..OpenOptions::default() };
        let unlocked = open(&format!("vdi/{}", image.display()), &options).await.unwrap();
        open(&config, &OpenOptions::default()).await.unwrap();
        drop(unlocked);
        let options = OpenOptions { size: Some(3 * MIB), ..OpenOptions::default() };
        let e = open(&format!("vdi/{}", image.display()), &options).await.err().unwrap();
        assert!(e.to_string().contains("it has 2097152 bytes, which is less than"), "{e}");
    });
}
