// SPDX-License-Identifier: Apache-2.0
//! User-Mode Linux: the same with a kernel of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{Host, run};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;

fn host() -> Host {
    assert!(
        std::path::Path::new("/usr/bin/linux.uml").exists(),
        "User-Mode Linux is needed (Debian package user-mode-linux)"
    );
    Host::new("uml")
}

#[test]
fn disks_of_every_kind_are_served_and_nothing_is_left() {
    let host = host();
    let (raw, base) = (host.ext4("a.img"), host.ext4("base.img"));
    let before = fs::read(&base).unwrap();
    let overlay = host.qcow2("top.qcow2", &base, "raw");
    let large = host.path("4k.img");
    fs::File::create(&large).unwrap().set_len(8 << 20).unwrap();
    let add = format!(
        "add {} format:raw label:first\nadd {}\nadd {} format:raw blocksize:4096\n",
        raw.display(),
        overlay.display(),
        large.display()
    );
    let text = host.prints(&format!(
        "{add}run\nlist-devices\nlist-disk-labels\nblockdev-getss /dev/sdc\n\
         mount /dev/sda /\ncat /hello\nwrite /new one\numount /\nmount /dev/sdb /\ncat /hello\nwrite /new two\n"
    ));
    assert_eq!(
        text,
        "/dev/sda\n/dev/sdb\n/dev/sdc\nfirst: /dev/sda\n4096\nfrom the host\n\nfrom the host\n\n"
    );
    let script = "run\nmount /dev/sda /\ncat /new\numount /\nmount /dev/sdb /\ncat /new\n";
    assert_eq!(host.prints(&format!("{add}{script}")), "one\ntwo\n");
    assert!(before == fs::read(&base).unwrap());
    run("/usr/bin/qemu-img", "qemu-utils", &["check", "-q", overlay.to_str().unwrap()]);
}

#[test]
fn a_disk_is_looked_at_beside_a_running_vm_and_keeps_none_from_starting() {
    common::a_look_is_in_no_vms_way(&host());
}

#[test]
fn what_ends_before_the_daemon_serves_is_the_error_of_the_first_call() {
    let host = host();
    let disk = host.ext4("a.img");
    let disk = disk.to_str().unwrap();
    let missing = host.path("none");
    for (variable, value, reasons) in [
        ("GUESTFS_NOVM_UML", "/bin/true", ["/bin/true ended with status 0", "user-mode-linux"]),
        ("GUESTFS_NOVM_UML", "/etc/fstab", ["/etc/fstab: Permission denied", "GUESTFS_NOVM_UML"]),
        ("GUESTFS_NOVM_UML_MODULES", missing.to_str().unwrap(), ["/none/", "user-mode-linux"]),
    ] {
        common::fails_at_the_first_call(&host, disk, (variable, value), &reasons);
    }
}

#[test]
fn a_daemon_that_ends_at_once_is_the_error_of_the_first_call() {
    common::a_daemon_that_ends_at_once_says_so(host());
}

#[test]
fn a_daemon_that_is_killed_is_named() {
    common::a_daemon_that_is_killed_is_named(&host());
}

#[test]
fn a_kernel_that_panics_says_why_to_the_client() {
    let host = host();
    let disk = host.ext4("a.img");
    let add = format!("add {} format:raw\nrun\n", disk.display());
    let kernel = host.path("kernel");
    symlink("/usr/bin/linux.uml", &kernel).unwrap();
    let kill = format!("!kill -SEGV $(pgrep -o -f ^{})\n", kernel.display());
    let mut client = host.command(&format!("{add}{kill}list-devices\n"));
    let output = client.env("GUESTFS_NOVM_UML", &kernel).output().unwrap();
    host.nothing_is_left();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let told = said.split_once("guestfs-novm: the session has broken off: User-Mode Linux ");
    let told = told.unwrap_or_else(|| panic!("{said}")).1;
    assert!(told.contains("; what it said last:\n") && told.contains("Kernel panic - "), "{said}");
}

#[test]
fn nothing_is_left_when_the_program_is_killed() {
    let host = host();
    let disk = host.ext4("a.img");
    for signal in [Signal::TERM, Signal::KILL] {
        let running = host.running(&format!("add {} format:raw", disk.display()));
        let pid = running.hypervisor();
        running.kill(pid, signal);
    }
}

#[test]
fn an_empty_file_is_a_disk_without_sectors() {
    common::an_empty_file_has_no_sectors(&host());
}

#[test]
fn a_raw_image_whose_format_was_not_given_never_looks_like_one_of_another_format() {
    common::a_guessed_image_stays_raw(&host());
}

#[test]
fn a_compressed_image_is_looked_at_and_never_written() {
    common::a_compressed_image_is_only_read(&host());
}
