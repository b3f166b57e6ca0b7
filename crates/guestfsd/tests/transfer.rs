// SPDX-License-Identifier: Apache-2.0
//! Copies between files and devices, base64, compression and attributes. Needs root, loop devices, gzip, bzip2,
//! xz, lzop and zstd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice, run};
use guest_error::Errno;
use guestfs_api::options::{
    CompressOut, CopyAttributes, CopyDeviceToFile, CopyFileToDevice, CopyFileToFile,
};
use std::process::Command;

fn guest() -> (LoopDevice, Daemon) {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    (image, d)
}

fn read(d: &mut Daemon, path: &str) -> Vec<u8> {
    let mut content = Vec::new();
    d.client.download(path, &mut content).unwrap();
    content
}

#[test]
fn parts_of_files_are_copied_where_they_are_wanted() {
    let (_image, mut d) = guest();
    d.client.internal_write("/src", b"0123456789").unwrap();
    let part = CopyFileToFile {
        srcoffset: Some(2),
        destoffset: Some(3),
        size: Some(4),
        ..Default::default()
    };
    d.client.copy_file_to_file("/src", "/dest", &part).unwrap();
    assert_eq!(read(&mut d, "/dest"), b"\0\0\x002345");
    let append = CopyFileToFile { append: Some(true), ..Default::default() };
    d.client.copy_file_to_file("/src", "/dest", &append).unwrap();
    assert_eq!(read(&mut d, "/dest"), b"\0\0\x0023450123456789");
    // To itself: it neither loses what it has nor grows forever.
    d.client.copy_file_to_file("/src", "/src", &append).unwrap();
    assert_eq!(read(&mut d, "/src"), b"01234567890123456789");
    let within = CopyFileToFile { destoffset: Some(1), size: Some(3), ..Default::default() };
    d.client.copy_file_to_file("/src", "/src", &within).unwrap();
    assert_eq!(read(&mut d, "/src"), b"00124567890123456789");
    d.client.dd("/src", "/whole").unwrap();
    assert_eq!(read(&mut d, "/whole"), b"00124567890123456789");
    d.client.copy_size("/src", "/whole", 3).unwrap();
    assert_eq!(read(&mut d, "/whole"), b"001");
}

#[test]
fn a_copy_that_fails_removes_only_what_it_made() {
    let (_image, mut d) = guest();
    d.client.internal_write("/src", b"0123456789").unwrap();
    let too_long = CopyFileToFile { size: Some(11), append: Some(true), ..Default::default() };
    let e = d.client.copy_file_to_file("/src", "/new", &too_long).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    assert!(e.to_string().contains("src: /src"), "{e}");
    assert!(!d.client.exists("/new").unwrap());
    d.client.internal_write("/old", b"old").unwrap();
    d.client.copy_file_to_file("/src", "/old", &too_long).unwrap_err();
    assert_eq!(read(&mut d, "/old"), b"old0123456789");
    d.client.mkfifo(0o644, "/fifo").unwrap();
    d.client.copy_file_to_file("/fifo", "/new", &CopyFileToFile::default()).unwrap();
    assert_eq!(d.client.filesize("/new").unwrap(), 0);
    assert!(d.client.copy_file_to_file("/src", "/fifo", &CopyFileToFile::default()).is_err());
}

#[test]
fn a_sparse_copy_is_as_long_as_its_source_and_takes_less() {
    let (_image, mut d) = guest();
    d.client.touch("/src").unwrap();
    d.client.truncate_size("/src", 10 << 20).unwrap();
    d.client.pwrite("/src", b"middle", 5 << 20).unwrap();
    let sparse = CopyFileToFile { sparse: Some(true), ..Default::default() };
    d.client.copy_file_to_file("/src", "/dest", &sparse).unwrap();
    let stat = d.client.lstatns("/dest").unwrap();
    assert_eq!(stat.st_size, 10 << 20);
    assert!(stat.st_blocks < 64, "{}", stat.st_blocks);
    assert_eq!(d.client.pread("/dest", 6, 5 << 20).unwrap(), b"middle");
}

#[test]
fn devices_are_copied_up_to_their_ends() {
    let (_image, mut d) = guest();
    let disk = LoopDevice::with_filesystem(&["true"], 1);
    d.client.internal_write("/src", b"0123456789").unwrap();
    let end = |offset| CopyFileToDevice { destoffset: Some(offset), ..Default::default() };
    let device = disk.name();
    d.client.copy_file_to_device("/src", device, &end((1 << 20) - 10)).unwrap();
    let e = d.client.copy_file_to_device("/src", device, &end((1 << 20) - 9)).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOSPC));
    let e = d.client.copy_file_to_device("/src", device, &end((1 << 20) + 1)).unwrap_err();
    assert!(e.to_string().contains("destoffset"), "{e}");
    let append = CopyFileToDevice { append: Some(true), ..Default::default() };
    assert!(d.client.copy_file_to_device("/src", device, &append).is_err());
    let part = CopyDeviceToFile { srcoffset: Some((1 << 20) - 8), ..Default::default() };
    d.client.copy_device_to_file(device, "/end", &part).unwrap();
    assert_eq!(read(&mut d, "/end"), b"12345678");
}

#[test]
fn base64_goes_both_ways() {
    let (_image, mut d) = guest();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    d.client.upload(&mut &bytes[..], "/bytes").unwrap();
    let mut text = Vec::new();
    d.client.base64_out("/bytes", &mut text).unwrap();
    assert!(text.split(|&b| b == b'\n').all(|line| line.len() <= 76));
    d.client.base64_in(&mut &text[..], "/back").unwrap();
    assert_eq!(read(&mut d, "/back"), bytes);
    for bad in [&b"AAA"[..], b"A*AA", b"AAAA===="] {
        let e = d.client.base64_in(&mut &*bad, "/bad").unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL));
        d.client.ping_daemon().unwrap();
    }
}

#[test]
fn files_come_out_compressed_at_the_level_that_is_wanted() {
    let (_image, mut d) = guest();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    d.client.upload(&mut &bytes[..], "/bytes").unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (program, level) in
        [("gzip", 1), ("gzip", -1), ("bzip2", 9), ("xz", 0), ("lzop", 1), ("zstd", 3)]
    {
        let mut out = Vec::new();
        let options = CompressOut { level: Some(level) };
        d.client.compress_out(program, "/bytes", &mut out, &options).unwrap();
        let path = dir.path().join("compressed");
        std::fs::write(&path, &out).unwrap();
        let script = format!("{program} -dc <{} | sha256sum", path.display());
        std::fs::write(dir.path().join("plain"), &bytes).unwrap();
        let plain = format!("sha256sum <{}", dir.path().join("plain").display());
        let sum = |script: &str| run(Command::new("bash").args(["-c", script]));
        assert_eq!(sum(&script), sum(&plain), "{program}");
    }
    for (program, level, named) in
        [("gzip", 10, "level"), ("bzip2", 0, "level"), ("sh", 1, "ctype"), ("", 1, "ctype")]
    {
        let options = CompressOut { level: Some(level) };
        let e = d.client.compress_out(program, "/bytes", &mut Vec::new(), &options).unwrap_err();
        assert!(e.to_string().starts_with(named), "{e}");
    }
    let default = CompressOut::default();
    let e = d.client.compress_out("gzip", "/nonesuch", &mut Vec::new(), &default).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOENT));
}

#[test]
fn attributes_are_copied_as_far_as_they_are_asked_for() {
    let (_image, mut d) = guest();
    for path in ["/a", "/b", "/c"] {
        d.client.touch(path).unwrap();
    }
    d.client.chown(12, 34, "/a").unwrap();
    d.client.chmod(0o4751, "/a").unwrap();
    d.client.setxattr("user.x", "value", 5, "/a").unwrap();
    let all = CopyAttributes { all: Some(true), ..Default::default() };
    d.client.copy_attributes("/a", "/b", &all).unwrap();
    let stat = d.client.lstatns("/b").unwrap();
    assert_eq!((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid), (0o4751, 12, 34));
    assert_eq!(d.client.getxattr("/b", "user.x").unwrap(), b"value");
    let some = CopyAttributes { all: Some(true), mode: Some(false), ..Default::default() };
    d.client.copy_attributes("/a", "/c", &some).unwrap();
    let stat = d.client.lstatns("/c").unwrap();
    assert_eq!((stat.st_mode & 0o7777, stat.st_uid), (0o644, 12));
}
