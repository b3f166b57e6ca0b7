// SPDX-License-Identifier: Apache-2.0
//! Tools of these tests.
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use block::{AnyStore, Error, OpenOptions, Store, open};
use io_engine::{Backend, Engine};
use sgl::Sgl;

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;

/// Runs a program of QEMU's; where it is not installed the test fails and says what to do.
fn run(program: &str, args: &[&str]) -> Output {
    match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(e) => panic!("{program}: {e}; install the package qemu-utils"),
    }
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).join("")
}

/// `qemu-img ARGS`, which has to succeed.
pub(crate) fn qemu_img(args: &[&str]) -> String {
    let output = run("qemu-img", args);
    assert!(output.status.success(), "qemu-img {}: {}", args.join(" "), text(&output));
    text(&output)
}

/// Commands for qemu-io on a qcow2 image, which have to succeed.
pub(crate) fn qemu_io(image: &Path, commands: &[&str]) -> String {
    qemu_io_on("qcow2", image, commands)
}

/// As [`qemu_io`], on an image of any format.
pub(crate) fn qemu_io_on(format: &str, image: &Path, commands: &[&str]) -> String {
    let mut args = vec!["-f", format];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(image.to_str().unwrap());
    let output = run("qemu-io", &args);
    let text = text(&output);
    assert!(output.status.success() && !text.contains("failed"), "qemu-io {args:?}: {text}");
    text
}

/// What the check of a configuration string says.
pub(crate) fn check_config(config: &str) -> Result<(), Error> {
    block::check(config, &OpenOptions::default())
}

/// What `qemu-img check` found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Clean,
    Leaks,
}

/// Checks an image, which has to be without errors. Leaked clusters are no errors.
pub(crate) fn check(image: &Path) -> Check {
    // The kernel lets go of the files of a process that was killed a little after its end.
    for _ in 0..100 {
        let output = run("qemu-img", &["check", "-f", "qcow2", image.to_str().unwrap()]);
        match output.status.code() {
            Some(0) => return Check::Clean,
            Some(3) => return Check::Leaks,
            _ if text(&output).contains("lock") => {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            _ => panic!("{}: {}", image.display(), text(&output)),
        }
    }
    panic!("{} stays locked", image.display());
}

/// The image as QEMU reads it.
pub(crate) fn content(image: &Path) -> Vec<u8> {
    let raw = image.with_extension("content");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", &path(image), &path(&raw)]);
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::remove_file(raw).unwrap();
    bytes
}

/// A directory for a test's images.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Dir(tempfile::Builder::new().prefix("qcow").tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `qemu-img create -f qcow2 OPTIONS NAME SIZE`.
    pub(crate) fn create(&self, name: &str, options: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        let mut args = vec!["create", "-q", "-f", "qcow2"];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        let size = size.to_string();
        args.extend([path.to_str().unwrap(), &size]);
        qemu_img(&args);
        path
    }
}

/// The configuration string of an image.
pub(crate) fn config(image: &Path) -> String {
    format!("qcow/{}", image.display())
}

pub(crate) async fn try_open_image(image: &Path) -> Result<AnyStore, Error> {
    open(&config(image), &OpenOptions::default()).await
}

pub(crate) async fn open_image(image: &Path) -> AnyStore {
    try_open_image(image).await.unwrap()
}

/// Runs a test's future with one backend.
pub(crate) fn with<F: Future>(backend: Backend, future: F) -> F::Output {
    Engine::new(backend).unwrap().block_on(future).unwrap()
}

/// Runs a test's future.
pub(crate) fn on_engine<F: Future>(future: F) -> F::Output {
    with(Backend::Auto, future)
}

pub(crate) async fn read(store: &AnyStore, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
    // Not zero, so that what is not filled is seen.
    let mut buf = vec![0xa5; len];
    store.read(&Sgl::from_slice(&mut buf), offset).await?;
    Ok(buf)
}

pub(crate) async fn write(store: &AnyStore, offset: u64, data: &[u8]) -> Result<(), Error> {
    let mut data = data.to_vec();
    store.write(&Sgl::from_slice(&mut data), offset, false).await
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

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Bytes in which each 512 differ from all others.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for block in bytes.chunks_mut(512) {
            let value = (self.next() | 1).to_ne_bytes();
            for (byte, value) in block.iter_mut().zip(value.iter().cycle()) {
                *byte = *value;
            }
        }
        bytes
    }

    /// A range inside `size` bytes, in units of 512 bytes; often small, sometimes up to `most`.
    pub(crate) fn range(&mut self, size: u64, most: u64) -> (u64, u64) {
        let longest = if self.below(4) == 0 { most } else { 16 * KIB };
        let len = (1 + self.below(longest / 512)) * 512;
        let len = len.min(size);
        (self.below((size - len) / 512 + 1) * 512, len)
    }
}
