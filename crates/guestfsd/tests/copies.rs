// SPDX-License-Identifier: Apache-2.0
//! Copies of files and trees that cannot be made whole: what the error says. Needs root and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guest_error::Errno;

/// A guest with blocks of 1024 bytes on /, and of 4096 bytes on /large.
fn guest() -> (LoopDevice, LoopDevice, Daemon) {
    let small = LoopDevice::with_filesystem(&["mke2fs", "-q", "-t", "ext4", "-b", "1024"], 16);
    let large = LoopDevice::with_filesystem(&["mke2fs", "-q", "-t", "ext4", "-b", "4096"], 32);
    let mut d = Daemon::isolated();
    d.client.mount(small.name(), "/").unwrap();
    d.client.mkdir("/large").unwrap();
    d.client.mount(large.name(), "/large").unwrap();
    (small, large, d)
}

#[test]
fn an_error_of_a_copy_names_the_file_once_and_on_the_right_side() {
    let (_small, _large, mut d) = guest();
    d.client.mkdir_p("/large/tree/sub").unwrap();
    d.client.fill(b'x'.into(), 20 << 20, "/large/tree/sub/file").unwrap();
    for (target, shown) in [("/copy", "/copy/sub/file"), ("/", "/tree/sub/file")] {
        for all in [false, true] {
            let copied = match all {
                true => d.client.cp_a("/large/tree", target),
                false => d.client.cp_r("/large/tree", target),
            };
            let e = copied.unwrap_err();
            assert_eq!(e.errno(), Some(Errno::ENOSPC));
            assert!(e.to_string().ends_with(&format!("{shown}: No space left on device")), "{e}");
            assert_eq!(e.to_string().matches("file").count(), 1, "{e}");
            d.client.rm_rf(shown.trim_end_matches("/sub/file")).unwrap();
        }
    }
    let e = d.client.cp("/large/tree/sub/file", "/one").unwrap_err();
    assert!(e.to_string().ends_with("/one: No space left on device"), "{e}");
    d.client.rm_f("/one").unwrap();
    let e = d.client.mv("/large/tree", "/moved").unwrap_err();
    assert!(e.to_string().ends_with("/moved/sub/file: No space left on device"), "{e}");
    assert_eq!(d.client.filesize("/large/tree/sub/file").unwrap(), 20 << 20, "nothing is lost");
}

#[test]
fn what_takes_two_names_names_both() {
    let (_small, _large, mut d) = guest();
    d.client.mkdir_p("/a/b").unwrap();
    let e = d.client.cp_r("/a", "/a/b").unwrap_err();
    let expected = "/a to /a/b/a: a directory cannot be copied into itself";
    assert!(e.to_string().ends_with(expected), "{e}");
    d.client.touch("/f").unwrap();
    let e = d.client.cp_a("/f", "/f").unwrap_err();
    let expected = "/f to /f: source and destination are the same file";
    assert!(e.to_string().ends_with(expected), "{e}");
}

#[test]
fn an_extended_attribute_that_there_is_no_room_for_is_an_error_and_the_rest_is_copied() {
    let (_small, _large, mut d) = guest();
    d.client.mkdir("/large/tree").unwrap();
    d.client.internal_write("/large/tree/a", b"content").unwrap();
    d.client.internal_write("/large/tree/b", b"more").unwrap();
    let big = "x".repeat(3000);
    d.client.setxattr("user.big", &big, 3000, "/large/tree/a").unwrap();
    d.client.setxattr("user.small", "x", 1, "/large/tree/a").unwrap();
    d.client.chmod(0o4711, "/large/tree/a").unwrap();
    let e = d.client.cp_a("/large/tree", "/tree").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOSPC));
    let expected = "/tree/a: extended attribute user.big: No space left on device";
    assert!(e.to_string().ends_with(expected), "{e}");
    assert_eq!(d.client.getxattr("/tree/a", "user.small").unwrap(), b"x");
    assert_eq!(d.client.statns("/tree/a").unwrap().st_mode, 0o104_711);
    assert_eq!(d.client.filesize("/tree/b").unwrap(), 4);
    // Without attributes there is nothing wrong.
    d.client.cp_r("/large/tree", "/plain").unwrap();
}
