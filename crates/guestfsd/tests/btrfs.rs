// SPDX-License-Identifier: Apache-2.0
//! btrfs: what takes long and is interrupted, filesystems on several devices, names and contents that are hostile.
//! Needs root, loop devices, btrfs in the kernel, and btrfs-progs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guest_error::Errno;
use guestfs_api::options;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

const DATA: u64 = 64 << 20;

fn made(mib: u64) -> LoopDevice {
    LoopDevice::with_filesystem(&["mkfs.btrfs", "-q", "-d", "single", "-m", "single"], mib)
}

/// A filesystem with some data that is mounted and scrubbed slowly.
fn slow(device: &LoopDevice) -> Daemon {
    let mut d = Daemon::isolated();
    d.client.mount(device.name(), "/").unwrap();
    d.client.fill(0x55, i32::try_from(DATA).unwrap(), "/file").unwrap();
    d.client.btrfs_filesystem_sync("/").unwrap();
    set_speed(&mut d, device, 4 << 20);
    d
}

/// Limits how many bytes are scrubbed in a second; 0 for any.
fn set_speed(d: &mut Daemon, device: &LoopDevice, bytes: u64) {
    let uuid = d.client.vfs_uuid(device.name()).unwrap().into_string().unwrap();
    let file = format!("/sys/fs/btrfs/{uuid}/devinfo/1/scrub_speed_max");
    std::fs::write(&file, bytes.to_string()).expect("this test needs Linux 5.14");
}

#[test]
fn a_scrub_is_cancelled_and_goes_on_where_it_was() {
    let device = made(300);
    let mut d = slow(&device);
    let scrubbed = |d: &mut Daemon| d.client.btrfs_scrub_status("/").unwrap();
    assert_eq!(scrubbed(&mut d).btrfsscrub_data_bytes_scrubbed, 0);
    d.client.btrfs_scrub_start("/").unwrap();
    let e = d.client.btrfs_scrub_start("/").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINPROGRESS), "{e}");
    let e = d.client.btrfs_scrub_resume("/").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOTCONN), "{e}");
    d.client.btrfs_scrub_cancel("/").unwrap();
    let first = scrubbed(&mut d).btrfsscrub_data_bytes_scrubbed;
    assert!(first < DATA, "{first}");
    let e = d.client.btrfs_scrub_cancel("/").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOTCONN), "{e}");
    set_speed(&mut d, &device, 0);
    d.client.btrfs_scrub_resume("/").unwrap();
    let deadline = Instant::now() + Duration::from_secs(100);
    while d.client.umount("/", &options::Umount::default()).is_err() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    d.client.mount(device.name(), "/").unwrap();
    // What is known of it outlives its mount. A piece may have been scrubbed twice.
    let all = scrubbed(&mut d);
    assert!(all.btrfsscrub_data_bytes_scrubbed >= DATA, "{all:?}");
    assert_eq!((all.btrfsscrub_csum_errors, all.btrfsscrub_uncorrectable_errors), (0, 0));
    let e = d.client.btrfs_scrub_resume("/").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOTCONN), "{e}");
}

#[test]
fn a_scrub_ends_with_its_session_and_leaves_nothing_mounted() {
    let device = made(300);
    let mut d = slow(&device);
    d.client.btrfs_scrub_start("/").unwrap();
    let e = d.client.umount("/", &options::Umount::default()).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EBUSY), "{e}");
    d.client.umount_all().unwrap();
    assert!(!device.is_busy());
    d.client.mount(device.name(), "/").unwrap();
    d.client.btrfs_scrub_resume("/").unwrap();
    let begun = Instant::now();
    assert!(d.hang_up().success());
    assert!(begun.elapsed() < Duration::from_secs(10), "at its speed it would take longer");
    assert!(!device.is_busy());
}

#[test]
fn a_full_scrub_says_that_something_cannot_be_corrected() {
    let device = made(300);
    let mut d = Daemon::isolated();
    d.client.mount(device.name(), "/").unwrap();
    let full = options::BtrfsScrubFull { readonly: Some(true) };
    d.client.internal_write("/file", "a mark that is found again".repeat(1000).as_bytes()).unwrap();
    d.client.btrfs_filesystem_sync("/").unwrap();
    d.client.btrfs_scrub_full("/", &full).unwrap();
    d.client.umount_all().unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&device.path).unwrap();
    let mut piece = vec![0; 1 << 20];
    let at = (0..300).find_map(|mib| {
        file.read_exact_at(&mut piece, mib << 20).unwrap();
        let at = piece.windows(26).position(|w| w == b"a mark that is found again")?;
        Some((mib << 20) + at as u64)
    });
    file.write_all_at(b"A", at.unwrap()).unwrap();
    file.sync_all().unwrap();
    d.client.mount(device.name(), "/").unwrap();
    let e = d.client.btrfs_scrub_full("/", &full).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EIO), "{e}");
    let found = d.client.btrfs_scrub_status("/").unwrap();
    assert!(found.btrfsscrub_csum_errors > 0, "{found:?}");
}

#[test]
fn a_balance_is_paused_and_goes_on() {
    let device = made(1000);
    let mut d = Daemon::isolated();
    d.client.mount(device.name(), "/").unwrap();
    d.client.fill(0x55, 400 << 20, "/file").unwrap();
    d.client.btrfs_filesystem_sync("/").unwrap();
    let start = "btrfs balance start --full-balance --bg /sysroot";
    d.client.debug("sh", &[start]).unwrap();
    // It begins some time after the program has ended.
    let deadline = Instant::now() + Duration::from_secs(100);
    while d.client.btrfs_balance_pause("/").is_err() {
        assert!(Instant::now() < deadline, "no balance was seen");
    }
    let status = d.client.btrfs_balance_status("/").unwrap();
    assert_eq!(status.btrfsbalance_status, "paused");
    assert!(status.btrfsbalance_total > 0 && status.btrfsbalance_left > 0, "{status:?}");
    let e = d.client.btrfs_balance_pause("/").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOTCONN), "{e}");
    d.client.btrfs_balance_resume("/").unwrap();
    assert_eq!(d.client.btrfs_balance_status("/").unwrap().btrfsbalance_status, "none");
}

#[test]
fn a_filesystem_on_several_devices_is_found_by_the_kernel_though_nobody_has_shown_it_all() {
    let devices = [made(200), made(200)];
    let names: Vec<&str> = devices.iter().map(LoopDevice::name).collect();
    let mut d = Daemon::isolated();
    d.client.mkfs_btrfs(&names, &options::MkfsBtrfs::default()).unwrap();
    drop(d);
    for name in &names {
        let forget = ["device", "scan", "--forget", name];
        assert!(Command::new("btrfs").args(forget).status().unwrap().success());
    }
    let mut d = Daemon::isolated();
    assert_eq!(d.client.btrfs_filesystem_show(names[1]).unwrap().len(), 2);
    assert_eq!(d.client.btrfs_subvolume_list(names[1]).unwrap().len(), 0);
    d.client.mount(names[1], "/").unwrap();
    d.client.umount_all().unwrap();
    d.client.zero(names[0]).unwrap();
    let e = d.client.btrfs_filesystem_show(names[1]).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENODEV), "{e}");
}

#[test]
fn a_filesystem_that_was_begun_from_another_has_its_devices_too() {
    let (seed, new) = (made(200), made(200));
    let mut d = Daemon::isolated();
    d.client.mount(seed.name(), "/").unwrap();
    d.client.internal_write("/file", b"of the seed").unwrap();
    d.client.umount_all().unwrap();
    d.client.btrfs_set_seeding(seed.name(), true).unwrap();
    d.client.mount(seed.name(), "/").unwrap();
    d.client.btrfs_device_add(&[new.name()], "/").unwrap();
    d.client.umount_all().unwrap();
    for name in [seed.name(), new.name()] {
        let forget = ["device", "scan", "--forget", name];
        assert!(Command::new("btrfs").args(forget).status().unwrap().success());
    }
    let both = [seed.name(), new.name()];
    assert_eq!(d.client.btrfs_filesystem_show(new.name()).unwrap(), both);
    assert_eq!(d.client.btrfs_filesystem_show(seed.name()).unwrap(), both[..1]);
    d.client.mount(new.name(), "/").unwrap();
    assert_eq!(d.client.pread("/file", 100, 0).unwrap(), b"of the seed");
    assert_eq!(d.client.btrfs_filesystem_show(new.name()).unwrap(), both);
}

#[test]
fn a_subvolumes_name_does_not_look_like_anything_else() {
    let device = made(300);
    let mut d = Daemon::isolated();
    d.client.mount(device.name(), "/").unwrap();
    let name = "/a\nUUID: \t\tx path y";
    d.client.btrfs_subvolume_create(name, &options::BtrfsSubvolumeCreate::default()).unwrap();
    let listed = d.client.btrfs_subvolume_list("/").unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].btrfssubvolume_path, name.trim_start_matches('/'));
    let shown = d.client.btrfs_subvolume_show(name).unwrap();
    let uuids: Vec<_> = shown.iter().filter(|(field, _)| field == "UUID").collect();
    assert_eq!(uuids.len(), 1);
    assert_eq!(uuids[0].1.len(), 36);
    d.client.btrfs_subvolume_delete(name).unwrap();
    assert_eq!(d.client.btrfs_subvolume_list("/").unwrap().len(), 0);
}

#[test]
fn hundreds_of_subvolumes_in_each_other_are_listed_whole() {
    let device = made(300);
    let mut d = Daemon::isolated();
    d.client.mount(device.name(), "/").unwrap();
    let create = options::BtrfsSubvolumeCreate::default();
    let mut path = String::new();
    for _ in 0..100 {
        path += "/sub";
        d.client.btrfs_subvolume_create(&path, &create).unwrap();
    }
    // More than one search finds.
    for n in 0..1500 {
        d.client.btrfs_subvolume_create(format!("/{n:0100}"), &create).unwrap();
    }
    let listed = d.client.btrfs_subvolume_list("/").unwrap();
    assert_eq!(listed.len(), 1600);
    assert!(listed.iter().any(|s| s.btrfssubvolume_path == path.trim_start_matches('/')));
}
