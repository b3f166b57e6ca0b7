// SPDX-License-Identifier: Apache-2.0
//! Volumes on other stores, and images in volumes.
use std::process::Command;

use block::{OpenOptions, Store as _, open};

use crate::common::{Dir, MIB, ONE, Random, TWO, check, on_engine, opened, qemu, read, write};

#[test]
fn a_volume_in_a_qcow2_image_is_what_cryptsetup_put_there() {
    let dir = Dir::new();
    let raw = dir.volume("raw", 24 * MIB, TWO);
    let image = dir.path("image.qcow2");
    let convert = |from: &str, to: &str, a: &std::path::Path, b: &std::path::Path| {
        qemu(Command::new("qemu-img").args(["convert", "-f", from, "-O", to]).args([a, b]));
    };
    convert("raw", "qcow2", &raw, &image);
    let mut random = Random(4);
    let config = dir.on(&format!("qcow/{}", image.display()));
    let plain = random.bytes(8 << 20);
    check(&config).unwrap();
    on_engine(async {
        let store = opened(&config).await;
        assert_eq!(store.facts().size, 8 * MIB);
        write(&store, 0, &plain).await.unwrap();
        store.flush().await.unwrap();
        assert!(read(&store, 0, 8 << 20).await.unwrap() == plain);
        store.close().await.unwrap();
    });
    qemu(Command::new("qemu-img").args(["check", "-q"]).arg(&image));
    convert("qcow2", "raw", &image, &raw);
    on_engine(async {
        for config in [dir.config(&raw), dir.on(&format!("file/{}", raw.display()))] {
            let store = opened(&config).await;
            assert!(read(&store, 0, 8 << 20).await.unwrap() == plain);
            store.close().await.unwrap();
        }
    });
}

#[test]
fn a_qcow2_image_in_a_volume_grows_and_stays_without_errors() {
    let dir = Dir::new();
    let small = [TWO, &["--sector-size=512"]].concat();
    let large = [TWO, &["--sector-size=4096"]].concat();
    for options in [ONE, &small, &large] {
        let image = dir.path("image.qcow2");
        qemu(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("6M"));
        let bytes = std::fs::read(&image).unwrap();
        let volume = dir.volume("volume", 18 * MIB, options);
        on_engine(async {
            // A volume just as long as the image, so that the image makes it longer.
            let store = opened(&dir.config(&volume)).await;
            let len = bytes.len().next_multiple_of(4096);
            let mut padded = bytes.clone();
            padded.resize(len, 0);
            store.resize(len as u64).await.unwrap();
            write(&store, 0, &padded).await.unwrap();
            store.close().await.unwrap();
        });
        let start = {
            let len = std::fs::metadata(&volume).unwrap().len();
            let data = on_engine(async { opened(&dir.config(&volume)).await.facts().size });
            len - data
        };
        let file = std::fs::File::options().write(true).open(&volume).unwrap();
        file.set_len(start + bytes.len().next_multiple_of(4096) as u64).unwrap();
        let config =
            format!("qcow/luks/{};secret-file={}", volume.display(), dir.path("key").display());
        let mut random = Random(5);
        let plain = random.bytes(6 << 20);
        on_engine(async {
            let store = opened(&config).await;
            assert_eq!(store.facts().size, 6 * MIB);
            for offset in (0..6 * MIB).step_by(48 << 10) {
                let len = ((48 << 10) as u64).min(6 * MIB - offset) as usize;
                write(&store, offset, &plain[offset as usize..][..len]).await.unwrap();
            }
            store.close().await.unwrap();
        });
        on_engine(async {
            let store = opened(&config).await;
            assert!(read(&store, 0, 6 << 20).await.unwrap() == plain);
            store.close().await.unwrap();
            drop(store);
            // Out of the volume it is an image like any other.
            let volume = opened(&dir.config(&volume)).await;
            let size = volume.facts().size as usize;
            std::fs::write(&image, read(&volume, 0, size).await.unwrap()).unwrap();
        });
        qemu(Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&image));
        let raw = dir.path("raw");
        qemu(Command::new("qemu-img").args(["convert", "-O", "raw"]).args([&image, &raw]));
        assert!(std::fs::read(raw).unwrap() == plain);
    }
}

#[test]
fn a_successor_takes_the_files_of_all_layers_over() {
    let dir = Dir::new();
    let raw = dir.volume("raw", 20 * MIB, TWO);
    let image = dir.path("image.qcow2");
    let mut convert = Command::new("qemu-img");
    qemu(convert.args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &image]));
    let config = dir.on(&format!("qcow/{}", image.display()));
    on_engine(async {
        let first = opened(&config).await;
        write(&first, 0, &[7; 4096]).await.unwrap();
        let other = open(
            &config,
            &OpenOptions { predecessor: Some(block::Held::default()), ..OpenOptions::default() },
        )
        .await;
        assert!(other.unwrap_err().to_string().contains("in use"), "its files are locked");
        first.close().await.unwrap();
        let options = OpenOptions { predecessor: Some(first.held()), ..OpenOptions::default() };
        let second = open(&config, &options).await.unwrap();
        assert!(second.held().overlaps(&first.held()));
        drop(first);
        assert!(read(&second, 0, 4096).await.unwrap() == [7; 4096]);
        second.close().await.unwrap();
    });
}

#[test]
fn a_stack_that_cannot_be_is_told_so() {
    let dir = Dir::new();
    for (config, text) in [
        (dir.on("ram//16M"), "there is no LUKS header: it begins with \\x00"),
        (dir.on("zfs/pool/x"), "no subtype \"zfs\"; there are file, "),
        (dir.on("x"), "the path is relative; it has to be luks//path/to/image"),
    ] {
        let opened = on_engine(async { open(&config, &OpenOptions::default()).await.map(drop) });
        let told = opened.unwrap_err().to_string();
        assert!(told.contains(text), "{config}: {told}");
    }
}

#[test]
fn a_check_looks_at_each_layer_that_opens_at_once() {
    let dir = Dir::new();
    let volume = dir.volume("volume", 24 * MIB, TWO);
    let image = dir.path("image.qcow2");
    qemu(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("8M"));
    let on = |upper: &str, subtype: &str, path: &std::path::Path| {
        format!("{upper}/{subtype}/{}", path.display())
    };
    check(&on("qcow", "file", &image)).unwrap();
    check(&dir.on(&format!("file/{}", volume.display()))).unwrap();
    for (config, why) in [
        (on("qcow", "file", &volume), "it is not a qcow2 or qcow image"),
        (dir.on(&format!("file/{}", image.display())), "LUKS"),
        (dir.on(&format!("qcow/{}", image.display())), "LUKS"),
        (dir.on(&format!("qcow/{}", volume.display())), "it is not a qcow2 or qcow image"),
        (on("qcow", "vmdk", &image), "VMDK"),
    ] {
        let text = check(&config).unwrap_err().to_string();
        assert!(text.contains(why), "{config}: {text}");
    }
    // It takes the passphrase to see what is in a volume.
    check(&dir.on(&format!("file/{}", volume.display())).replacen("luks/", "qcow/luks/", 1))
        .unwrap();
}
