// SPDX-License-Identifier: Apache-2.0
//! With `cryptsetup`: its headers open, with each of their slots.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use luks::Copies;

use crate::common::{unlock, volume};

const PASSPHRASE: &[u8] = b"correct horse\nbattery\0staple\n";
/// What makes a derivation fast.
const PBKDF2: [&str; 2] = ["--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"];

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Dir(tempfile::tempdir().unwrap());
        std::fs::write(dir.path("key"), PASSPHRASE).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A volume of 20 MiB.
    fn format(&self, options: &[&str]) -> PathBuf {
        let path = self.path("image");
        File::create(&path).unwrap().set_len(20 << 20).unwrap();
        cryptsetup(&["luksFormat", "--batch-mode", "--type=luks2"], |command| {
            command.args(options).arg("--key-file").args([&self.path("key"), &path])
        });
        path
    }
}

fn cryptsetup(args: &[&str], more: impl Fn(&mut Command) -> &mut Command) -> String {
    let mut command = Command::new("cryptsetup");
    let output = more(command.args(args)).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("cryptsetup: {e}; install cryptsetup-bin"));
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn head(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn headers_of_cryptsetup_open_with_every_derivation_cipher_and_sector() {
    let dir = Dir::new();
    let memory = ["--pbkdf-force-iterations=4", "--pbkdf-memory=4096"];
    let argon2id = ["--pbkdf=argon2id", memory[0], memory[1], "--pbkdf-parallel=4"];
    let argon2i = ["--pbkdf=argon2i", memory[0], memory[1], "--pbkdf-parallel=1"];
    for (derivation, cipher, bits, more) in [
        (&argon2id[..], "aes-xts-plain64", 512, "--sector-size=4096"),
        (&argon2i[..], "aes-xts-plain64", 256, "--sector-size=512"),
        (&PBKDF2[..], "aes-cbc-essiv:sha256", 256, "--hash=sha512"),
        (&PBKDF2[..], "aes-xts-plain64", 512, "--hash=sha1"),
        (&PBKDF2[..], "aes-cbc-plain64", 128, "--sector-size=2048"),
        (&PBKDF2[..], "aes-xts-plain64", 512, "--luks2-metadata-size=64k"),
    ] {
        let mut options = derivation.to_vec();
        let (name, bits) = (format!("--cipher={cipher}"), format!("--key-size={bits}"));
        options.extend([name.as_str(), bits.as_str(), more]);
        let path = dir.format(&options);
        let bytes = head(&path);
        let found = volume(&bytes).unwrap();
        assert_eq!(found.cipher().to_string(), cipher);
        assert_eq!(found.copies(), Copies::All);
        let uuid = cryptsetup(&["luksUUID"], |command| command.arg(&path));
        assert_eq!(found.uuid(), uuid.trim());
        let dump = cryptsetup(&["luksDump"], |command| command.arg(&path));
        let payload = found.payload();
        for told in [
            format!("sector: {} [bytes]", payload.sector),
            format!("offset: {} [bytes]", payload.offset),
        ] {
            assert!(dump.contains(&told), "{told}: {dump}");
        }
        assert_eq!(unlock(&bytes, PASSPHRASE).unwrap().sector(), payload.sector);
        let wrong = unlock(&bytes, b"wrong").unwrap_err().to_string();
        assert!(wrong.starts_with("the passphrase opens none of its 1 key slots"), "{wrong}");
    }
}

#[test]
fn each_slot_opens_with_its_own_passphrase_and_one_that_was_removed_does_not() {
    let dir = Dir::new();
    let path = dir.format(&PBKDF2);
    std::fs::write(dir.path("second"), b"second").unwrap();
    cryptsetup(&["luksAddKey", "--batch-mode", "--key-slot=5", PBKDF2[0], PBKDF2[1]], |command| {
        command.arg("--key-file").args([dir.path("key"), path.clone(), dir.path("second")])
    });
    let key = |bytes: &[u8], passphrase: &[u8]| {
        let mut data = [7; 512];
        unlock(bytes, passphrase).unwrap().encrypt(0, &mut data);
        data
    };
    let bytes = head(&path);
    assert_eq!(volume(&bytes).unwrap().areas().len(), 2);
    assert_eq!(key(&bytes, PASSPHRASE), key(&bytes, b"second"));
    // A slot may be left out of those that are tried, or come first.
    let priority = |slot: &str, priority: &str| {
        cryptsetup(&["config", "--key-slot", slot, "--priority", priority], |command| {
            command.arg(&path)
        });
        head(&path)
    };
    let first = volume(&bytes).unwrap().areas();
    let preferred = volume(&priority("5", "prefer")).unwrap().areas();
    assert_eq!(first.iter().rev().cloned().collect::<Vec<_>>(), preferred);
    let text = unlock(&priority("0", "ignore"), PASSPHRASE).unwrap_err().to_string();
    assert!(text.contains("not tried: key slot 0 has the priority \"ignore\""), "{text}");
    cryptsetup(&["luksKillSlot", "--batch-mode"], |command| command.arg(&path).arg("5"));
    priority("0", "normal");
    let bytes = head(&path);
    assert!(unlock(&bytes, b"second").is_err());
    assert!(unlock(&bytes, PASSPHRASE).is_ok());
}

#[test]
fn what_cryptsetup_repairs_is_what_was_read_before() {
    let dir = Dir::new();
    let path = dir.format(&PBKDF2);
    let whole = head(&path);
    let mut bytes = whole.clone();
    bytes[..4096].fill(0);
    assert_eq!(volume(&bytes).unwrap().copies(), Copies::NoPrimary);
    assert!(unlock(&bytes, PASSPHRASE).is_ok());
    std::fs::write(&path, &bytes).unwrap();
    cryptsetup(&["repair", "--batch-mode"], |command| command.arg(&path));
    let repaired = head(&path);
    assert_eq!(volume(&repaired).unwrap().copies(), Copies::All);
    assert_eq!(volume(&repaired).unwrap().uuid(), volume(&whole).unwrap().uuid());
    assert!(unlock(&repaired, PASSPHRASE).is_ok());
}
