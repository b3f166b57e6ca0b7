// SPDX-License-Identifier: Apache-2.0
//! Disks with LVM in instant mode: on a kernel with the device mapper their volumes are used, on one without it each
//! call that needs one says so, and all that needs none works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{Host, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk whose first partition has ext4, and the second one LVM with the volumes `data` and `swap-1` of the group `VG`.
fn disk(host: &Host) -> PathBuf {
    let path = host.path("volumes.img");
    host.prints(&format!(
        "sparse {} 96M\nrun\npart-init /dev/sda gpt\npart-add /dev/sda p 2048 65535\n\
         part-add /dev/sda p 65536 190000\nmkfs ext4 /dev/sda1\n",
        path.display()
    ));
    let whole = ["--find", "--show", "--offset", "33554432", "--sizelimit", "63717888"];
    let losetup = Command::new("/sbin/losetup").args(whole).arg(&path).output();
    let losetup = losetup.expect("losetup is needed (Debian package mount)");
    assert!(losetup.status.success(), "{losetup:?}");
    let device = String::from_utf8(losetup.stdout).unwrap().trim().to_owned();
    let filter = format!(
        "backup {{ backup = 0 archive = 0 }} devices {{ filter = [\"a|^{device}$|\", \"r|.*|\"] \
         use_devicesfile = 0 hints = \"none\" }}"
    );
    // No volume is made active: no device mapper is needed.
    let quiet = ["--driverloaded", "n", "--config", &filter];
    let small = ["--activate", "n", "--zero", "n", "--wipesignatures", "n", "--size", "8m"];
    for words in [
        vec!["pvcreate", &device],
        vec!["vgcreate", "VG", &device],
        [&["lvcreate", "VG", "--name", "data"], &small[..]].concat(),
        [&["lvcreate", "VG", "--name", "swap-1"], &small[..]].concat(),
    ] {
        run("/sbin/lvm", "lvm2", &[&words, &quiet[..]].concat());
    }
    run("/sbin/losetup", "mount", &["--detach", &device]);
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_volume_that_needs_the_device_mapper_says_so_and_the_rest_of_the_disk_is_there() {
    let host = Host::new("instant");
    let disk = disk(&host);
    let add = format!("add {} format:raw readonly:true\nrun\n", disk.display());
    let list = format!("{add}lvs\nlist-filesystems\n");
    let names = "/dev/VG/data\n/dev/VG/swap-1\n";
    let there = "/dev/sda1: ext4\n/dev/VG/data: unknown\n/dev/VG/swap-1: unknown\n";
    assert_eq!(host.prints(&list), format!("{names}{there}"));
    // All of them in a table, with their sizes.
    let arguments = ["virt-filesystems", "--all", "-l", "--uuid", "--format=raw", "-a"];
    let table = host.tool(&[&arguments[..], &[disk.to_str().unwrap()]].concat());
    let (out, said) = (text(&table.stdout), text(&table.stderr));
    assert!(table.status.success(), "{out}{said}");
    for start in ["/dev/sda1 ", "/dev/VG/data ", "/dev/VG/swap-1 ", "/dev/VG ", "/dev/sda "] {
        assert!(out.lines().any(|line| line.starts_with(start)), "{out}{said}");
    }
    let volume = |line: &&str| line.contains(" lv ") && line.contains(" 8388608 ");
    assert_eq!(out.lines().filter(volume).count(), 2, "{out}{said}");
    if Path::new("/sys/class/misc/device-mapper").exists() {
        let calls = "is-lv /dev/VG/swap-1\nvfs-type /dev/mapper/VG-data\n";
        assert_eq!(host.prints(&format!("{add}{calls}")), "true\n\n");
        let calls = "vg-activate-all false\n-is-lv /dev/VG/swap-1\n";
        let said = text(&host.session(&format!("{add}{calls}")).stderr);
        assert!(said.contains("/dev/VG/swap-1: this logical volume is not active"), "{said}");
        return;
    }
    // Each of them, by each of its names, as whatever kind of argument.
    let calls = [
        ("vfs-type /dev/VG/data", "/dev/VG/data"),
        ("mount /dev/mapper/VG-swap--1 /", "/dev/mapper/VG-swap--1"),
        ("mount btrfsvol:/dev/VG/data/home /", "btrfsvol:/dev/VG/data/home"),
        ("download /dev/VG/data /dev/null", "/dev/VG/data"),
        ("blockdev-getss /dev/VG/swap-1", "/dev/VG/swap-1"),
        ("vg-activate-all true", "all volume groups"),
    ];
    for (call, names) in calls {
        let said = text(&host.session(&format!("{add}{call}\n")).stderr);
        assert!(said.contains(names), "{call}: {said}");
        assert!(said.contains("device mapper"), "{call}: {said}");
        assert!(said.contains("--uml"), "{call}: {said}");
    }
    // Others are only not there.
    for name in ["/dev/VG/none", "/dev/mapper/VG-swap-1"] {
        let said = text(&host.session(&format!("{add}vfs-type {name}\n")).stderr);
        assert!(said.contains("No such file or directory"), "{said}");
    }
    // Tools that leave out what they cannot read do not tell of it themselves.
    let df = host.tool(&["virt-df", "--format=raw", "-a", disk.to_str().unwrap()]);
    let (out, said) = (text(&df.stdout), text(&df.stderr));
    assert!(df.status.success() && out.contains("/dev/sda1"), "{out}{said}");
    assert!(said.contains("device mapper") && said.contains("--uml"), "{said}");
    // No operating system was found, and that is why.
    let said = text(&host.session(&format!("{add}inspect-os\n")).stderr);
    assert!(said.contains("/dev/VG/data") && said.contains("device mapper"), "{said}");
}
