// SPDX-License-Identifier: Apache-2.0
//! Sessions on real filesystems: where paths lead, and what is left when a session ends. Needs root and
//! loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice, eventually};
use guest_error::Errno;
use guestfs_api::options;
use std::os::unix::fs::symlink;
use std::process::Command;

fn ext4() -> LoopDevice {
    LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 32)
}

#[test]
fn nothing_is_mounted_when_a_client_hangs_up() {
    let image = ext4();
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    assert!(image.is_busy());
    assert!(d.hang_up().success());
    eventually("the filesystem is unmounted", || !image.is_busy());
}

#[test]
fn nothing_is_mounted_when_the_daemon_is_killed() {
    let image = ext4();
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    d.child.kill().unwrap();
    eventually("the filesystem is unmounted", || !image.is_busy());
}

#[test]
fn nothing_is_mounted_after_autosync() {
    let image = ext4();
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    d.client.mkdir("/a").unwrap();
    d.client.internal_autosync().unwrap();
    eventually("the filesystem is unmounted", || !image.is_busy());
    let e = d.client.exists("/a").unwrap_err();
    assert!(e.to_string().contains("you must call 'mount' first"), "{e}");
}

#[test]
fn a_session_does_not_see_what_another_has_mounted() {
    let image = ext4();
    let (mut one, mut two) = (Daemon::isolated(), Daemon::isolated());
    one.client.mount(image.name(), "/").unwrap();
    assert!(two.client.exists("/lost+found").is_err());
    assert!(one.client.exists("/lost+found").unwrap());
}

#[test]
fn links_of_the_guest_do_not_lead_out_of_it() {
    let image = ext4();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let out = outside.path().to_str().unwrap();
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    d.client.ln_s(out, "/absolute").unwrap();
    d.client.ln_s(format!("../../../../..{out}"), "/relative").unwrap();
    d.client.ln_s("/proc/self/root", "/magic").unwrap();
    d.client.ln_s("loop", "/loop").unwrap();
    for link in ["absolute", "relative", "magic"] {
        assert!(!d.client.exists(format!("/{link}/secret")).unwrap(), "{link}");
        assert!(!d.client.exists(format!("/{link}{out}/secret")).unwrap(), "{link}");
        let e = d.client.upload(&mut &b"x"[..], format!("/{link}/made")).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::ENOENT), "{link}");
        assert!(d.client.mkdir(format!("/{link}/dir")).is_err());
    }
    assert!(d.client.exists("/loop").unwrap());
    assert_eq!(d.client.exists("/loop/x").unwrap_err().errno(), Some(Errno::ELOOP));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    // Inside, a link leads where the guest means it to.
    d.client.mkdir_p(out).unwrap();
    d.client.upload(&mut &b"x"[..], "/absolute/made").unwrap();
    assert!(d.client.exists(format!("{out}/made")).unwrap());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    // And `..` of the root is the root.
    assert!(d.client.is_dir("/../../lost+found", &options::IsDir::default()).unwrap());
}

#[test]
fn a_file_system_that_is_corrupt_is_an_error_of_the_call() {
    let image = ext4();
    let mut garbage = std::fs::OpenOptions::new().write(true).open(&image.path).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0x5a), 1 << 20), &mut garbage).unwrap();
    let mut d = Daemon::isolated();
    let e = d.client.mount(image.name(), "/").unwrap_err();
    assert!(e.errno().is_some() && e.to_string().contains(image.name()), "{e}");
    d.client.ping_daemon().unwrap();
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 4);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    let mut endless = std::io::Read::take(std::io::repeat(7), 64 << 20);
    let e = d.client.upload(&mut endless, "/big").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOSPC));
    assert_eq!(e.to_string(), "/big: No space left on device");
    d.client.ping_daemon().unwrap();
}

#[test]
fn a_read_only_mount_cannot_be_written() {
    let image = ext4();
    let mut d = Daemon::isolated();
    d.client.mount_ro(image.name(), "/").unwrap();
    assert_eq!(d.client.touch("/x").unwrap_err().errno(), Some(Errno::EROFS));
    assert_eq!(d.client.mountpoints().unwrap(), [(image.name().into(), "/".into())]);
    d.client.umount(image.name(), &options::Umount::default()).unwrap();
    assert!(d.client.mounts().unwrap().is_empty());
}

#[test]
fn a_mount_point_in_the_guest_that_is_a_link_stays_inside() {
    let (image, second) = (ext4(), ext4());
    let outside = tempfile::tempdir().unwrap();
    symlink("/", outside.path().join("x")).unwrap();
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    d.client.mkdir("/here").unwrap();
    d.client.ln_s("/here", "/there").unwrap();
    d.client.mount(second.name(), "/there").unwrap();
    let at = d.client.mountpoints().unwrap();
    assert_eq!(at[1], (second.name().into(), "/here".into()));
    d.client.ln_s(outside.path(), "/out").unwrap();
    assert!(d.client.mount(second.name(), "/out").is_err());
    let listed = Command::new("findmnt").arg(outside.path()).status().unwrap();
    assert!(!listed.success());
}
