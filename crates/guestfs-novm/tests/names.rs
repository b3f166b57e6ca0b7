// SPDX-License-Identifier: Apache-2.0
//! Names of images: any bytes that the host's filesystem takes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::Host;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What guestfish says of /hello in an image.
#[track_caller]
fn hello(host: &Host, options: &[&str], image: &Path) {
    let mut words: Vec<OsString> = vec!["guestfish".into()];
    words.extend(options.iter().map(OsString::from));
    words.extend(["-a".into(), image.into(), "-m".into(), "/dev/sda".into()]);
    words.extend(["cat".into(), "/hello".into()]);
    let output = host.tool(&words);
    let said = String::from_utf8_lossy(&output.stderr);
    let shown = format!("{options:?} {}: {said}", image.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from the host\n\n", "{shown}");
}

#[test]
fn an_image_is_found_whatever_bytes_are_in_its_name_and_in_those_of_its_backing_files() {
    let host = Host::new("instant");
    let dir = host.path("images").join(OsStr::from_bytes(b"d\xfe"));
    fs::create_dir_all(&dir).unwrap();
    let base = dir.join(OsStr::from_bytes(b"base, \xff\xc3.img"));
    fs::rename(host.ext4("base.img"), &base).unwrap();
    let overlay = |name: &[u8], backing: &Path| -> PathBuf {
        let path = dir.join(OsStr::from_bytes(name));
        let mut tool = Command::new("/usr/bin/qemu-img");
        tool.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(backing).arg(&path);
        let status = tool.status();
        let status = status.unwrap_or_else(|e| panic!("qemu-img: {e} (Debian package qemu-utils)"));
        assert!(status.success());
        path
    };
    let relative = overlay(b"relative-\x80.qcow2", Path::new(base.file_name().unwrap()));
    let absolute = overlay(b"absolute.qcow2", &base);
    for image in [&base, &relative, &absolute] {
        hello(&host, &["--ro"], image);
        hello(&host, &[], image);
    }
    hello(&host, &["--format=raw"], &base);
    hello(&host, &["--ro", "--format=raw"], &base);
    // Made anew by this program, for what is in a compressed file.
    let packed = dir.join(OsStr::from_bytes(b"\xff.img.gz"));
    let tool = Command::new("gzip").arg("-c").arg(&base).output().unwrap();
    fs::write(&packed, tool.stdout).unwrap();
    hello(&host, &["--ro"], &packed);
}
