// SPDX-License-Identifier: Apache-2.0
//! Filesystems made, looked at, checked, resized and labelled through the protocol. Needs root and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guest_error::Errno;
use guestfs_api::options;
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;

fn blank(mib: u64) -> LoopDevice {
    LoopDevice::with_filesystem(&["true"], mib)
}

fn mkfs(d: &mut Daemon, fstype: &str, device: &LoopDevice) {
    d.client.mkfs(fstype, device.name(), &options::Mkfs::default()).unwrap();
}

#[test]
fn what_was_made_is_found_with_its_label_and_uuid() {
    let device = blank(160);
    let mut d = Daemon::isolated();
    assert_eq!(d.client.vfs_type(device.name()).unwrap(), "");
    for fstype in ["ext2", "vfat", "ext4", "ntfs", "btrfs", "f2fs"] {
        let label = options::Mkfs { label: Some(OsStr::new("LAB")), ..Default::default() };
        d.client.mkfs(fstype, device.name(), &label).unwrap();
        assert_eq!(d.client.vfs_type(device.name()).unwrap(), fstype);
        assert_eq!(d.client.vfs_label(device.name()).unwrap(), "LAB");
        let uuid = d.client.vfs_uuid(device.name()).unwrap();
        assert!(!uuid.is_empty());
        let tags = d.client.blkid(device.name()).unwrap();
        assert!(tags.contains(&("UUID".into(), uuid)), "{tags:?}");
    }
}

#[test]
fn errors_of_programs_say_what_was_wrong_and_not_how_to_call_them() {
    let device = blank(16);
    let mut d = Daemon::isolated();
    let e = d.client.mkfs("xfs", device.name(), &options::Mkfs::default()).unwrap_err();
    let text = e.to_string();
    assert!(text.ends_with("mkfs.xfs: Filesystem must be larger than 300MB."), "{text}");
    mkfs(&mut d, "ext4", &device);
    d.client.mount(device.name(), "/").unwrap();
    let e = d.client.e2fsck(device.name(), &options::E2fsck::default()).unwrap_err();
    let text = e.to_string();
    let expected =
        format!("e2fsck: {} is mounted.\ne2fsck: Cannot continue, aborting.", device.name());
    assert!(text.ends_with(&expected), "{text}");
}

#[test]
fn clones_of_an_xfs_are_mounted_at_the_same_time_and_their_logs_replayed() {
    let template = LoopDevice::with_filesystem(&["mkfs.xfs", "-q"], 320);
    let mut first = Daemon::isolated();
    first.client.mount(template.name(), "/").unwrap();
    first.client.internal_write("/hello", b"hello").unwrap();
    first.client.sync().unwrap();
    // As a machine leaves it whose power fails: the log has not been written back.
    let clone = template.copy();
    let mut second = Daemon::isolated();
    second.client.mount(clone.name(), "/").unwrap();
    assert_eq!(second.client.filesize("/hello").unwrap(), 5);
    second.client.internal_write("/hello", b"again!").unwrap();
    // In one session, too, and with options of the client's.
    second.client.sync().unwrap();
    let third = clone.copy();
    second.client.mkdir("/below").unwrap();
    second.client.mount_options("noatime", third.name(), "/below").unwrap();
    second.client.umount_all().unwrap();
    second.client.mount_ro(third.name(), "/").unwrap();
    assert_eq!(second.client.filesize("/hello").unwrap(), 6);
    assert_eq!(first.client.filesize("/hello").unwrap(), 5);
    // What is really broken is an error as before.
    second.client.umount_all().unwrap();
    let device = std::fs::OpenOptions::new().write(true).open(&third.path).unwrap();
    // All of the superblock's fields after its UUID.
    device.write_all_at(&[0xff; 400], 48).unwrap();
    let e = second.client.mount(third.name(), "/").unwrap_err();
    assert!(e.to_string().contains(third.name()), "{e}");
}

#[test]
fn arguments_of_mkfs_that_make_no_sense_leave_the_device_alone() {
    let device = blank(16);
    let mut d = Daemon::isolated();
    mkfs(&mut d, "ext2", &device);
    let bad = [
        ("nonesuch", options::Mkfs::default(), Errno::ENOTSUP),
        ("../ext2", options::Mkfs::default(), Errno::EINVAL),
        ("ext4", options::Mkfs { blocksize: Some(3000), ..Default::default() }, Errno::EINVAL),
        ("ext4", options::Mkfs { blocksize: Some(-1), ..Default::default() }, Errno::EINVAL),
        ("vfat", options::Mkfs { blocksize: Some(256), ..Default::default() }, Errno::EINVAL),
        ("ext4", options::Mkfs { inode: Some(0), ..Default::default() }, Errno::EINVAL),
        ("vfat", options::Mkfs { inode: Some(256), ..Default::default() }, Errno::EINVAL),
        ("ext4", options::Mkfs { sectorsize: Some(512), ..Default::default() }, Errno::EINVAL),
    ];
    for (fstype, options, errno) in bad {
        let e = d.client.mkfs(fstype, device.name(), &options).unwrap_err();
        assert_eq!(e.errno(), Some(errno), "{e}");
    }
    assert_eq!(d.client.vfs_type(device.name()).unwrap(), "ext2");
}

#[test]
fn an_ext_filesystem_is_tuned_checked_and_resized() {
    let device = blank(32);
    let mut d = Daemon::isolated();
    let make = options::Mke2fs {
        blocksize: Some(1024),
        blockscount: Some(16384),
        fstype: Some(OsStr::new("ext4")),
        label: Some(OsStr::new("first")),
        stridesize: Some(4),
        lazyitableinit: Some(false),
        flexbg: Some(false),
        ..Default::default()
    };
    d.client.mke2fs(device.name(), &make).unwrap();
    let field = |d: &mut Daemon, name: &str| {
        let fields = d.client.tune2fs_l(device.name()).unwrap();
        let (_, value) = fields.into_iter().find(|(n, _)| n == name).unwrap();
        value.into_string().unwrap()
    };
    assert_eq!(field(&mut d, "Block count"), "16384");
    // Of several extended options, each counts.
    assert_eq!(field(&mut d, "RAID stride"), "4");
    assert!(!field(&mut d, "Filesystem features").contains("flex_bg"));
    d.client.resize2fs(device.name()).unwrap();
    assert_eq!(field(&mut d, "Block count"), "32768");
    let tune = options::Tune2fs { maxmountcount: Some(7), ..Default::default() };
    d.client.tune2fs(device.name(), &tune).unwrap();
    assert_eq!(field(&mut d, "Maximum mount count"), "7");
    let e = d.client.tune2fs(device.name(), &options::Tune2fs::default()).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    d.client.e2fsck_f(device.name()).unwrap();
    let both = options::E2fsck { correct: Some(true), forceall: Some(true), ..Default::default() };
    assert_eq!(d.client.e2fsck(device.name(), &both).unwrap_err().errno(), Some(Errno::EINVAL));
    let least = d.client.vfs_minimum_size(device.name()).unwrap();
    d.client.resize2fs_m(device.name()).unwrap();
    let blocks: i64 = field(&mut d, "Block count").parse().unwrap();
    assert!(blocks * 1024 <= least);
    assert_eq!(d.client.fsck("ext4", device.name()).unwrap(), 0);
}

#[test]
fn labels_and_uuids_are_set_where_there_are_any() {
    const UUID: &str = "a3a61220-882b-4f61-89f4-cf24dcc7297d";
    let device = blank(400);
    let mut d = Daemon::isolated();
    for fstype in ["ext3", "btrfs", "xfs"] {
        mkfs(&mut d, fstype, &device);
        d.client.set_label(device.name(), "other").unwrap();
        assert_eq!(d.client.vfs_label(device.name()).unwrap(), "other");
        d.client.set_uuid(device.name(), UUID).unwrap();
        assert_eq!(d.client.vfs_uuid(device.name()).unwrap(), UUID);
        d.client.set_uuid_random(device.name()).unwrap();
        assert_ne!(d.client.vfs_uuid(device.name()).unwrap(), UUID);
        assert!(d.client.set_uuid(device.name(), "nonesuch").is_err());
    }
    mkfs(&mut d, "minix", &device);
    for e in [
        d.client.set_label(device.name(), "x").unwrap_err(),
        d.client.set_uuid(device.name(), UUID).unwrap_err(),
        d.client.vfs_minimum_size(device.name()).map(drop).unwrap_err(),
    ] {
        assert_eq!(e.errno(), Some(Errno::ENOTSUP), "{e}");
    }
}

#[test]
fn a_label_is_never_given_to_a_shell() {
    let device = blank(400);
    let mut d = Daemon::isolated();
    mkfs(&mut d, "xfs", &device);
    for label in ["';id;'", "`id`", "$(id)", "a b", "\"x"] {
        // Some cannot be set; those that can are what they are.
        if d.client.set_label(device.name(), label).is_ok() {
            assert_eq!(d.client.vfs_label(device.name()).unwrap(), label);
        }
    }
}

#[test]
fn attributes_of_a_file_are_set_and_cleared() {
    let device = blank(32);
    let mut d = Daemon::isolated();
    mkfs(&mut d, "ext4", &device);
    d.client.mount(device.name(), "/").unwrap();
    d.client.touch("/f").unwrap();
    d.client.ln_s("/etc/passwd", "/out").unwrap();
    d.client.set_e2attrs("/f", "di", &options::SetE2attrs::default()).unwrap();
    assert_eq!(d.client.get_e2attrs("/f").unwrap(), "dei");
    assert_eq!(d.client.rm("/f").unwrap_err().errno(), Some(Errno::EPERM));
    let clear = options::SetE2attrs { clear: Some(true) };
    d.client.set_e2attrs("/f", "i", &clear).unwrap();
    assert_eq!(d.client.get_e2attrs("/f").unwrap(), "de");
    for bad in ["zz", "R", "E"] {
        let e = d.client.set_e2attrs("/f", bad, &options::SetE2attrs::default()).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL));
    }
    assert_eq!(d.client.get_e2attrs("/out").unwrap_err().errno(), Some(Errno::ENOTSUP));
    assert_eq!(d.client.get_e2generation("/none").unwrap_err().errno(), Some(Errno::ENOENT));
    assert!((0..=i64::from(u32::MAX)).contains(&d.client.get_e2generation("/f").unwrap()));
}

#[test]
fn an_ntfs_filesystem_is_cloned_through_the_protocol() {
    let (device, second) = (blank(64), blank(64));
    let mut d = Daemon::isolated();
    let label = options::Mkfs { label: Some(OsStr::new("lab")), ..Default::default() };
    d.client.mkfs("ntfs", device.name(), &label).unwrap();
    assert_eq!(d.client.ntfs_3g_probe(true, device.name()).unwrap(), 0);
    let mut image = Vec::new();
    d.client.ntfsclone_out(device.name(), &mut image, &options::NtfscloneOut::default()).unwrap();
    d.client.ntfsclone_in(&mut &image[..], second.name()).unwrap();
    assert_eq!(d.client.vfs_label(second.name()).unwrap(), "lab");
    let mut upcase = Vec::new();
    d.client.ntfscat_i(device.name(), 10, &mut upcase).unwrap();
    assert_eq!(upcase.len(), 128 << 10);
    let mut none = Vec::new();
    assert!(d.client.ntfscat_i(device.name(), 100_000, &mut none).is_err());
    let bad = d.client.ntfsclone_in(&mut &b"no such format"[..], second.name());
    assert!(bad.unwrap_err().to_string().contains(second.name()));
    let size = d.client.vfs_minimum_size(device.name()).unwrap();
    assert!((1 << 20..64 << 20).contains(&size));
}

#[test]
fn a_directory_becomes_a_squashfs_without_what_is_excluded() {
    let device = blank(32);
    let mut d = Daemon::isolated();
    mkfs(&mut d, "ext4", &device);
    d.client.mount(device.name(), "/").unwrap();
    d.client.mkdir("/d").unwrap();
    d.client.internal_write("/d/a.txt", b"hello").unwrap();
    d.client.internal_write("/d/b.o", b"x").unwrap();
    let mut image = Vec::new();
    let without =
        options::Mksquashfs { excludes: Some(vec![OsStr::new("*.o")]), ..Default::default() };
    d.client.mksquashfs("/d", &mut image, &without).unwrap();
    assert!(image.starts_with(b"hsqs"));
    let mut nothing = Vec::new();
    let bad = options::Mksquashfs { compress: Some(OsStr::new("nonesuch")), ..Default::default() };
    assert!(d.client.mksquashfs("/d", &mut nothing, &bad).is_err());
    assert!(nothing.is_empty());
    d.client.umount_all().unwrap();
    std::fs::write(&device.path, &image).unwrap();
    assert_eq!(d.client.vfs_type(device.name()).unwrap(), "squashfs");
}

#[test]
fn what_is_no_volume_is_none() {
    let device = blank(16);
    let mut d = Daemon::isolated();
    assert!(!d.client.is_lv(device.name()).unwrap());
    for e in [
        d.client.pvuuid(device.name()).map(drop).unwrap_err(),
        d.client.lvuuid(device.name()).map(drop).unwrap_err(),
        d.client.lvm_canonical_lv_name(device.name()).map(drop).unwrap_err(),
        d.client.vguuid("").map(drop).unwrap_err(),
    ] {
        assert_eq!(e.errno(), Some(Errno::EINVAL), "{e}");
    }
    let e = d.client.lvm_canonical_lv_name("/dev/none/none").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOENT));
}

#[test]
fn garbage_instead_of_a_superblock_is_no_harm() {
    let device = blank(16);
    let mut d = Daemon::isolated();
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(1 << 20)
    .collect();
    std::fs::write(&device.path, &noise).unwrap();
    assert_eq!(d.client.vfs_type(device.name()).unwrap(), "");
    assert!(d.client.tune2fs_l(device.name()).is_err());
    assert!(d.client.isoinfo_device(device.name()).is_err());
    assert!(d.client.xfs_info(device.name()).is_err());
    d.client.ping_daemon().unwrap();
}
