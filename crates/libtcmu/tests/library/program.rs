// SPDX-License-Identifier: Apache-2.0
//! C programs: what they compile with, and how they fare where there is no kernel to serve.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ours, run};

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A directory as the library is installed: library, headers, pkg-config's file.
fn installed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let (lib, include) = (root.join("lib"), root.join("include"));
    std::fs::create_dir_all(lib.join("pkgconfig")).unwrap();
    std::fs::copy(ours(), lib.join("libtcmu.so.2")).unwrap();
    std::os::unix::fs::symlink("libtcmu.so.2", lib.join("libtcmu.so")).unwrap();
    std::os::unix::fs::symlink(crate_file("include"), include).unwrap();
    let pc = std::fs::read_to_string(crate_file("libtcmu.pc.in")).unwrap();
    let pc = pc.replace("@PREFIX@", &root.to_string_lossy());
    let pc = pc.replace("@LIBDIR@", &lib.to_string_lossy());
    std::fs::write(lib.join("pkgconfig/libtcmu.pc"), pc).unwrap();
    dir
}

/// Builds the example as its first comment says; returns the program.
fn consumer(root: &Path) -> PathBuf {
    let program = root.join("consumer");
    let flags = run(Command::new("pkg-config")
        .args(["--cflags", "--libs", "libtcmu"])
        .env("PKG_CONFIG_PATH", root.join("lib/pkgconfig")));
    run(Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-g", "-o"])
        .arg(&program)
        .arg(crate_file("examples/consumer.c"))
        .args(flags.split_whitespace())
        .arg("-lpthread"));
    program
}

#[test]
fn the_structures_of_the_headers_are_laid_out_as_the_interface_is() {
    run(Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
        .arg(format!("-I{}", crate_file("include").display()))
        .arg(crate_file("tests/library/layout.c")));
}

#[test]
fn a_program_that_cannot_reach_the_kernel_is_told_and_loses_no_memory() {
    let root = installed();
    let program = consumer(root.path());
    // As nobody, in a network namespace of its own, it cannot listen to the kernel.
    let mut command = Command::new("unshare");
    command.args(["--user", "--net", "valgrind", "-q", "--error-exitcode=9", "--leak-check=full"]);
    command.args(["--errors-for-leak-kinds=definite"]).arg(program);
    let output = command.env("LD_LIBRARY_PATH", root.path().join("lib")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("libtcmu cannot begin"), "{said}");
    assert!(said.contains("tcmulib_initialize"), "the log does not say why: {said}");
}
