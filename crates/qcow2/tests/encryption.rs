// SPDX-License-Identifier: Apache-2.0
//! Encrypted images, together with QEMU: each reads what the other wrote, and `qemu-img check` has
//! nothing to say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests' helpers")]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use io_engine::{Backend, Engine, File};
use qcow2::{Error, Image, Options, Parts, Secret};
use sgl::Sgl;

const SIZE: u64 = 4 << 20;
const PASSPHRASE: &str = "correct horse";

struct Dir(tempfile::TempDir);

fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}; install the package qemu-utils"));
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

impl Dir {
    fn new() -> Self {
        let dir = Dir(tempfile::tempdir().unwrap());
        std::fs::write(dir.path("key"), PASSPHRASE).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn secret(&self) -> String {
        format!("secret,id=s,file={}", self.path("key").display())
    }

    fn create(&self, format: &str, options: &str) -> PathBuf {
        let path = self.path("image");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "--object", &self.secret(), "-o"]);
        create.arg(format!("encrypt.format={format},encrypt.key-secret=s,{options}"));
        create.args([&path, &PathBuf::from(SIZE.to_string())]);
        for _ in 0..10 {
            // On a busy machine, "Unable to get accurate CPU usage".
            if create.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
                return path;
            }
        }
        create.stderr(Stdio::piped());
        run(&mut create);
        path
    }

    /// Runs commands of `qemu-io`; each has to work.
    fn qemu_io(&self, path: &Path, format: &str, commands: &[&str]) {
        let mut qemu = Command::new("qemu-io");
        qemu.args(["--object", &self.secret(), "--image-opts"]).arg(format!(
            "driver=qcow2,file.filename={},encrypt.format={format},encrypt.key-secret=s",
            path.display()
        ));
        for command in commands {
            qemu.args(["-c", command]);
        }
        let text = run(&mut qemu);
        assert!(!text.contains("failed") && !text.contains("rror"), "{text}");
    }

    fn check(&self, path: &Path) {
        run(Command::new("qemu-img")
            .args(["check", "--object", &self.secret(), "--image-opts"])
            .arg(format!(
                "driver=qcow2,file.filename={},encrypt.format=luks,encrypt.key-secret=s",
                path.display()
            )));
    }
}

fn file(path: &Path, write: bool) -> File {
    let file = std::fs::OpenOptions::new().read(true).write(write).open(path).unwrap();
    File::new(OwnedFd::from(file))
}

async fn open(
    path: &Path,
    others: [Option<&Path>; 2],
    read_only: bool,
    secret: Option<&str>,
) -> Result<Image<File>, Error> {
    let [data_file, backing] = others;
    let parts = Parts {
        storage: file(path, !read_only),
        data_file: data_file.map(|path| file(path, true)),
        backing: backing.map(|path| file(path, false)),
    };
    let secret = secret.map(|secret| Secret::new(secret.as_bytes().to_vec()));
    Image::open(parts, &Options { read_only, discard: true, secret, ..Options::default() }).await
}

async fn expect(image: &Image<File>, offset: u64, len: usize, byte: u8) {
    let mut bytes = vec![!byte; len];
    image.read(&Sgl::from_slice(&mut bytes), offset).await.unwrap();
    let differs = bytes.iter().position(|there| *there != byte);
    assert_eq!(differs, None, "at {offset}, of {len}: {:?}", differs.map(|at| bytes[at]));
}

async fn write(image: &Image<File>, offset: u64, len: usize, byte: u8) {
    image.write(&Sgl::from_slice(&mut vec![byte; len]), offset).await.unwrap();
}

fn with<F: Future>(future: F) -> F::Output {
    Engine::new(Backend::Auto).unwrap().block_on(future).unwrap()
}

#[test]
fn each_reads_what_the_other_wrote_into_a_luks_image() {
    let luks = "encrypt.iter-time=10";
    for (options, has_data_file, has_backing) in [
        (luks.to_owned(), false, false),
        (
            format!(
                "{luks},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256"
            ),
            false,
            false,
        ),
        (
            format!("{luks},encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1,cluster_size=4k"),
            false,
            false,
        ),
        (format!("{luks},extended_l2=on"), false, true),
        (format!("{luks},cluster_size=512,lazy_refcounts=on"), false, true),
        (format!("{luks},compat=0.10"), false, true),
        (luks.to_owned(), true, false),
    ] {
        let dir = Dir::new();
        let (backing, data_file) = (dir.path("backing"), dir.path("data"));
        std::fs::write(&backing, vec![0xb0; usize::try_from(SIZE).unwrap() - 70_000]).unwrap();
        let mut options = options;
        if has_backing {
            options += &format!(",backing_file={},backing_fmt=raw", backing.display());
        }
        if has_data_file {
            options += &format!(",data_file={}", data_file.display());
        }
        let path = dir.create("luks", &options);
        dir.qemu_io(
            &path,
            "luks",
            &["write -P 1 0 200k", "write -P 2 1M 512", "write -z 300k 64k"],
        );
        let below = if has_backing { 0xb0 } else { 0 };
        let others = [has_data_file.then_some(&*data_file), has_backing.then_some(&*backing)];
        with(async {
            let image = open(&path, others, false, Some(PASSPHRASE)).await.unwrap();
            expect(&image, 0, 200 << 10, 1).await;
            expect(&image, 1000, 77, 1).await;
            expect(&image, 1 << 20, 512, 2).await;
            expect(&image, (1 << 20) + 512, 100_000, below).await;
            expect(&image, 300 << 10, 64 << 10, 0).await;
            // Over what is there, next to it, into nothing, over zeroes.
            write(&image, 4096, 1024, 3).await;
            write(&image, (1 << 20) + 512, 512, 4).await;
            write(&image, (2 << 20) + 70 * 512, 150 << 10, 5).await;
            write(&image, (301 << 10) + 512, 512, 6).await;
            write(&image, SIZE - 512, 512, 7).await;
            image.write_zeroes(128 << 10, 64 << 10, true).await.unwrap();
            image.write_zeroes((2 << 20) + 140 * 512, 512, false).await.unwrap();
            expect(&image, (2 << 20) + 70 * 512, 70 * 512, 5).await;
            expect(&image, 128 << 10, 64 << 10, 0).await;
            image.close().await.unwrap();
        });
        let below = format!("read -P {below} {} 100k", (1 << 20) + 1024);
        let beyond = format!("read -P 7 {} 512", SIZE - 512);
        let mut commands = vec![
            "read -P 1 0 4k",
            "read -P 3 4k 1k",
            "read -P 1 5k 123k",
            "read -P 1 192k 8k",
            "read -P 2 1M 512",
            "read -P 4 1049088 512",
            "read -P 5 2132992 35840",
            "read -P 0 2168832 512",
            "read -P 5 2169344 117248",
            "read -P 0 300k 1k",
            "read -P 6 308736 512",
            "read -P 0 302k 60k",
        ];
        commands.extend([&*below, &*beyond]);
        dir.qemu_io(&path, "luks", &commands);
        dir.check(&path);
    }
}

#[test]
fn an_image_of_the_older_method_is_read_and_not_written() {
    let dir = Dir::new();
    let path = dir.create("aes", "cluster_size=4k");
    dir.qemu_io(&path, "aes", &["write -P 1 0 200k", "write -P 2 1M 512"]);
    with(async {
        let error = open(&path, [None; 2], false, Some(PASSPHRASE)).await.unwrap_err().to_string();
        assert!(error.contains("(AES, method 1) is only for reading"), "{error}");
        let image = open(&path, [None; 2], true, Some(PASSPHRASE)).await.unwrap();
        expect(&image, 0, 200 << 10, 1).await;
        expect(&image, 1 << 20, 512, 2).await;
        expect(&image, 3 << 20, 512, 0).await;
    });
}

#[test]
fn a_passphrase_that_is_wrong_or_missing_or_of_no_use_is_said_and_not_shown() {
    let dir = Dir::new();
    let path = dir.create("luks", "encrypt.iter-time=10");
    let plain = dir.path("plain");
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&plain).arg("1M"));
    with(async {
        for (path, secret, text) in [
            (&path, Some("battery staple"), "the passphrase opens none of its 1 key slots in use"),
            (&path, None, "it is encrypted, and no passphrase was given"),
            (&plain, Some("battery staple"), "it is not encrypted, and a passphrase was given"),
        ] {
            let error = open(path, [None; 2], true, secret).await.unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert!(!format!("{error:?}").contains("battery"));
        }
    });
    let secret = Some(Secret::new(b"battery".to_vec()));
    let shown = format!("{:?}", Options { secret, ..Options::default() });
    assert!(!shown.contains("battery"), "{shown}");
}

#[test]
fn a_luks_header_that_is_elsewhere_than_it_can_be_is_refused() {
    let dir = Dir::new();
    let path = dir.create("luks", "encrypt.iter-time=10");
    let good = std::fs::read(&path).unwrap();
    let extension = [0x05, 0x37, 0xbe, 0x77, 0, 0, 0, 16];
    let at = good.windows(8).position(|bytes| bytes == extension).unwrap() + 8;
    for (offset, len, text) in [
        (
            0u64,
            2_068_480u64,
            "its LUKS header has 2068480 bytes at 0x0; it has to begin at a cluster",
        ),
        (1000, 2_068_480, "its LUKS header has 2068480 bytes at 0x3e8"),
        (u64::MAX << 16, u64::MAX, "its LUKS header has 18446744073709551615 bytes at"),
        (1 << 40, 2_068_480, "there is no LUKS header"),
        (0x50000, 592, "its LUKS header has 592 bytes, and"),
    ] {
        let mut bad = good.clone();
        let offset = if offset == 0x50000 {
            u64::from_be_bytes(good[at..at + 8].try_into().unwrap())
        } else {
            offset
        };
        bad[at..at + 8].copy_from_slice(&offset.to_be_bytes());
        bad[at + 8..at + 16].copy_from_slice(&len.to_be_bytes());
        std::fs::write(&path, &bad).unwrap();
        let error = with(open(&path, [None; 2], true, Some(PASSPHRASE))).unwrap_err().to_string();
        let remedy = "; nothing repairs that: use another copy of the image";
        assert!(error.contains(text) && error.ends_with(remedy), "{error}");
    }
}
