// SPDX-License-Identifier: Apache-2.0
//! Files of a guest: what is in them, copies of them, and what a hostile one may have in their place. Needs root
//! and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guest_error::Errno;
use guestfs_api::options;

fn mounted() -> (LoopDevice, Daemon) {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    (image, d)
}

#[test]
fn a_fifo_of_the_guest_holds_nobody_up() {
    let (_image, mut d) = mounted();
    let c = &mut d.client;
    c.mkfifo(0o600, "/fifo").unwrap();
    assert_eq!(c.head("/fifo").unwrap().len(), 0);
    assert_eq!(c.wc_c("/fifo").unwrap(), 0);
    assert_eq!(c.checksum("md5", "/fifo").unwrap(), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(c.internal_write("/fifo", b"x").unwrap_err().errno(), Some(Errno::ENXIO));
    let e = c.grep("x", "/fifo", &options::Grep::default()).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    assert_eq!(c.file("/fifo").unwrap(), "FIFO");
    c.cp("/fifo", "/copy").unwrap();
    assert_eq!(c.filesize("/copy").unwrap(), 0);
    assert!(c.upload(&mut &b"x"[..], "/fifo").is_err());
    c.ping_daemon().unwrap();
}

#[test]
fn errors_have_the_texts_that_clients_know() {
    let (_image, mut d) = mounted();
    let c = &mut d.client;
    c.touch("/test").unwrap();
    let none = "No such file or directory";
    for (done, text) in [
        (c.truncate_size("/test", i64::MAX), "ftruncate: /test: File too large".to_owned()),
        (c.truncate_size("/none", 1), format!("open: /none: {none}")),
        (c.truncate("/"), "open: /: Is a directory".to_owned()),
        (c.touch("/none/x"), format!("open: /none/x: {none}")),
        (c.internal_write("/none/x", b"x"), format!("open: /none/x: {none}")),
        (c.internal_write_append("/none/x", b"x"), format!("open: /none/x: {none}")),
        (c.fill(1, 1, "/none/x"), format!("open: /none/x: {none}")),
        (c.pread("/none", 1, 0).map(drop), format!("open: /none: {none}")),
        (c.pread("/", 1, 0).map(drop), "pread: /: Is a directory".to_owned()),
        (c.pwrite("/none", b"x", 0).map(drop), format!("open: /none: {none}")),
        (c.readdir("/test").map(drop), "opendir: /test: Not a directory".to_owned()),
        (c.readlink("/test").map(drop), "readlink: /test: Invalid argument".to_owned()),
        (c.realpath("/none").map(drop), format!("realpath: /none: {none}")),
        (c.utimens("/none", 0, 0, 0, 0), format!("utimensat: /none: {none}")),
        (c.ln("/none", "/y"), format!("link: /none: /y: {none}")),
        (c.rename("/none", "/y"), format!("rename: /none: /y: {none}")),
    ] {
        let e = done.unwrap_err();
        assert!(e.to_string().ends_with(&text), "{e}, not {text}");
    }
    // A message of any length, and the errno that clients' tests expect with it.
    for len in [0, 1, 20, 70_000] {
        let e = c.debug("error", &[&len.to_string()]).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EROFS));
        // Of one that is longer than the protocol allows, what it allows.
        assert!(e.to_string().ends_with(&"a".repeat(len.min(60_000))), "{len}");
    }
    for wrong in ["x", "-1", ""] {
        assert_eq!(c.debug("error", &[wrong]).unwrap_err().errno(), Some(Errno::EINVAL), "{wrong}");
    }
}

#[test]
fn what_does_not_fit_into_a_reply_is_an_error_that_says_so() {
    let (_image, mut d) = mounted();
    let c = &mut d.client;
    c.fill(b'\n'.into(), 3 << 20, "/lines").unwrap();
    c.fill(b'x'.into(), 6 << 20, "/line").unwrap();
    c.internal_write_append("/line", b"\nlast").unwrap();
    let too_long = |e: guestfs_client::Error| {
        assert_eq!(e.errno(), Some(Errno::EMSGSIZE), "{e}");
        assert!(e.to_string().contains("longer than a reply can be"), "{e}");
    };
    for path in ["/lines", "/line"] {
        too_long(c.head_n(5 << 20, path).unwrap_err());
        too_long(c.tail_n(5 << 20, path).unwrap_err());
        too_long(c.tail_n(-1, path).unwrap_err());
        too_long(c.head_n(-1, path).unwrap_err());
        too_long(c.grep("^", path, &options::Grep::default()).unwrap_err());
    }
    too_long(c.strings("/line").unwrap_err());
    assert_eq!(c.tail_n(1, "/line").unwrap(), ["last"]);
    assert_eq!(c.wc_l("/lines").unwrap(), 3 << 20);
    // All of it is the same: a dump says so in three lines.
    assert_eq!(c.hexdump("/lines").unwrap().to_str().unwrap().lines().count(), 3);
}

#[test]
fn a_tree_is_copied_with_all_that_belongs_to_it() {
    let (_image, mut d) = mounted();
    let c = &mut d.client;
    c.mkdir_p("/a/sub").unwrap();
    c.internal_write("/a/sub/file", b"content").unwrap();
    c.ln("/a/sub/file", "/a/again").unwrap();
    c.ln_s("sub/file", "/a/link").unwrap();
    c.chown(7, 8, "/a/sub/file").unwrap();
    c.chmod(0o4711, "/a/sub/file").unwrap();
    c.setxattr("user.x", "value", 5, "/a/sub/file").unwrap();
    c.utimens("/a/sub/file", 1, 2, 3, 4).unwrap();
    c.utimens("/a/sub", 5, 6, 7, 8).unwrap();
    c.cp_a("/a", "/b").unwrap();
    let stat = c.statns("/b/sub/file").unwrap();
    assert_eq!((stat.st_mode, stat.st_uid, stat.st_gid), (0o104_711, 7, 8));
    assert_eq!((stat.st_mtime_sec, stat.st_mtime_nsec, stat.st_nlink), (3, 4, 2));
    assert_eq!(c.statns("/b/again").unwrap().st_ino, stat.st_ino);
    assert_eq!(c.statns("/b/sub").unwrap().st_mtime_sec, 7);
    assert_eq!(c.getxattr("/b/sub/file", "user.x").unwrap(), b"value");
    assert_eq!(c.readlink("/b/link").unwrap(), "sub/file");
    // Not the sparse file's holes.
    c.internal_write("/sparse", b"begin").unwrap();
    c.truncate_size("/sparse", 40 << 20).unwrap();
    c.pwrite("/sparse", b"end", (40 << 20) - 3).unwrap();
    c.cp("/sparse", "/copy").unwrap();
    assert!(c.equal("/sparse", "/copy").unwrap());
    assert!(c.statns("/copy").unwrap().st_blocks < 100);
    // Nor a tree into itself.
    for dest in ["/a", "/a/sub", "/a/sub/new"] {
        assert_eq!(c.cp_a("/a", dest).unwrap_err().errno(), Some(Errno::EINVAL), "{dest}");
    }
}

#[test]
fn temporary_names_are_new_and_end_as_they_should() {
    let (_image, mut d) = mounted();
    let c = &mut d.client;
    let txt = options::Mktemp { suffix: Some("\u{e9}.txt".as_ref()) };
    let one = c.mktemp("/oneXXXXXX", &txt).unwrap().into_string().unwrap();
    let two = c.mktemp("/oneXXXXXX", &txt).unwrap().into_string().unwrap();
    assert!(one != two && one.starts_with("/one") && one.ends_with("\u{e9}.txt"), "{one}");
    assert_eq!(c.statns(&one).unwrap().st_mode, 0o100_600);
    let dir = c.mkdtemp("/dirXXXXXX").unwrap();
    assert_eq!(c.statns(&dir).unwrap().st_mode, 0o040_700);
    let slash = options::Mktemp { suffix: Some("/../x".as_ref()) };
    assert_eq!(c.mktemp("/oneXXXXXX", &slash).unwrap_err().errno(), Some(Errno::EINVAL));
    assert_eq!(c.mkdtemp("/dirXXXXX").unwrap_err().errno(), Some(Errno::EINVAL));
}

#[test]
fn a_listing_may_be_of_a_directory_too_large_for_a_reply() {
    let (_image, mut d) = mounted();
    let c = &mut d.client;
    c.mkdir("/many").unwrap();
    c.fill_dir("/many", 10_000).unwrap();
    let mut names = Vec::new();
    c.ls0("/many", &mut names).unwrap();
    assert_eq!(names.len(), 10_000 * 9);
    let mut sums = Vec::new();
    c.checksums_out("crc", "/many", &mut sums).unwrap();
    assert_eq!(sums.iter().filter(|b| **b == b'\n').count(), 10_000);
    c.rm_rf("/many").unwrap();
    assert!(!c.exists("/many").unwrap());
}
