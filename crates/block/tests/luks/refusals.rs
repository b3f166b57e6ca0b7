// SPDX-License-Identifier: Apache-2.0
//! What is refused, and what is told then: never a passphrase.
use std::fs::Permissions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use block::{ErrorClass, OpenOptions, Store as _, open};

use crate::common::{Dir, MIB, ONE, PASSPHRASE, TWO, check, cryptsetup, on_engine, opened};

/// What is told when it is opened.
fn refusal(config: &str) -> String {
    refusal_of(config, &OpenOptions::default())
}

fn refusal_of(config: &str, options: &OpenOptions) -> String {
    let opened = on_engine(async { open(config, options).await.map(drop) });
    opened.unwrap_err().to_string()
}

#[test]
fn a_volume_is_refused_without_its_passphrase_and_with_another_one() {
    let dir = Dir::new();
    for options in [ONE, TWO] {
        let image = dir.volume("image", 20 * MIB, options);
        let none = format!("luks/{}", image.display());
        let told = refusal(&none);
        assert!(told.contains("no passphrase was given: ;secret-file=FILE"), "{told}");
        assert_eq!(check(&none).unwrap_err().to_string(), told);
        let wrong = dir.secret("wrong", "hunter2");
        let told = refusal(&format!("{none};secret-file={}", wrong.display()));
        assert!(told.contains("the passphrase opens none of its 1 key slots in use"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
        // All bytes count.
        let newline = dir.secret("newline", &format!("{PASSPHRASE}\n"));
        let told = refusal(&format!("{none};secret-file={}", newline.display()));
        assert!(told.contains("opens none") && !told.contains(PASSPHRASE), "{told}");
        std::fs::set_permissions(dir.path("key"), Permissions::from_mode(0o644)).unwrap();
        let config = dir.config(&image);
        let told = refusal(&config);
        assert!(told.contains("its mode is 0644") && told.contains("chmod 600"), "{told}");
        assert_eq!(check(&config).unwrap_err().to_string(), told);
        std::fs::set_permissions(dir.path("key"), Permissions::from_mode(0o600)).unwrap();
        check(&config).unwrap();
    }
}

#[test]
fn what_is_no_volume_or_was_cut_off_is_refused_by_a_check_too() {
    let dir = Dir::new();
    let image = dir.volume("image", 20 * MIB, TWO);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    let told = |text: &str| {
        let config = dir.config(&image);
        let refused = refusal(&config);
        assert!(refused.contains(text), "{refused}");
        assert_eq!(check(&config).unwrap_err().to_string(), refused);
    };
    file.set_len(16 * MIB).unwrap();
    told("its LUKS header says that the data begin at 16777216 and have");
    file.write_all_at(b"x", 5000).unwrap();
    file.write_all_at(b"x", 16384 + 5000).unwrap();
    told("both copies of its LUKS header are damaged");
    file.write_all_at(b"PLAIN!", 0).unwrap();
    file.write_all_at(b"PLAIN!", 16384).unwrap();
    told("there is no LUKS header: it begins with PLAIN!");
    file.set_len(0).unwrap();
    told("there is no LUKS header");
}

#[test]
fn data_inside_of_the_header_are_refused() {
    let dir = Dir::new();
    let image = dir.volume("image", 4 * MIB, ONE);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    // The offset of the payload, in sectors, as of a header that was detached.
    file.write_all_at(&[0; 4], 104).unwrap();
    let told = refusal(&dir.config(&image));
    assert!(told.contains("says that the data begin at 0: they are in another device"), "{told}");
}

#[test]
fn a_device_that_is_larger_than_the_volume_or_ends_in_a_sector_is_refused() {
    let dir = Dir::new();
    let image = dir.volume("image", 20 * MIB, &[TWO, &["--sector-size=4096"]].concat());
    let with = |size| OpenOptions { size: Some(size), ..OpenOptions::default() };
    let told = refusal_of(&dir.config(&image), &with(4 * MIB + 4096));
    assert!(told.contains("room for 4194304 bytes") && told.contains("by 4096 bytes"), "{told}");
    let told = refusal_of(&dir.config(&image), &with(MIB + 512));
    assert!(told.contains("no multiple of the volume's sectors of 4096 bytes"), "{told}");
    on_engine(async {
        let store = open(&dir.config(&image), &with(MIB)).await.unwrap();
        assert_eq!(store.facts().size, MIB);
    });
}

#[test]
fn a_slot_that_asks_for_4_gib_is_refused_at_once() {
    let dir = Dir::new();
    let argon2 = ["--type=luks2", "--pbkdf=argon2id", "--pbkdf-force-iterations=4"];
    let image = dir.volume("image", 20 * MIB, &[&argon2[..], &["--pbkdf-memory=4096"]].concat());
    rewrite(&image, "\"memory\":4096", "\"memory\":4194304");
    let told = refusal(&dir.config(&image));
    assert!(told.contains("over 4194304 KiB of memory"), "{told}");
    assert!(told.contains("cryptsetup luksConvertKey --pbkdf-memory"), "{told}");
}

/// Replaces a text in both copies of a header, and makes their checksums right.
fn rewrite(image: &Path, from: &str, to: &str) {
    use sha2::Digest as _;
    const COPY: usize = 16 << 10;
    let mut bytes = std::fs::read(image).unwrap();
    for copy in bytes.chunks_mut(COPY).take(2) {
        let text = String::from_utf8(copy[4096..].to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        let text = text.replace(from, to);
        copy[4096..].copy_from_slice(&text.as_bytes()[..COPY - 4096]);
        copy[448..512].fill(0);
        let checksum = sha2::Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&checksum);
    }
    std::fs::write(image, bytes).unwrap();
}

#[test]
fn a_volume_that_is_in_use_is_refused() {
    let dir = Dir::new();
    let image = dir.volume("image", 20 * MIB, TWO);
    on_engine(async {
        let _first = opened(&dir.config(&image)).await;
        let second = open(&dir.config(&image), &OpenOptions::default()).await;
        assert_eq!(second.unwrap_err().class(), ErrorClass::InUse);
    });
}

#[test]
fn reencryption_that_was_begun_is_refused() {
    let dir = Dir::new();
    let image = dir.volume("image", 40 * MIB, TWO);
    let mut begin = Command::new("cryptsetup");
    begin.args(["reencrypt", "--batch-mode", "--init-only", "--resilience=checksum"]);
    begin.args([TWO[1], TWO[2], "--key-file"]).args([&dir.path("key"), &image]);
    cryptsetup(&mut begin);
    let told = refusal(&dir.config(&image));
    assert!(told.contains("`cryptsetup reencrypt --resume-only`"), "{told}");
}
