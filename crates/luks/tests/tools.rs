// SPDX-License-Identifier: Apache-2.0
//! With `cryptsetup` and `qemu-img`: their headers open, and ours open with them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};

use luks::{Cipher, Digest, Format, Header, Iv, Mode, SECTOR, Secret, SectorCipher};

const PASSPHRASE: &[u8] = b"correct horse";

fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    for left in (0..20).rev() {
        let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| {
            panic!("{name}: {e}; install the packages cryptsetup-bin and qemu-utils")
        });
        let text = String::from_utf8_lossy(&output.stderr);
        // qemu-img measures how fast it is, and gives up on a busy machine.
        if left > 0 && text.contains("Unable to get accurate CPU usage") {
            continue;
        }
        assert!(output.status.success(), "{command:?}: {text}");
        return String::from_utf8_lossy(&output.stdout).into_owned();
    }
    unreachable!("the last attempt returns")
}

fn key_file(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("key");
    std::fs::write(&path, PASSPHRASE).unwrap();
    path
}

fn open(path: &Path) -> (Header, SectorCipher, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let header = Header::parse(&bytes).unwrap();
    let area = &bytes[..header.area_len()];
    let wrong = header.unlock(area, &Secret::new(b"wrong".to_vec())).unwrap_err();
    let text = "the passphrase opens none of its 1 key slots in use; give the one that it was \
                encrypted with";
    assert_eq!(wrong.to_string(), text);
    let cipher = header.unlock(area, &Secret::new(PASSPHRASE.to_vec())).unwrap();
    (header, cipher, bytes)
}

#[test]
fn headers_of_cryptsetup_open_with_every_cipher_and_hash() {
    let dir = tempfile::tempdir().unwrap();
    let key = key_file(dir.path());
    for (mode, bits, hash) in [
        ("xts-plain64", 512, "sha256"),
        ("xts-plain64", 256, "sha1"),
        ("xts-plain", 512, "sha512"),
        ("cbc-essiv:sha256", 256, "ripemd160"),
        ("cbc-plain64", 192, "sha256"),
        ("cbc-plain", 128, "sha512"),
        ("xts-plain64", 256, "sha224"),
        ("xts-plain64", 256, "sha384"),
        ("xts-plain64", 256, "sha512-224"),
        ("xts-plain64", 256, "sha512-256"),
        ("xts-plain64", 256, "sha3-224"),
        ("xts-plain64", 256, "sha3-256"),
        ("xts-plain64", 256, "sha3-384"),
        ("xts-plain64", 256, "sha3-512"),
        ("xts-plain64", 256, "blake2b-512"),
        ("xts-plain64", 256, "blake2s-256"),
        ("xts-plain64", 256, "whirlpool"),
        ("xts-plain64", 256, "sm3"),
    ] {
        let path = dir.path().join("image");
        std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
        run(Command::new("cryptsetup")
            .args(["luksFormat", "--batch-mode", "--type=luks1", "--pbkdf-force-iterations=1000"])
            .args([&format!("--cipher=aes-{mode}"), &format!("--key-size={bits}")])
            .args([&format!("--hash={hash}"), "--key-file"])
            .args([&key, &path]));
        let (header, _, _) = open(&path);
        assert_eq!(header.cipher().mode_name(), mode);
        let uuid = run(Command::new("cryptsetup").arg("luksUUID").arg(&path));
        assert_eq!(header.uuid(), uuid.trim());
    }
}

#[test]
fn what_qemu_encrypted_is_decrypted() {
    let dir = tempfile::tempdir().unwrap();
    let key = key_file(dir.path());
    let secret = format!("secret,id=s,file={}", key.display());
    let plain: Vec<u8> = (0..64 * SECTOR).map(|i| (i / 7 % 256) as u8).collect();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, &plain).unwrap();
    for (alg, mode, ivgen, hash) in [
        ("aes-256", "xts", "ivgen-alg=plain64", "sha256"),
        ("aes-128", "xts", "ivgen-alg=plain", "sha1"),
        ("aes-256", "cbc", "ivgen-alg=essiv,ivgen-hash-alg=sha256", "sha512"),
        ("serpent-256", "xts", "ivgen-alg=plain64", "sha256"),
        ("serpent-128", "cbc", "ivgen-alg=plain64", "sha256"),
        ("twofish-256", "xts", "ivgen-alg=plain64", "sha256"),
        ("twofish-256", "cbc", "ivgen-alg=essiv,ivgen-hash-alg=sha256", "sha256"),
    ] {
        let path = dir.path().join("image");
        run(Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "luks", "--object", &secret, "-o"])
            .arg(format!(
                "key-secret=s,cipher-alg={alg},cipher-mode={mode},{ivgen},hash-alg={hash},\
                 iter-time=10"
            ))
            .args([&raw, &path]));
        let (header, cipher, bytes) = open(&path);
        let mut data = bytes[usize::try_from(header.payload_offset()).unwrap()..].to_vec();
        cipher.decrypt(0, &mut data);
        assert!(data == plain, "{alg} {mode} {ivgen} {hash}");
        cipher.encrypt(0, &mut data);
        assert!(data == bytes[usize::try_from(header.payload_offset()).unwrap()..]);
    }
}

#[test]
fn cryptsetup_and_qemu_open_headers_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let key = key_file(dir.path());
    let plain: Vec<u8> = (0..64 * SECTOR).map(|i| (i / 5 % 256) as u8).collect();
    for (mode, iv, key_len, digest) in [
        (Mode::Xts, Iv::Plain64, 64, Digest::Sha256),
        (Mode::Xts, Iv::Plain64, 32, Digest::Sha1),
        (Mode::Cbc, Iv::EssivSha256, 32, Digest::Sha512),
        (Mode::Cbc, Iv::Plain64, 24, Digest::Ripemd160),
    ] {
        let options = Format {
            cipher: Cipher { mode, iv, ..Cipher::AES_XTS },
            key_len,
            digest,
            iterations: Some(1000),
        };
        let (mut bytes, cipher) =
            luks::format(&options, &Secret::new(PASSPHRASE.to_vec())).unwrap();
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.payload_offset(), bytes.len() as u64);
        let mut data = plain.clone();
        cipher.encrypt(0, &mut data);
        bytes.extend_from_slice(&data);
        let path = dir.path().join("image");
        std::fs::write(&path, &bytes).unwrap();
        open(&path);
        run(Command::new("cryptsetup")
            .args(["luksOpen", "--test-passphrase", "--key-file"])
            .args([&key, &path]));
        if key_len == 24 {
            // QEMU 7.2 aborts: the key material is no multiple of a sector.
            continue;
        }
        let raw = dir.path().join("raw");
        run(Command::new("qemu-img")
            .args(["convert", "--image-opts", "-O", "raw", "--object"])
            .arg(format!("secret,id=s,file={}", key.display()))
            .arg(format!("driver=luks,key-secret=s,file.filename={}", path.display()))
            .arg(&raw));
        assert!(std::fs::read(&raw).unwrap() == plain, "{options:?}");
    }
}

#[test]
fn a_slot_added_later_opens_as_well_and_a_removed_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let key = key_file(dir.path());
    let options = Format { iterations: Some(1000), ..Format::default() };
    let (bytes, _) = luks::format(&options, &Secret::new(b"first".to_vec())).unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, &bytes).unwrap();
    let first = dir.path().join("first");
    std::fs::write(&first, b"first").unwrap();
    run(Command::new("cryptsetup")
        .args(["luksAddKey", "--batch-mode", "--pbkdf-force-iterations=1000", "--key-file"])
        .args([&first, &path, &key]));
    run(Command::new("cryptsetup").args(["luksRemoveKey", "--batch-mode"]).args([&path, &first]));
    open(&path);
    let bytes = std::fs::read(&path).unwrap();
    let header = Header::parse(&bytes).unwrap();
    assert!(header.unlock(&bytes, &Secret::new(b"first".to_vec())).is_err());
}
