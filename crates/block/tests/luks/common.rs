// SPDX-License-Identifier: Apache-2.0
//! Tools of these tests.
use std::fs::{File, Permissions};
use std::future::{Future, poll_fn};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::task::Poll;

use block::{AnyStore, Error, OpenOptions, Store, open};
use io_engine::{Backend, Engine};
use sgl::Sgl;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const PASSPHRASE: &str = "correct horse";
/// What makes a derivation fast.
pub(crate) const PBKDF2: [&str; 2] = ["--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"];
/// A new volume of version 1, and of version 2.
pub(crate) const ONE: &[&str] = &["--type=luks1", "--pbkdf-force-iterations=1000"];
pub(crate) const TWO: &[&str] = &["--type=luks2", PBKDF2[0], PBKDF2[1]];

/// A directory with the file `key`, which has the passphrase.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        let dir = Dir(tempfile::Builder::new().prefix("luks").tempdir().unwrap());
        dir.secret("key", PASSPHRASE);
        dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file that only its owner may read.
    pub(crate) fn secret(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A file of zeroes.
    pub(crate) fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    /// Makes a volume of a file.
    pub(crate) fn format(&self, path: &Path, options: &[&str]) {
        cryptsetup(
            Command::new("cryptsetup").args(["luksFormat", "--batch-mode"]).args(options).args([
                Path::new("--key-file"),
                &self.path("key"),
                path,
            ]),
        );
    }

    /// A file of `size` bytes that is a volume.
    pub(crate) fn volume(&self, name: &str, size: u64, options: &[&str]) -> PathBuf {
        let path = self.file(name, size);
        self.format(&path, options);
        path
    }

    /// The configuration string of the volume in a store.
    pub(crate) fn on(&self, below: &str) -> String {
        format!("luks/{below};secret-file={}", self.path("key").display())
    }

    /// That of a volume in a file.
    pub(crate) fn config(&self, path: &Path) -> String {
        self.on(path.to_str().unwrap())
    }

    /// The option of QEMU's programs that has the passphrase, as the object `s`.
    pub(crate) fn object(&self) -> String {
        format!("secret,id=s,file={}", self.path("key").display())
    }

    /// The content of a volume of version 1, as QEMU decrypts it.
    pub(crate) fn decrypted_by_qemu(&self, path: &Path) -> Vec<u8> {
        let raw = self.path("decrypted");
        let opened = format!("driver=luks,key-secret=s,file.filename={}", path.display());
        qemu(
            Command::new("qemu-img")
                .args(["convert", "--object", &self.object(), "--image-opts", "-O", "raw", &opened])
                .arg(&raw),
        );
        std::fs::read(raw).unwrap()
    }
}

fn run(command: &mut Command, package: &str) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}; install {package}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success() && !text.contains("failed"), "{command:?}: {text}");
    text
}

pub(crate) fn cryptsetup(command: &mut Command) -> String {
    run(command, "cryptsetup-bin")
}

pub(crate) fn qemu(command: &mut Command) -> String {
    run(command, "qemu-utils")
}

/// Runs a test's future.
pub(crate) fn on_engine<F: Future>(future: F) -> F::Output {
    Engine::new(Backend::Auto).unwrap().block_on(future).unwrap()
}

/// What the check of a configuration string says.
pub(crate) fn check(config: &str) -> Result<(), Error> {
    block::check(config, &OpenOptions::default())
}

pub(crate) async fn opened(config: &str) -> AnyStore {
    open(config, &OpenOptions::default()).await.unwrap()
}

pub(crate) async fn read(store: &impl Store, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
    // Not zero, so that what is not filled is seen.
    let mut buf = vec![0xa5; len];
    store.read(&Sgl::from_slice(&mut buf), offset).await?;
    Ok(buf)
}

pub(crate) async fn write(store: &impl Store, offset: u64, data: &[u8]) -> Result<(), Error> {
    let mut data = data.to_vec();
    store.write(&Sgl::from_slice(&mut data), offset, false).await
}

/// Runs operations side by side.
pub(crate) async fn all(
    operations: impl Iterator<Item = impl Future<Output = Result<(), Error>>>,
) -> Result<(), Error> {
    let mut left: Vec<_> = operations.map(Box::pin).collect();
    poll_fn(|cx| {
        let mut result = Ok(());
        left.retain_mut(|operation| match operation.as_mut().poll(cx) {
            Poll::Ready(done) => {
                result = std::mem::replace(&mut result, Ok(())).and(done);
                false
            }
            Poll::Pending => true,
        });
        match (result, left.is_empty()) {
            (Ok(()), false) => Poll::Pending,
            (result, _) => Poll::Ready(result),
        }
    })
    .await
}

/// A generator of test data (SplitMix64): the same seed, the same test.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.next().to_ne_bytes());
        words.take(len).collect()
    }

    /// A range inside `size` bytes, in units of `unit`.
    pub(crate) fn range(&mut self, size: u64, unit: u64) -> (u64, usize) {
        let most = if self.next().is_multiple_of(8) { 3 * MIB } else { 20 << 10 };
        let len = (1 + self.next() % (most.min(size) / unit)) * unit;
        (self.next() % ((size - len) / unit + 1) * unit, len as usize)
    }
}
