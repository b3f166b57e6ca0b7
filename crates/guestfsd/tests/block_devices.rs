// SPDX-License-Identifier: Apache-2.0
//! Block devices, their partition tables and swap space, on loop devices. Needs root, parted, fdisk, gdisk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, need_root, run};
use guest_error::Errno;
use guestfs_api::options;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A blank disk whose partitions the kernel knows.
struct Disk {
    path: String,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn new(mib: u64, sector: u32) -> Self {
        need_root();
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let sector = format!("--sector-size={sector}");
        let out = run(Command::new("losetup")
            .args(["--find", "--show", "--partscan", &sector])
            .arg(&image));
        Self { path: out.trim().to_owned(), _dir: dir }
    }

    /// Has a program change it that reads what to do from standard input.
    fn script(&self, program: &str, script: &str) {
        let mut child = Command::new(program)
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("install {program} (Debian's fdisk): {e}"));
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{program}: {script}");
    }

    fn partition(&self, number: u32) -> String {
        format!("{}p{number}", self.path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Of a loop device, that outlives its image.
        Command::new("blockdev").args(["--setrw", &self.path]).status().ok();
        Command::new("losetup").args(["--detach", &self.path]).status().ok();
    }
}

/// Number, first and last byte of each partition, as parted shows them.
fn seen_by_parted(disk: &Disk) -> Vec<(i32, i64, i64)> {
    let text = run(Command::new("parted").args(["-m", "-s", &disk.path, "unit", "b", "print"]));
    let lines = text.lines().skip(2);
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let bytes = |i: usize| fields[i].trim_end_matches('B').parse().unwrap();
            (fields[0].parse().unwrap(), bytes(1), bytes(2))
        })
        .collect()
}

fn seen(d: &mut Daemon, disk: &Disk) -> Vec<(i32, i64, i64)> {
    let partitions = d.client.part_list(&disk.path).unwrap();
    assert!(partitions.iter().all(|p| p.part_size == p.part_end - p.part_start + 1));
    partitions.iter().map(|p| (p.part_num, p.part_start, p.part_end)).collect()
}

#[test]
fn tables_are_read_as_parted_reads_them() {
    let scripts = [
        "label: dos\n",
        "label: dos\n256,1000,7\n2048,,L,*\n",
        "label: dos\nsize=4M,type=5\nsize=9M,type=83\n",
        "label: dos\nsize=4M\nsize=20M,type=5\nsize=3M\nsize=3M\nsize=3M\nsize=4M,type=82\n",
        "label: gpt\n",
        "label: gpt\nstart=20M,size=4M,name=b\nstart=2M,size=4M,name=\"a c\"\n",
        "label: gpt\ntable-length: 4\nsize=4M\n",
    ];
    let mut d = Daemon::isolated();
    for sector in [512, 4096] {
        let disk = Disk::new(32, sector);
        for script in scripts {
            disk.script("sfdisk", script);
            assert_eq!(seen(&mut d, &disk), seen_by_parted(&disk), "{sector}: {script}");
        }
    }
}

#[test]
fn a_table_is_made_changed_and_its_fields_set() {
    let mut d = Daemon::isolated();
    for sector in [512, 4096] {
        let disk = Disk::new(32, sector);
        let g = &mut d.client;
        let path = &disk.path;
        g.part_disk(path, "gpt").unwrap();
        let first = 128 * i64::from(sector);
        assert_eq!(g.part_list(path).unwrap()[0].part_start, first);
        let guid = "01234567-89AB-CDEF-0123-456789ABCDEF";
        g.part_set_name(path, 1, "naïve; \"name\" of 💾").unwrap();
        g.part_set_gpt_type(path, 1, guid).unwrap();
        g.part_set_gpt_guid(path, 1, guid).unwrap();
        g.part_set_gpt_attributes(path, 1, i64::MIN | 4).unwrap();
        g.part_set_disk_guid(path, guid).unwrap();
        assert_eq!(g.part_get_name(path, 1).unwrap(), "naïve; \"name\" of 💾");
        assert_eq!(g.part_get_gpt_type(path, 1).unwrap(), guid);
        assert_eq!(g.part_get_gpt_guid(path, 1).unwrap(), guid);
        assert_eq!(g.part_get_gpt_attributes(path, 1).unwrap(), i64::MIN | 4);
        assert_eq!(g.part_get_disk_guid(path).unwrap(), guid);
        assert!(g.part_get_bootable(path, 1).unwrap());
        g.part_set_disk_guid_random(path).unwrap();
        assert_ne!(g.part_get_disk_guid(path).unwrap(), guid);
        let verdict = run(Command::new("sgdisk").args(["--verify", path]));
        assert!(verdict.contains("No problems found"), "{verdict}");
        g.part_resize(path, 1, 1000).unwrap();
        assert_eq!(g.part_list(path).unwrap()[0].part_end, 1001 * i64::from(sector) - 1);
        g.part_resize(path, 1, 2000).unwrap();
        assert_eq!(g.part_to_partnum(disk.partition(1)).unwrap(), 1);
        assert_eq!(g.part_to_dev(disk.partition(1)).unwrap(), path.as_str());
        g.part_del(path, 1).unwrap();
        assert!(g.part_list(path).unwrap().is_empty());
        assert_eq!(g.part_del(path, 1).unwrap_err().errno(), Some(Errno::EIO));
        let e = g.part_get_mbr_id(path, 1).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL));
    }
}

#[test]
fn a_gpt_follows_the_end_of_a_disk_that_has_grown() {
    let disk = Disk::new(16, 512);
    let mut d = Daemon::isolated();
    d.client.part_disk(&disk.path, "gpt").unwrap();
    let image = disk._dir.path().join("image");
    std::fs::OpenOptions::new().write(true).open(image).unwrap().set_len(32 << 20).unwrap();
    run(Command::new("losetup").args(["--set-capacity", &disk.path]));
    assert_eq!(seen(&mut d, &disk).len(), 1);
    d.client.part_set_name(&disk.path, 1, "before").unwrap();
    d.client.part_expand_gpt(&disk.path).unwrap();
    d.client.part_resize(&disk.path, 1, -64).unwrap();
    assert_eq!(seen(&mut d, &disk)[0].2, (32 << 20) - 63 * 512 - 1);
    assert_eq!(d.client.part_get_name(&disk.path, 1).unwrap(), "before");
}

#[test]
fn a_gpt_that_is_damaged_once_is_mended_and_one_that_is_damaged_twice_is_left_alone() {
    let disk = Disk::new(16, 512);
    let mut d = Daemon::isolated();
    d.client.part_disk(&disk.path, "gpt").unwrap();
    let before = seen(&mut d, &disk);
    let device = std::fs::OpenOptions::new().read(true).write(true).open(&disk.path).unwrap();
    device.write_all_at(&[0xff; 4], 1024 + 40).unwrap();
    assert_eq!(seen(&mut d, &disk), before);
    d.client.part_set_name(&disk.path, 1, "x").unwrap();
    let verdict = run(Command::new("sgdisk").args(["--verify", &disk.path]));
    assert!(verdict.contains("No problems found"), "{verdict}");
    device.write_all_at(&[0xff; 4], 512 + 40).unwrap();
    device.write_all_at(&[0xff; 4], (16 << 20) - 512 + 40).unwrap();
    let guid = "01234567-89AB-CDEF-0123-456789ABCDEF";
    let e = d.client.part_set_gpt_guid(&disk.path, 1, guid).unwrap_err();
    assert!(e.to_string().contains(&disk.path), "{e}");
    assert!(d.client.part_list(&disk.path).is_err());
    let mut bytes = [0; 4];
    device.read_exact_at(&mut bytes, 512 + 40).unwrap();
    assert_eq!(bytes, [0xff; 4]);
}

#[test]
fn sfdisk_takes_its_lines_and_megabytes() {
    let disk = Disk::new(64, 512);
    let mut d = Daemon::isolated();
    d.client.sfdisk(&disk.path, 0, 0, 0, &["label: dos", "2048,2048", ",4096"]).unwrap();
    assert_eq!(seen(&mut d, &disk).len(), 2);
    d.client.sfdisk_n(&disk.path, 2, 0, 0, 0, ",8192").unwrap();
    assert_eq!(seen(&mut d, &disk)[1].2, (4096 + 8192) * 512 - 1);
    d.client.sfdisk_m(&disk.path, &[",10", ",20,82"]).unwrap();
    let partitions = d.client.part_list(&disk.path).unwrap();
    assert_eq!(partitions.iter().map(|p| p.part_size >> 20).collect::<Vec<_>>(), [10, 20]);
    assert_eq!(d.client.part_get_mbr_id(&disk.path, 2).unwrap(), 0x82);
    assert!(d.client.sfdisk_l(&disk.path).unwrap().to_string_lossy().contains(&disk.path));
    let e = d.client.sfdisk(&disk.path, -1, 0, 0, &[","]).unwrap_err();
    assert_eq!(
        (e.errno(), e.to_string()),
        (Some(Errno::EINVAL), "cyls: -1: must not be negative".into())
    );
}

#[test]
fn wiping_and_asking_for_zeroes() {
    let disk = Disk::new(4, 512);
    let mut d = Daemon::isolated();
    assert!(d.client.is_zero_device(&disk.path).unwrap());
    let device = std::fs::OpenOptions::new().write(true).open(&disk.path).unwrap();
    device.write_all_at(b"x", (4 << 20) - 1).unwrap();
    device.write_all_at(b"x", 1000).unwrap();
    drop(device);
    d.client.zero(&disk.path).unwrap();
    assert!(!d.client.is_zero_device(&disk.path).unwrap());
    d.client.zero_device(&disk.path).unwrap();
    assert!(d.client.is_zero_device(&disk.path).unwrap());
    assert_eq!(d.client.blockdev_getsize64(&disk.path).unwrap(), 4 << 20);
    assert_eq!(d.client.blockdev_getss(&disk.path).unwrap(), 512);
    let device = std::fs::OpenOptions::new().write(true).open(&disk.path).unwrap();
    device.write_all_at(b"x", 5000).unwrap();
    drop(device);
    d.client.blockdev_setro(&disk.path).unwrap();
    assert!(d.client.blockdev_getro(&disk.path).unwrap());
    assert_eq!(d.client.zero_device(&disk.path).unwrap_err().errno(), Some(Errno::EPERM));
    d.client.blockdev_setrw(&disk.path).unwrap();
    d.client.zero_device(&disk.path).unwrap();
    assert!(d.client.is_zero_device(&disk.path).unwrap());
}

#[test]
fn a_device_that_was_made_read_only_is_writable_after_the_session() {
    let disk = Disk::new(4, 512);
    let mut d = Daemon::isolated();
    d.client.blockdev_setro(&disk.path).unwrap();
    let is_read_only = || run(Command::new("blockdev").args(["--getro", &disk.path])) == "1\n";
    assert!(is_read_only());
    assert!(d.hang_up().success());
    assert!(!is_read_only());
}

/// Whether the kernel swaps to this disk, or to a file in its image's directory.
fn is_swapped_to(name: &str) -> bool {
    let name = Path::new(name).file_name().unwrap().to_str().unwrap();
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap();
    swaps.lines().any(|line| line.split(' ').next().is_some_and(|path| path.ends_with(name)))
}

#[test]
fn what_is_swapped_to_ends_with_the_session() {
    let (disk, second) = (Disk::new(16, 512), Disk::new(64, 512));
    let mut d = Daemon::isolated();
    let options = options::Mkswap { label: Some("ends-here".as_ref()), ..Default::default() };
    d.client.mkswap(&disk.path, &options).unwrap();
    d.client.swapon_label("ends-here").unwrap_err();
    d.client.swapon_device(&disk.path).unwrap();
    assert_eq!(d.client.swapon_device(&disk.path).unwrap_err().errno(), Some(Errno::EBUSY));
    assert!(is_swapped_to(&disk.path));
    run(Command::new("mkfs.ext4").args(["-q", "-F", &second.path]));
    d.client.mount(&second.path, "/").unwrap();
    let name = format!("/swap-of-test-{}", std::process::id());
    d.client.upload(&mut &vec![0; 8 << 20][..], &name).unwrap();
    assert_eq!(d.client.swapon_file(&name).unwrap_err().errno(), Some(Errno::EINVAL));
    d.client.mkswap_file(&name).unwrap();
    d.client.swapon_file(&name).unwrap();
    assert!(is_swapped_to(&name));
    d.client.swapoff_file(&name).unwrap();
    assert!(!is_swapped_to(&name));
    d.client.swapon_file(&name).unwrap();
    assert!(d.hang_up().success());
    assert!(!is_swapped_to(&disk.path) && !is_swapped_to(&name));
}

#[test]
fn lvm_is_asked_for_volumes_only_where_a_device_has_its_label() {
    need_root();
    let image = common::LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    // What the daemon says of its work. It serves the machine, all of whose devices LVM sees then.
    let lvs = || {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.write_all(&common::call(11, 0, b"")).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let out = Command::new(common::GUESTFSD)
            .args(["-r", "--channel", "fd:0", "-v"])
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let asked = r#""lvm" "lvs""#;
    let said = lvs();
    // The machine may have some of its own.
    let others = run(Command::new("pvs").args(["--noheadings", "-o", "pv_name"]));
    assert_eq!(said.contains(asked), !others.trim().is_empty(), "{said}");
    assert!(said.contains(r#"name="lvs""#), "{said}");
    run(Command::new("wipefs").arg("-qa").arg(&image.path));
    run(Command::new("pvcreate").arg("-qq").arg(&image.path));
    assert!(lvs().contains(asked));
    run(Command::new("pvremove").arg("-qq").arg(&image.path));
}
