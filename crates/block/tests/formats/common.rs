// SPDX-License-Identifier: Apache-2.0
//! Tools of these tests.
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;

use block::{AnyStore, Error, OpenOptions, Provisioning, Store, open};
use io_engine::{Backend, Engine};
use sgl::Sgl;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// Runs a program, which has to succeed; where it is not installed the test fails and says what to
/// do.
pub(crate) fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let package = match program {
        "qemu-img" => "qemu-utils",
        "xz" => "xz-utils",
        other => other,
    };
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; install the package {package}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {errors}", args.join(" "));
    output.stdout
}

pub(crate) fn qemu_img(args: &[&str]) -> String {
    String::from_utf8(run("qemu-img", args)).unwrap()
}

/// A directory for a test's images.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Dir(tempfile::Builder::new().prefix("formats").tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A raw image with this content.
    pub(crate) fn raw(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `qemu-img convert -f raw -O FORMAT -o OPTIONS` of a raw image.
    pub(crate) fn convert(&self, raw: &Path, format: &str, options: &str) -> PathBuf {
        let path = self.path(&format!("image.{format}"));
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend([raw.to_str().unwrap(), path.to_str().unwrap()]);
        qemu_img(&args);
        path
    }
}

/// Runs a test's future.
pub(crate) fn on_engine<F: Future>(future: F) -> F::Output {
    Engine::new(Backend::Auto).unwrap().block_on(future).unwrap()
}

pub(crate) async fn try_open(subtype: &str, path: &Path) -> Result<AnyStore, Error> {
    open(&format!("{subtype}/{}", path.display()), &OpenOptions::default()).await
}

pub(crate) async fn open_image(subtype: &str, path: &Path) -> AnyStore {
    try_open(subtype, path).await.unwrap()
}

/// Why an image is refused.
pub(crate) fn refusal(subtype: &str, path: &Path) -> String {
    on_engine(try_open(subtype, path)).err().unwrap().to_string()
}

pub(crate) async fn read(store: &AnyStore, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
    // Not zero, so that what is not filled is seen.
    let mut buf = vec![0xa5; len];
    store.read(&Sgl::from_slice(&mut buf), offset).await?;
    Ok(buf)
}

/// Reads all of a store, and pieces of it in a random order, and compares with what it has to be.
pub(crate) async fn compare(store: &AnyStore, content: &[u8], seed: u64, what: &str) {
    let facts = store.facts();
    assert_eq!(facts.size, content.len() as u64, "{what}: size");
    assert!(facts.read_only, "{what}");
    let all = read(store, 0, content.len()).await.unwrap();
    if let Some(at) = (0..content.len()).find(|at| all[*at] != content[*at]) {
        panic!("{what}: the byte at {at} is {:#x} and has to be {:#x}", all[at], content[at]);
    }
    let mut random = Random(seed);
    for _ in 0..40 {
        let at = random.below(facts.size);
        let len = (1 + random.below(300 * KIB)).min(facts.size - at);
        let (at, len) = (usize::try_from(at).unwrap(), usize::try_from(len).unwrap());
        let part = read(store, at as u64, len).await.unwrap();
        assert!(part == content[at..at + len], "{what}: {len} bytes at {at}");
    }
}

/// The ranges of a store that take up space.
pub(crate) async fn mapped(store: &AnyStore) -> Vec<(u64, u64)> {
    let size = store.facts().size;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let (kind, n) = store.provisioning(at, size - at).await.unwrap();
        assert!(n > 0 && n <= size - at, "{n} of {}", size - at);
        if kind == Provisioning::Mapped {
            match ranges.last_mut() {
                Some((_, end)) if *end == at => *end = at + n,
                _ => ranges.push((at, at + n)),
            }
        }
        at += n;
    }
    ranges
}

/// A generator of test data (SplitMix64): the same seed, the same test.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The content of a disk: noise, text and zeroes, in areas of different lengths.
pub(crate) fn disk(size: u64, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut content = vec![0; usize::try_from(size).unwrap()];
    let mut at = 0;
    while at < content.len() {
        let len = usize::try_from(512 * (1 + random.below(700))).unwrap().min(content.len() - at);
        let area = &mut content[at..at + len];
        match random.below(4) {
            0 => area.iter_mut().for_each(|byte| *byte = u8::try_from(random.below(256)).unwrap()),
            1 | 2 => {
                let text = format!("{at} and some text that can be compressed ");
                area.iter_mut().zip(text.bytes().cycle()).for_each(|(byte, text)| *byte = text);
            }
            _ => {}
        }
        at += len;
    }
    content
}
