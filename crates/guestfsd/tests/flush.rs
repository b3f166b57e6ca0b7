// SPDX-License-Identifier: Apache-2.0
//! Disks that fail: what was lost once is not reported as written later. Needs root and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, need_root, run, text};
use guest_error::Errno;
use guestfs_api::options;
use guestfs_client::Client;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

/// A disk of 64 MiB that is thin, on a filesystem without the room for it: writing it fails at some point.
struct Thin {
    dir: tempfile::TempDir,
    device: PathBuf,
}

impl Thin {
    fn new() -> Self {
        need_root();
        let dir = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(dir.path()));
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        // No journal: the filesystem goes on after an error.
        let mkfs = ["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0"];
        run(Command::new("mkfs.ext4").args(mkfs).arg(&image));
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
        Self { dir, device: device.trim().into() }
    }

    fn name(&self) -> &str {
        text(&self.device)
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.device).status().ok();
        Command::new("umount").arg("--lazy").arg(self.dir.path()).status().ok();
    }
}

type C = Client<UnixStream>;

/// A file is written that the disk has no room for, and has been lost at the first sync.
fn lose(c: &mut C, disk: &Thin) {
    c.mount(disk.name(), "/").unwrap();
    c.internal_write("/small", b"small").unwrap();
    c.sync().unwrap();
    c.upload(&mut std::io::Read::take(std::io::repeat(7), 30 << 20), "/big").unwrap();
    is_lost(c.sync(), disk);
}

fn is_lost(done: guestfs_client::Result<()>, disk: &Thin) {
    let e = done.unwrap_err();
    assert!(matches!(e.errno(), Some(Errno::EIO | Errno::ENOSPC)), "{e}");
    let start = format!(
        "{}: {}: writing to the disk has failed",
        disk.name(),
        e.errno().unwrap().describe()
    );
    assert!(e.to_string().starts_with(&start), "{e}");
}

#[test]
fn after_a_sync_that_failed_no_sync_says_that_all_is_written() {
    let disk = Thin::new();
    let mut d = Daemon::isolated();
    let c = &mut d.client;
    lose(c, &disk);
    // Nothing is dirty any more.
    is_lost(c.sync(), &disk);
    is_lost(c.sync(), &disk);
    is_lost(c.umount("/", &options::Umount::default()), &disk);
    assert!(c.mounts().unwrap().is_empty(), "it is unmounted all the same");
    // A disk that was made anew in the same session does not bring back what was lost.
    is_lost(c.internal_autosync(), &disk);
}

#[test]
fn after_a_sync_that_failed_neither_umount_nor_autosync_says_that_all_is_written() {
    for autosync in [false, true] {
        let disk = Thin::new();
        let mut d = Daemon::isolated();
        lose(&mut d.client, &disk);
        let done = match autosync {
            true => d.client.internal_autosync(),
            false => d.client.umount_all(),
        };
        is_lost(done, &disk);
        assert!(d.client.mounts().unwrap().is_empty());
    }
}

#[test]
fn what_is_lost_at_unmounting_is_an_error_of_that() {
    let disk = Thin::new();
    let mut d = Daemon::isolated();
    let c = &mut d.client;
    c.mount(disk.name(), "/").unwrap();
    c.upload(&mut std::io::Read::take(std::io::repeat(7), 30 << 20), "/big").unwrap();
    is_lost(c.umount(disk.name(), &options::Umount::default()), &disk);
}

#[test]
fn a_device_that_was_not_written_whole_stays_so() {
    let disk = Thin::new();
    let mut d = Daemon::isolated();
    let mut data = std::io::Read::take(std::io::repeat(7), 30 << 20);
    is_lost(d.client.upload(&mut data, disk.name()), &disk);
    is_lost(d.client.upload(&mut &b"x"[..], disk.name()), &disk);
}

#[test]
fn a_disk_that_works_is_synced_beside_one_that_has_failed() {
    let (bad, good) =
        (Thin::new(), common::LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 16));
    let mut d = Daemon::isolated();
    let c = &mut d.client;
    lose(c, &bad);
    is_lost(c.umount_all(), &bad);
    c.mount(good.name(), "/").unwrap();
    c.internal_write("/file", b"x").unwrap();
    c.umount("/", &options::Umount::default()).unwrap();
}
