// SPDX-License-Identifier: Apache-2.0
//! What we write, others read, and the reverse. QEMU knows version 1; `cryptsetup convert` makes one
//! version of the other without touching the data.
use std::path::Path;
use std::process::Command;

use block::{Disk, Store as _, disk};
use sgl::Sgl;

use crate::common::{
    Dir, MIB, ONE, Random, TWO, check, cryptsetup, on_engine, opened, qemu, read, write,
};

fn convert(dir: &Dir, path: &Path, version: &str) {
    cryptsetup(
        Command::new("cryptsetup")
            .args(["convert", "--batch-mode", "--type", version])
            .arg(path)
            .current_dir(dir.path("")),
    );
}

#[test]
fn what_qemu_wrote_is_read_and_what_we_write_qemu_reads() {
    let dir = Dir::new();
    let mut random = Random(1);
    let plain = random.bytes(1 << 20);
    let raw = dir.path("raw");
    for (cipher, bits) in
        [("aes-xts-plain64", 512), ("aes-xts-plain64", 256), ("aes-cbc-essiv:sha256", 256)]
    {
        let options = [format!("--cipher={cipher}"), format!("--key-size={bits}")];
        let image = dir.volume("image", 3 * MIB, &[ONE, &[&options[0], &options[1]]].concat());
        std::fs::write(&raw, &plain).unwrap();
        let target = format!("driver=luks,key-secret=s,file.filename={}", image.display());
        qemu(
            Command::new("qemu-img")
                .args(["convert", "-n", "-f", "raw", "--object", &dir.object()])
                .arg("--target-image-opts")
                .args([raw.to_str().unwrap(), &target]),
        );
        let mut model = plain.clone();
        on_engine(async {
            let store = opened(&dir.config(&image)).await;
            assert_eq!(store.facts().size, MIB);
            assert!(read(&store, 0, 1 << 20).await.unwrap() == plain, "{cipher}");
            for _ in 0..20 {
                let (offset, len) = random.range(MIB, 512);
                let data = random.bytes(len);
                write(&store, offset, &data).await.unwrap();
                model[offset as usize..][..len].copy_from_slice(&data);
            }
            assert!(read(&store, 0, 1 << 20).await.unwrap() == model);
            store.close().await.unwrap();
        });
        assert!(dir.decrypted_by_qemu(&image) == model, "{cipher}");
    }
}

#[test]
fn a_volume_of_version_2_has_the_same_data_as_the_one_of_version_1_that_it_becomes() {
    let dir = Dir::new();
    let image = dir.volume("image", 8 * MIB, ONE);
    convert(&dir, &image, "luks2");
    let mut random = Random(2);
    let size = on_engine(async {
        let store = opened(&dir.config(&image)).await;
        let size = store.facts().size;
        write(&store, 0, &random.bytes(size as usize)).await.unwrap();
        store.close().await.unwrap();
        size
    });
    let ours = on_engine(async {
        read(&opened(&dir.config(&image)).await, 0, size as usize).await.unwrap()
    });
    convert(&dir, &image, "luks1");
    let theirs = dir.decrypted_by_qemu(&image);
    assert!(theirs[..size as usize] == ours);
    // And back: what QEMU writes is read when it is version 2 again.
    let opened_by_qemu = format!("driver=luks,key-secret=s,file.filename={}", image.display());
    qemu(
        Command::new("qemu-io")
            .args(["--object", &dir.object(), "--image-opts", &opened_by_qemu])
            .args(["-c", "write -P 9 1M 64k"]),
    );
    convert(&dir, &image, "luks2");
    on_engine(async {
        let store = opened(&dir.config(&image)).await;
        assert!(read(&store, MIB, 64 << 10).await.unwrap() == [9; 64 << 10]);
        assert!(read(&store, 0, 1 << 20).await.unwrap() == ours[..1 << 20]);
    });
}

#[test]
fn a_disk_on_sectors_of_4096_bytes_reads_what_was_written_at_any_offset() {
    let dir = Dir::new();
    let options = [TWO, &["--sector-size=4096"]].concat();
    let image = dir.volume("image", 24 * MIB, &options);
    let mut random = Random(3);
    on_engine(async {
        let store = opened(&dir.config(&image)).await;
        let facts = store.facts();
        assert_eq!((facts.request_alignment, facts.size), (4096, 8 * MIB));
        write(&store, 512, &[1; 512]).await.unwrap_err();
        let mut model = random.bytes(8 << 20);
        write(&store, 0, &model).await.unwrap();
        let disk = Disk::new(store, "image", disk::Options::default());
        for _ in 0..200 {
            let (offset, len) = random.range(8 * MIB, 512);
            let mut data = random.bytes(len);
            disk.write(&Sgl::from_slice(&mut data), offset, false).await.unwrap();
            model[offset as usize..][..len].copy_from_slice(&data);
            let (offset, len) = random.range(8 * MIB, 512);
            let n = len.min(data.len());
            disk.read(&Sgl::from_slice(&mut data[..n]), offset).await.unwrap();
            assert!(data[..n] == model[offset as usize..][..n]);
        }
        disk.close().await.unwrap();
        drop(disk);
        let store = opened(&dir.config(&image)).await;
        assert!(read(&store, 0, 8 << 20).await.unwrap() == model);
    });
}

#[test]
fn key_slots_of_version_2_open_by_hashes_that_are_seldom_used() {
    let dir = Dir::new();
    for hash in ["md5", "sha384", "sha3-256", "blake2s-256", "whirlpool"] {
        let hash = format!("--hash={hash}");
        let image = dir.volume("image", 24 * MIB, &[TWO, &[&hash]].concat());
        on_engine(async {
            let store = opened(&dir.config(&image)).await;
            write(&store, 0, &[9; 4096]).await.unwrap();
            store.close().await.unwrap();
            drop(store);
            let store = opened(&dir.config(&image)).await;
            assert!(read(&store, 0, 4096).await.unwrap() == [9; 4096], "{hash}");
        });
    }
}

#[test]
fn a_detached_header_opens_data_that_begin_with_the_device() {
    let dir = Dir::new();
    for options in [ONE, TWO] {
        let header = dir.file("header", 17 * MIB);
        let data = dir.file("data", 4 * MIB);
        let option = format!("--header={}", header.display());
        dir.format(&data, &[options, &[&option]].concat());
        let config = format!("{};header={}", dir.config(&data), header.display());
        check(&config).unwrap();
        on_engine(async {
            let store = opened(&config).await;
            assert_eq!(store.facts().size, 4 * MIB, "{options:?}");
            write(&store, 0, &[7; 8192]).await.unwrap();
            assert!(read(&store, 0, 8192).await.unwrap() == [7; 8192]);
            store.close().await.unwrap();
        });
        assert!(std::fs::read(&data).unwrap()[..4096] != [7; 4096]);
        // With `--header` cryptsetup finds no fault with it either.
        cryptsetup(
            Command::new("cryptsetup")
                .args(["luksOpen", "--test-passphrase", &option, "--key-file"])
                .args([&dir.path("key"), &data]),
        );
        std::fs::remove_file(header).unwrap();
    }
}

#[test]
fn a_header_that_was_damaged_is_read_from_its_second_copy_and_nothing_is_written() {
    use std::os::unix::fs::FileExt as _;
    let dir = Dir::new();
    let image = dir.volume("image", 20 * MIB, TWO);
    let config = dir.config(&image);
    on_engine(async {
        let store = opened(&config).await;
        write(&store, 0, &[7; 4096]).await.unwrap();
        store.close().await.unwrap();
    });
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    on_engine(async {
        let store = opened(&config).await;
        assert!(store.facts().read_only);
        assert!(read(&store, 0, 4096).await.unwrap() == [7; 4096]);
        write(&store, 0, &[8; 4096]).await.unwrap_err();
        store.close().await.unwrap();
    });
    cryptsetup(Command::new("cryptsetup").args(["repair", "--batch-mode"]).arg(&image));
    on_engine(async {
        let store = opened(&config).await;
        assert!(!store.facts().read_only);
        assert!(read(&store, 0, 4096).await.unwrap() == [7; 4096]);
    });
}

#[test]
fn the_passphrase_of_any_slot_opens_the_volume() {
    let dir = Dir::new();
    for options in [ONE, TWO] {
        let image = dir.volume("image", 20 * MIB, options);
        let second = dir.secret("second", "second\n");
        let mut add = Command::new("cryptsetup");
        add.args(["luksAddKey", "--batch-mode"]).args(&options[1..]);
        cryptsetup(add.arg("--key-file").args([&dir.path("key"), &image, &second]));
        let with = |name: &str| {
            format!("luks/{};secret-file={}", image.display(), dir.path(name).display())
        };
        on_engine(async {
            write(&opened(&with("key")).await, 0, &[7; 4096]).await.unwrap();
            assert!(read(&opened(&with("second")).await, 0, 4096).await.unwrap() == [7; 4096]);
        });
    }
}
