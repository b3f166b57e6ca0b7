// SPDX-License-Identifier: Apache-2.0
//! This test uses `unsafe` to call C functions of two libraries.
//!
//! The shared library as C programs see it, beside Debian's, which is fetched with apt-get and
//! unpacked, not installed: its symbols, its headers, a program, what its functions answer.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]
#![allow(clippy::cast_possible_truncation, reason = "what is wanted are bytes")]

mod functions;
mod program;
mod symbols;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The library as cargo has built it.
fn ours() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.with_file_name("liblibtcmu.so");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

/// Debian's library.
static DEBIANS: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libtcmu2");
    if let Some(library) = find(&dir) {
        return library;
    }
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    run(Command::new("apt-get").args(["download", "-q", "libtcmu2"]).current_dir(&dir));
    let mut entries = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path());
    let package = entries.find(|path| path.extension().is_some_and(|e| e == "deb"));
    let package = package.expect("apt-get download libtcmu2 has left no package");
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&dir));
    find(&dir).expect("the package libtcmu2 has no libtcmu.so.2")
});

/// `usr/lib/TRIPLE/libtcmu.so.2` in a directory.
fn find(dir: &Path) -> Option<PathBuf> {
    let triples = std::fs::read_dir(dir.join("usr/lib")).ok()?.flatten();
    triples.map(|triple| triple.path().join("libtcmu.so.2")).find(|path| path.exists())
}

/// Runs a command to its end; returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
