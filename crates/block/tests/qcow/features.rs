// SPDX-License-Identifier: Apache-2.0
//! Which images are opened, and how those are refused that are not; what the facts say.
use std::fs::Permissions;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use block::{AnyStore, ErrorClass, OpenOptions, Provisioning, Store, open};
use sgl::Sgl;

use crate::common::*;

fn refusal(image: &Path) -> String {
    let checked = check_config(&config(image));
    let opened = on_engine(async { try_open_image(image).await.map(drop) });
    let opened = opened.unwrap_err().to_string();
    // What does not need the whole image is found by the check as well.
    if let Err(checked) = checked {
        assert_eq!(checked.to_string(), opened);
    } else {
        assert!(opened.contains("refcount") || opened.contains("refers to"), "{opened}");
    }
    opened
}

fn poke(image: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::File::options().write(true).open(image).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn peek(image: &Path, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    std::fs::File::open(image).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    u64::from_be_bytes(bytes)
}

#[test]
fn images_that_may_not_be_opened_are_refused_with_what_to_run() {
    let dir = Dir::new();
    let feature = |bit: u32| {
        let image = dir.create("image", "", MIB);
        poke(&image, 72, &(1u64 << bit).to_be_bytes());
        refusal(&image)
    };
    let image = dir.path("image");
    let image = image.display();
    for (bit, text) in [
        (
            1,
            format!(
                "marked as corrupt (incompatible feature bit 1); keep a copy and run `qemu-img check \
                 -r all {image}`"
            ),
        ),
        (2, "in an external data file, which it does not name".into()),
        (3, "its compression type (Deflate) and its feature bit of that name contradict".into()),
        (40, "the feature (incompatible feature bit 40), which is not supported".into()),
    ] {
        let got = feature(bit);
        assert!(got.contains(&text), "{bit}: {got}");
    }
    // The name of an unknown feature is in the image: its first entry becomes one.
    let path = dir.create("image", "", MIB);
    let bytes = std::fs::read(&path).unwrap();
    let table = 0x6803_f857_u32.to_be_bytes();
    let at = bytes.windows(4).position(|window| window == table).unwrap() as u64 + 8;
    poke(&path, at, &[0, 40]);
    poke(&path, at + 2, b"warp drive\0");
    poke(&path, 72, &(1u64 << 40).to_be_bytes());
    let got = refusal(&path);
    assert!(got.contains("the feature \"warp drive\" (incompatible feature bit 40)"), "{got}");
}

#[test]
fn features_that_qemu_makes_are_served() {
    let dir = Dir::new();
    let raw = dir.path("data");
    let mut data = Random(3).bytes(4 << 20);
    data[1 << 20..2 << 20].fill(0);
    let plain = dir.path("plain");
    std::fs::write(&plain, &data).unwrap();
    let data_file = format!("data_file={}", raw.display());
    for (options, compressed) in [
        ("compression_type=zstd", true),
        ("compression_type=zlib", true),
        ("extended_l2=on", false),
        ("extended_l2=on,compression_type=zstd", true),
        ("cluster_size=512,refcount_bits=1", false),
        ("cluster_size=2M,refcount_bits=64", false),
        ("lazy_refcounts=on", false),
        (&data_file, false),
        (&format!("{data_file},data_file_raw=on"), false),
    ] {
        let image = dir.path("image");
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        args.extend(compressed.then_some("-c"));
        args.extend([plain.to_str().unwrap(), image.to_str().unwrap()]);
        qemu_img(&args);
        let mut want = data.clone();
        on_engine(async {
            let store = open_image(&image).await;
            assert!(read(&store, 0, want.len()).await.unwrap() == want, "{options}");
            for at in [0, 5000, 1 << 20, (3 << 20) - 700] {
                write(&store, at, &[9; 1500]).await.unwrap();
                let at = usize::try_from(at).unwrap();
                want[at..at + 1500].fill(9);
            }
            store.write_zeroes(3 * MIB + 100, 300_000, true).await.unwrap();
            want[(3 << 20) + 100..][..300_000].fill(0);
            assert!(read(&store, 0, want.len()).await.unwrap() == want, "{options}");
            store.close().await.unwrap();
        });
        assert!(content(&image) == want, "{options}: as QEMU reads it");
        if options.contains("data_file_raw") {
            assert!(std::fs::read(&raw).unwrap() == want, "{options}: the raw file");
        }
        assert_eq!(crate::common::check(&image), Check::Clean, "{options}");
        std::fs::remove_file(image).unwrap();
    }
}

/// The data file belongs to the image: nobody else may write it, and it may not be anywhere.
#[test]
fn an_external_data_file_is_allowed_and_locked_as_its_image() {
    let (dir, other) = (Dir::new(), Dir::new());
    let data = other.path("data");
    let image = dir.create("image", &format!("data_file={}", data.display()), MIB);
    on_engine(async {
        let store = open_image(&image).await;
        let as_raw = open(&format!("file/{}", data.display()), &OpenOptions::default()).await;
        assert!(as_raw.unwrap_err().to_string().contains("it is in use"));
        store.close().await.unwrap();
        drop(store);
        let allowed = Some(vec![dir.path("")]);
        let options = OpenOptions { allowed_backing_dirs: allowed, ..OpenOptions::default() };
        let refused = open(&config(&image), &options).await.unwrap_err().to_string();
        assert!(refused.contains("its external data file \""), "{refused}");
        assert!(refused.contains("is in none of the directories"), "{refused}");
    });
    std::fs::remove_file(&data).unwrap();
    let text = refusal(&image);
    assert!(text.contains("data: look up: No such file"), "{text}");
}

#[test]
fn a_relative_data_file_lies_beside_its_image_whoever_opens_it() {
    let dir = Dir::new();
    let there = dir.path("");
    let qemu = |program: &str, cwd: &Path, args: &[&str]| {
        let ran = Command::new(program).current_dir(cwd).args(args).output();
        ran.unwrap_or_else(|e| panic!("{program}: {e}; install the package qemu-utils"))
    };
    let create = ["create", "-q", "-f", "qcow2", "-o", "data_file=data", "image", "1M"];
    assert!(qemu("qemu-img", &there, &create).status.success());
    assert!(qemu("qemu-io", &there, &["-c", "write -P 7 0 64k", "image"]).status.success());
    let image = dir.path("image");
    on_engine(async {
        let store = open_image(&image).await;
        assert!(read(&store, 0, 64 << 10).await.unwrap() == [7; 64 << 10]);
    });
    // To QEMU it is another file elsewhere, which is not there.
    let elsewhere = qemu("qemu-io", Path::new("/"), &["-c", "quit", image.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(text.contains("Could not open 'data'"), "{text}");
}

/// An image of 1 MiB that is encrypted with the passphrase `geheim`.
fn encrypted(dir: &Dir, options: &str) -> PathBuf {
    let image = dir.path("encrypted");
    let options = format!("encrypt.key-secret=s,encrypt.format={options}");
    let path = image.to_str().unwrap();
    let create = ["create", "-q", "--object", SECRET, "-f", "qcow2", "-o", &options, path, "1M"];
    // On a busy machine qemu-img may fail to measure how fast it derives keys.
    let created = (0..20).any(|_| {
        let output = Command::new("qemu-img").args(create).output().unwrap();
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    });
    assert!(created, "qemu-img makes no encrypted image");
    image
}

const LUKS: &str = "luks,encrypt.iter-time=10";
const SECRET: &str = "secret,id=s,data=geheim";

/// A command of qemu-io's on such an image.
fn qemu_io_encrypted(image: &Path, format: &str, command: &str) {
    let file = image.display();
    let opened =
        format!("driver=qcow2,file.filename={file},encrypt.format={format},encrypt.key-secret=s");
    let args = ["--object", SECRET, "--image-opts", &opened, "-c", command];
    let output = Command::new("qemu-io").args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("failed"), "{text}");
}

#[test]
fn an_encrypted_image_is_refused_without_its_passphrase() {
    let dir = Dir::new();
    let got = refusal(&encrypted(&dir, LUKS));
    assert!(got.contains("it is encrypted, and no passphrase was given"), "{got}");
    assert!(got.contains("secret-file=FILE") && got.contains("qemu-img convert"), "{got}");
}

#[test]
fn an_encrypted_image_is_served_with_the_passphrase_that_a_file_has() {
    let dir = Dir::new();
    let (image, file) = (encrypted(&dir, LUKS), dir.path("passphrase"));
    qemu_io_encrypted(&image, "luks", "write -P 7 0 64k");
    let config = format!("{};secret-file={}", config(&image), file.display());
    let refused = |passphrase: &[u8], mode: u32| {
        std::fs::write(&file, passphrase).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let checked = check_config(&config).unwrap_err().to_string();
        let opened = on_engine(async { open(&config, &OpenOptions::default()).await.map(drop) });
        assert_eq!(opened.unwrap_err().to_string(), checked);
        checked
    };
    let text = refused(b"geheim", 0o640);
    assert!(text.contains("its mode is 0640") && text.contains("chmod 600"), "{text}");
    let text = refused(b"", 0o600);
    assert!(text.contains("it has 0 bytes"), "{text}");
    let text = refused(b"geheim\n", 0o600);
    assert!(text.contains("passphrase") && !text.contains("geheim"), "{text}");
    std::fs::write(&file, "geheim").unwrap();
    check_config(&config).unwrap();
    on_engine(async {
        let store = open(&config, &OpenOptions::default()).await.unwrap();
        assert!(read(&store, 0, 64 << 10).await.unwrap() == [7; 64 << 10]);
        write(&store, 128 << 10, &[9; 4096]).await.unwrap();
        store.close().await.unwrap();
    });
    qemu_io_encrypted(&image, "luks", "read -P 9 128k 4k");
}

#[test]
fn an_image_with_the_older_encryption_is_served_read_only() {
    let dir = Dir::new();
    let (image, file) = (encrypted(&dir, "aes"), dir.path("passphrase"));
    qemu_io_encrypted(&image, "aes", "write -P 7 0 64k");
    std::fs::write(&file, "geheim").unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let config = format!("{};secret-file={}", config(&image), file.display());
    check_config(&config).unwrap();
    on_engine(async {
        let store = open(&config, &OpenOptions::default()).await.unwrap();
        assert!(store.facts().read_only);
        assert!(read(&store, 0, 64 << 10).await.unwrap() == [7; 64 << 10]);
        write(&store, 0, &[9; 4096]).await.unwrap_err();
    });
}

#[test]
fn a_file_that_is_too_short_for_an_image_is_told_so() {
    let dir = Dir::new();
    for (len, text) in [(71, "has 71 bytes"), (103, "has 103 bytes"), (104, "has 104 bytes")] {
        let image = dir.create("image", "", MIB);
        std::fs::File::options().write(true).open(&image).unwrap().set_len(len).unwrap();
        let got = refusal(&image);
        assert!(got.contains(text) && got.contains("it was cut off"), "{got}");
        assert!(!got.contains("check -r"), "{got}");
    }
}

#[test]
fn metadata_that_counts_as_free_is_refused_for_writing() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    qemu_io(&image, &["write 0 64k"]);
    let block = peek(&image, peek(&image, 48));
    for cluster in [0, 1, 2, 3, 4] {
        let place = block + cluster * 2;
        poke(&image, place, &[0, 0]);
        let got = refusal(&image);
        let what =
            format!("the cluster {cluster:#x} of the file has the refcount 0 where 1 is right");
        assert!(got.contains(&what) && got.contains("run `qemu-img check -r all"), "{got}");
        on_engine(async {
            let options = OpenOptions { read_only: true, ..OpenOptions::default() };
            let store = open(&config(&image), &options).await.unwrap();
            assert!(store.facts().read_only);
            read(&store, 0, 4096).await.unwrap();
            write(&store, 0, &[1; 512]).await.unwrap_err();
            store.discard(0, 512).await.unwrap_err();
            store.close().await.unwrap();
        });
        poke(&image, place, &[0, 1]);
    }
    on_engine(async { open_image(&image).await.close().await.unwrap() });
}

#[test]
fn what_is_written_is_told_to_bitmaps() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    qemu_img(&["bitmap", "--add", image.to_str().unwrap(), "b0"]);
    assert_eq!(peek(&image, 88), 1);
    on_engine(async {
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        open(&config(&image), &options).await.unwrap().close().await.unwrap();
        open_image(&image).await.close().await.unwrap();
        assert_eq!(peek(&image, 88), 1, "what is not written stays valid");
        let store = open_image(&image).await;
        write(&store, 0, &[1; 512]).await.unwrap();
        store.close().await.unwrap();
    });
    assert_eq!(peek(&image, 88), 1 << 63 | 1, "it has bitmaps, and was closed by us");
    let merge = ["bitmap", "--add", "--merge", "b0", image.to_str().unwrap(), "copy"];
    qemu_img(&merge);
    assert_eq!(crate::common::check(&image), Check::Clean);
}

#[test]
fn with_compress_what_is_written_takes_less_space() {
    let dir = Dir::new();
    let image = dir.create("image", "compression_type=zstd", MIB);
    let data = vec![7; 1 << 20];
    on_engine(async {
        let config = format!("{};compress=on", config(&image));
        let store = open(&config, &OpenOptions::default()).await.unwrap();
        write(&store, 0, &data).await.unwrap();
        store.close().await.unwrap();
    });
    assert!(content(&image) == data);
    assert_eq!(crate::common::check(&image), Check::Clean);
    assert!(std::fs::metadata(&image).unwrap().len() < MIB);
}

#[test]
fn the_size_of_a_device_has_to_fit_in_its_image() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    on_engine(async {
        let sized = |size| OpenOptions { size: Some(size), ..OpenOptions::default() };
        let error = open(&config(&image), &sized(2 * MIB)).await.unwrap_err().to_string();
        assert!(error.contains("less than the 2097152 bytes of the device"), "{error}");
        let store = open(&config(&image), &sized(MIB / 2)).await.unwrap();
        assert_eq!(store.facts().size, MIB / 2);
        write(&store, MIB / 2 - 512, &[5; 512]).await.unwrap();
        for offset in [MIB / 2 - 256, MIB / 2, u64::MAX - 100] {
            write(&store, offset, &[5; 512]).await.unwrap_err();
            read(&store, offset, 512).await.unwrap_err();
            store.discard(offset, 512).await.unwrap_err();
        }
        // A smaller device leaves the data of the image alone.
        store.resize(4096).await.unwrap();
        assert_eq!(store.facts().size, 4096);
        store.resize(MIB).await.unwrap();
        assert_eq!(read(&store, MIB / 2 - 512, 512).await.unwrap(), [5; 512]);
        store.close().await.unwrap();
    });
}

#[test]
fn the_facts_tell_what_an_image_can() {
    let dir = Dir::new();
    let raw = dir.path("raw");
    std::fs::write(&raw, vec![3; 65536]).unwrap();
    let backing = format!("backing_file={},backing_fmt=raw", raw.display());
    for (options, discards, zeroes) in [
        ("compat=1.1".to_owned(), true, true),
        ("compat=0.10".to_owned(), true, false),
        (format!("compat=1.1,{backing}"), true, true),
        (format!("compat=0.10,{backing}"), false, false),
    ] {
        let image = dir.create("image", &format!("cluster_size=4096,{options}"), MIB);
        on_engine(async {
            let store = open_image(&image).await;
            let facts = store.facts();
            assert_eq!((facts.size, facts.optimal_io, facts.read_only), (MIB, 4096, false));
            assert_eq!((facts.discard.is_some(), facts.write_zeroes), (discards, zeroes));
            let data = facts.discard.is_none();
            let discarded = store.discard(0, 8192).await;
            assert_eq!(discarded.is_err(), data, "{options}");
            if !data {
                assert_eq!(read(&store, 0, 8192).await.unwrap(), vec![0; 8192], "{options}");
            }
            store.close().await.unwrap();
        });
    }
}

/// Discarding gives the space in the file system back, and does not allocate tables for what has
/// no data.
#[test]
fn discard_makes_the_file_smaller() {
    let dir = Dir::new();
    let image = dir.create("image", "", 1 << 40);
    let blocks = || std::fs::metadata(&image).unwrap().blocks();
    on_engine(async {
        let store = open_image(&image).await;
        store.discard(0, 1 << 40).await.unwrap();
        let empty = blocks();
        assert!(empty < 4096, "{empty} blocks");
        let (kind, _) = store.provisioning(0, MIB).await.unwrap();
        assert_eq!(kind, Provisioning::Deallocated);
        write(&store, 0, &vec![1; 8 << 20]).await.unwrap();
        assert!(blocks() >= empty + (16 << 10));
        assert_eq!(store.provisioning(0, MIB).await.unwrap(), (Provisioning::Mapped, MIB));
        store.discard(0, 8 * MIB).await.unwrap();
        // Not before it is on stable storage that nothing is there; then as soon as there is time.
        store.flush().await.unwrap();
        let _ = io_engine::timeout(Duration::from_secs(1), store.event()).await;
        assert!(blocks() < empty + 2048, "{} blocks", blocks());
        assert_eq!(store.provisioning(0, MIB).await.unwrap(), (Provisioning::Deallocated, MIB));
        store.close().await.unwrap();
    });
    assert_eq!(check_config(&config(&image)).map_err(|e| e.to_string()), Ok(()));
    assert_eq!(crate::common::check(&image), Check::Clean);
}

#[test]
fn the_cache_of_tables_is_as_large_as_the_configuration_string_says() {
    let dir = Dir::new();
    let image = dir.create("image", "cluster_size=4k", 64 * MIB);
    for (option, limit) in [("", None), (";cache-size=128K", Some(128 << 10))] {
        on_engine(async {
            let config = format!("{}{option}", config(&image));
            let store = open(&config, &OpenOptions::default()).await.unwrap();
            for at in (0..64).map(|n| n * MIB) {
                write(&store, at, &[7; 512]).await.unwrap();
                assert_eq!(read(&store, at, 512).await.unwrap(), [7; 512]);
            }
            let AnyStore::Qcow(qcow) = &store else { panic!("{store:?}") };
            let cache = qcow.cache();
            assert!(limit.is_none_or(|limit| cache.limit == limit), "{cache:?}");
            store.close().await.unwrap();
        });
    }
    assert_eq!(crate::common::check(&image), Check::Clean);
}

/// A flush, or a write with FUA, needs fdatasync only after changes of metadata; either way the
/// data is there.
#[test]
fn writes_with_fua_are_read_back() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    on_engine(async {
        let store = open_image(&image).await;
        for round in 1..4 {
            let mut data = vec![round; 4096];
            store.write(&Sgl::from_slice(&mut data), 8192, true).await.unwrap();
            assert_eq!(read(&store, 8192, 4096).await.unwrap(), data);
            store.flush().await.unwrap();
        }
        store.close().await.unwrap();
    });
    assert_eq!(content(&image)[8192..12288], [3; 4096]);
}

/// As on a full file system, allocations fail at any of their steps: here at a limit on the size
/// of files, which needs no privileges. It is the process's, so this runs in a child.
#[test]
fn an_image_that_cannot_grow_stays_without_errors() {
    let dir = Dir::new();
    for (options, limit) in [
        ("cluster_size=65536", 3 * MIB),
        ("cluster_size=4096", 700 * KIB),
        ("cluster_size=512", 300 * KIB),
        ("cluster_size=65536,compat=0.10", 3 * MIB),
    ] {
        let image = dir.create("image", options, 64 * MIB);
        // The limit's signal would kill the child.
        let ignoring = "trap '' XFSZ; exec \"$0\" --exact features::child_with_limit --ignored";
        let output = std::process::Command::new("sh")
            .args(["-c", ignoring])
            .arg(std::env::current_exe().unwrap())
            .env("QCOW_LIMIT_IMAGE", &image)
            .env("QCOW_LIMIT", limit.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{options}: {said}");
        assert_eq!(crate::common::check(&image), Check::Clean, "{options}");
        let content = content(&image);
        let whole =
            content.chunks(32 << 10).take_while(|slot| slot.iter().all(|&b| b == 7)).count();
        assert!(whole > 2, "{options}: nothing was written");
        assert!(content[whole * (32 << 10)..].iter().all(|&b| b == 0 || b == 7), "{options}");
    }
}

#[test]
#[ignore = "the child of an_image_that_cannot_grow_stays_without_errors, which starts it"]
fn child_with_limit() {
    let image = std::env::var("QCOW_LIMIT_IMAGE").expect("this is the child of another test");
    let limit = std::env::var("QCOW_LIMIT").unwrap().parse().unwrap();
    let limit = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    on_engine(async {
        let store = open_image(Path::new(&image)).await;
        let mut written = 0;
        let mut failed = 0;
        for slot in 0..256u64 {
            match write(&store, slot * 32 * KIB, &[7; 32 << 10]).await {
                Ok(()) => {
                    assert_eq!(read(&store, slot * 32 * KIB, 512).await.unwrap(), [7; 512]);
                    written += 1;
                }
                Err(e) => {
                    assert_eq!(e.errno(), Some(27), "EFBIG: {e}");
                    failed += 1;
                }
            }
        }
        assert!(written > 2 && failed > 2, "{written} {failed}");
        // What is there can be read and overwritten, and freed space used.
        write(&store, 0, &[7; 4096]).await.unwrap();
        store.discard(0, 64 * KIB).await.unwrap();
        write(&store, 0, &[7; 64 << 10]).await.unwrap();
        store.close().await.unwrap();
    });
}

/// The places of the tables that the header names: of the L1 table and the refcount table.
fn tables(bytes: &[u8]) -> [u64; 2] {
    [40, 48].map(|at| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()))
}

/// A file may end inside its last table: what is missing is zero, as QEMU has it.
#[test]
fn an_image_that_ends_inside_its_last_table_is_served_and_stays_without_errors() {
    let dir = Dir::new();
    for (name, options) in [
        // The L1 table is last, and has entries for 32 GiB: most of them are zero.
        ("l1", "cluster_size=64k"),
        ("l1-small", "cluster_size=4k"),
        ("l1-2", "compat=0.10,cluster_size=64k"),
    ] {
        let image = dir.create(name, options, 32 << 30);
        let mut bytes = std::fs::read(&image).unwrap();
        let [l1, _] = tables(&bytes);
        bytes.truncate(usize::try_from(l1).unwrap() + 8);
        std::fs::write(&image, &bytes).unwrap();
        let before = qemu_io(&image, &["read -v 0 512", "read -v 1G 512"]);
        on_engine(async {
            let store = open_image(&image).await;
            let start = read(&store, 0, 512).await.unwrap();
            let printed = format!("{:02x} {:02x} ", start[0], start[1]);
            assert!(before.contains(&printed), "{before}: {printed}");
            assert_eq!(read(&store, 1 << 30, 512).await.unwrap(), [0; 512]);
            for at in [0, 1 << 30, 30 << 30, (32 << 30) - 4096] {
                write(&store, at, &[7; 4096]).await.unwrap();
            }
            store.flush().await.unwrap();
            store.close().await.unwrap();
        });
        for at in ["0", "1G", "30G"] {
            qemu_io(&image, &[&format!("read -P 7 {at} 4k")]);
        }
        assert_eq!(crate::common::check(&image), Check::Clean, "{name}");
    }
}

/// That it was closed comes with a copy of an image, whole or not.
#[test]
fn an_image_that_was_closed_and_cut_off_later_is_refused_and_not_changed() {
    let dir = Dir::new();
    for (name, options) in [
        ("64k", ""),
        ("512", "cluster_size=512"),
        ("2M", "cluster_size=2M"),
        ("narrow", "refcount_bits=1"),
        ("wide", "refcount_bits=64"),
        ("subclusters", "extended_l2=on"),
    ] {
        let image = dir.create(name, options, 32 * MIB);
        qemu_io(&image, &["write -P 5 0 20M"]);
        on_engine(async { open_image(&image).await.close().await.unwrap() });
        on_engine(async {
            let store = open_image(&image).await;
            write(&store, 24 * MIB, &[6; 4096]).await.unwrap();
            store.close().await.unwrap();
        });
        // As it is left, it is opened.
        on_engine(async { open_image(&image).await.close().await.unwrap() });
        assert_ne!(peek(&image, 88), 0, "{name}");
        let len = std::fs::metadata(&image).unwrap().len();
        // More than the last cluster, which may be there in part.
        for percent in [80, 50] {
            let file = std::fs::File::options().write(true).open(&image).unwrap();
            file.set_len(len * percent / 100).unwrap();
            let before = std::fs::read(&image).unwrap();
            let text = refusal(&image);
            assert!(text.contains("qemu-img") && text.contains(name), "{name}: {text}");
            assert!(before == std::fs::read(&image).unwrap(), "{name}: it was changed");
        }
    }
}

/// What is missing is an error: it is not zero.
#[test]
fn an_image_without_its_last_cluster_of_data_is_served_read_only_up_to_there() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    qemu_io(&image, &["write -P 5 0 64k", "write -P 6 64k 64k"]);
    let len = std::fs::metadata(&image).unwrap().len();
    std::fs::File::options().write(true).open(&image).unwrap().set_len(len - 64 * KIB).unwrap();
    let before = std::fs::read(&image).unwrap();
    let text = refusal(&image);
    let path = image.display();
    assert!(text.contains("past the end of the file"), "{text}");
    let what = format!("run `qemu-img convert --salvage -O qcow2 {path} NEW`");
    assert!(text.contains(&what), "{text}");
    on_engine(async {
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        let store = open(&config(&image), &options).await.unwrap();
        assert_eq!(read(&store, 64 * KIB - 512, 512).await.unwrap(), [5; 512]);
        let e = read(&store, 64 * KIB - 512, 1024).await.unwrap_err();
        assert_eq!(e.class(), ErrorClass::Invalid);
        let text = e.to_string();
        let there = format!("past its end: it has {} bytes", len - 64 * KIB);
        assert!(text.contains(&path.to_string()) && text.contains(&there), "{text}");
        assert!(text.contains("the cluster at 0x10000 is at 0x"), "{text}");
    });
    // As what another image lies on, too.
    let overlay = dir.path("overlay");
    let (from, over) = (image.to_str().unwrap(), overlay.to_str().unwrap());
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", from, over]);
    on_engine(async {
        let store = open_image(&overlay).await;
        let text = read(&store, 64 * KIB, 512).await.unwrap_err().to_string();
        assert!(text.contains(&path.to_string()) && text.contains("past its end"), "{text}");
    });
    let marks = [peek(&image, 72), peek(&overlay, 72)];
    assert_eq!(marks, [0; 2], "the damage is not the overlay's");
    assert!(std::fs::read(&image).unwrap() == before);
    let rescued = dir.path("rescued");
    let (from, to) = (image.to_str().unwrap(), rescued.to_str().unwrap());
    qemu_img(&["convert", "--salvage", "-f", "qcow2", "-O", "qcow2", from, to]);
    on_engine(async { open_image(&rescued).await.close().await.unwrap() });
}

/// Nobody can tell which clusters an extension refers to that is not known.
#[test]
fn leaked_clusters_are_given_back_unless_the_header_has_an_unknown_extension() {
    let dir = Dir::new();
    for (kind, given_back) in [(0x6803_f857_u32, true), (0x1234_5678, false)] {
        let image = dir.create("image", "", MIB);
        qemu_io(&image, &["write 0 128k"]);
        // The first extension of a new image is the table of feature names, at 112.
        assert_eq!(peek(&image, 112) >> 32, 0x6803_f857);
        poke(&image, 112, &kind.to_be_bytes());
        let l2 = peek(&image, peek(&image, 40)) & !(1 << 63);
        poke(&image, l2 + 8, &[0; 8]);
        assert_eq!(crate::common::check(&image), Check::Leaks);
        on_engine(async { open_image(&image).await.close().await.unwrap() });
        let after = if given_back { Check::Clean } else { Check::Leaks };
        assert_eq!(crate::common::check(&image), after, "{kind:#x}");
        std::fs::remove_file(&image).unwrap();
    }
}
