// SPDX-License-Identifier: Apache-2.0
//! What goes wrong in a session: clients that are killed in the middle of a call, disks that are full,
//! filesystems that are damaged. The daemon says so and lives, and nothing is left of it at the end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Host, run, wait_until};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

fn host() -> Host {
    assert!(rustix::process::geteuid().is_root(), "this test is to be run as root");
    Host::new("instant")
}

/// A sparse image of so many MiB.
fn sparse(host: &Host, name: &str, mib: u64) -> PathBuf {
    let path = host.path(name);
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path
}

/// An image with what this program makes on it.
fn made(host: &Host, name: &str, mib: u64, mkfs: &[&str]) -> PathBuf {
    let path = sparse(host, name, mib);
    let program = format!("/usr/sbin/{}", mkfs[0]);
    let arguments = [&mkfs[1..], &[path.to_str().unwrap()]].concat();
    run(&program, "e2fsprogs, xfsprogs, btrfs-progs", &arguments);
    path
}

fn fifo(host: &Host) -> PathBuf {
    let path = host.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    path
}

fn start(host: &Host, script: &str) -> Child {
    host.command(script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the client: nothing is left of its session, and the next one works on the same disk.
fn kill(host: &Host, mut client: Child, add: &str) {
    client.kill().unwrap();
    client.wait().unwrap();
    host.nothing_is_left();
    let text = host
        .prints(&format!("{add}\nrun\nmkfs ext4 /dev/sda\nmount /dev/sda /\nwrite /x y\ncat /x\n"));
    assert_eq!(text, "y\n");
}

/// A whole session, in which calls may fail; what it printed, and its errors.
fn says(host: &Host, script: &str) -> (String, String) {
    let output = host.session(script);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}: {err}");
    (out, err)
}

#[test]
fn nothing_is_left_of_a_client_that_is_killed_while_it_uploads() {
    let host = host();
    let add = format!("add {} format:raw", sparse(&host, "a.img", 256).display());
    let fifo = fifo(&host);
    let script = format!(
        "{add}\nrun\nmkfs ext4 /dev/sda\nmount /dev/sda /\nupload {} /big\n",
        fifo.display()
    );
    let client = start(&host, &script);
    let mut source = OpenOptions::new().write(true).open(&fifo).unwrap();
    // More than what pipe and sockets hold: the daemon is in the middle of it.
    source.write_all(&vec![b'x'; 16 << 20]).unwrap();
    kill(&host, client, &add);
}

#[test]
fn nothing_is_left_of_a_client_that_is_killed_while_it_downloads() {
    let host = host();
    let add = format!("add {} format:raw", sparse(&host, "a.img", 256).display());
    let fifo = fifo(&host);
    let script = format!(
        "{add}\nrun\nmkfs ext4 /dev/sda\nmount /dev/sda /\ntouch /big\ntruncate-size /big 1G\ndownload /big {}\n",
        fifo.display()
    );
    let client = start(&host, &script);
    let mut sink = File::open(&fifo).unwrap();
    sink.read_exact(&mut vec![0; 1 << 20]).unwrap();
    kill(&host, client, &add);
}

#[test]
fn nothing_is_left_of_a_client_that_is_killed_while_a_filesystem_is_made() {
    let host = host();
    // Large enough for mkfs to take a while, and the image is sparse.
    let add = format!("add {} format:raw", sparse(&host, "a.img", 512 << 10).display());
    // Programs have no environment of ours: a label says whose they are.
    let label = format!("mid{}", std::process::id());
    let making = || {
        let lines = fs::read_dir("/proc").unwrap().flatten();
        let mut lines = lines.filter_map(|e| fs::read_to_string(e.path().join("cmdline")).ok());
        lines.any(|line| {
            line.contains("mke2fs") && line.contains(&label)
                || line.contains("mkfs.ext4") && line.contains(&label)
        })
    };
    let client =
        start(&host, &format!("{add}\nrun\nmkfs ext4 /dev/sda label:{label}\nsleep 600\n"));
    wait_until("mkfs runs", making);
    // The same disk with a small filesystem, so that the check is quick.
    let add = add.replace("a.img", "b.img");
    sparse(&host, "b.img", 64);
    kill(&host, client, &add);
    assert!(!making());
}

#[test]
fn a_full_disk_is_an_error_and_no_more() {
    let host = host();
    let add =
        format!("add {} format:raw", made(&host, "a.img", 16, &["mkfs.ext4", "-q"]).display());
    let large = sparse(&host, "large", 64);
    File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .write_all_at(&vec![b'x'; 48 << 20], 0)
        .unwrap();
    let tar = host.path("large.tar");
    run(
        "/usr/bin/tar",
        "tar",
        &["-C", large.parent().unwrap().to_str().unwrap(), "-cf", tar.to_str().unwrap(), "large"],
    );
    for call in [
        format!("upload {} /x", large.display()),
        format!("tar-in {} /", tar.display()),
        format!("base64-in {} /x", base64(&host, &large).display()),
        "fill 65 50000000 /x".to_owned(),
        "fill-pattern abc 50000000 /x".to_owned(),
        "fallocate64 /x 50000000".to_owned(),
        "copy-device-to-file /dev/sda /x".to_owned(),
        "dd /dev/sda /x".to_owned(),
    ] {
        let script = format!(
            "{add}\nrun\nmount /dev/sda /\n-{call}\nping-daemon\n-rm-f /x\n-rm-f /large\nwrite /y content\ncat /y\nrm /y\n"
        );
        let (out, err) = says(&host, &script);
        assert_eq!(out, "content\n", "{call}: {err}");
        assert!(err.contains("No space left on device"), "{call}: {err}");
    }
}

/// The same contents in base64.
fn base64(host: &Host, file: &Path) -> PathBuf {
    let path = host.path("large.base64");
    let text = run("/usr/bin/base64", "coreutils", &[file.to_str().unwrap()]);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn damaged_filesystems_are_errors_and_no_more() {
    let host = host();
    let kinds: [(&str, u64, &[&str]); 3] = [
        ("ext4", 64, &["mkfs.ext4", "-q"]),
        ("xfs", 400, &["mkfs.xfs", "-q"]),
        ("btrfs", 200, &["mkfs.btrfs", "-q"]),
    ];
    // What is overwritten: the whole head, fields of the superblock, what it points to.
    let damages: [(u64, usize); 4] =
        [(0, 4 << 20), (1024 + 4, 16), (65536 + 80, 64), (4096, 32768)];
    let mut script = String::new();
    let mut checks = "run\n-list-filesystems\n".to_owned();
    let mut number = 0;
    for (kind, mib, mkfs) in kinds {
        for damage in damages.map(Some).into_iter().chain([None]) {
            let path = made(&host, &format!("{kind}{number}.img"), mib, mkfs);
            let file = File::options().write(true).open(&path).unwrap();
            match damage {
                Some((offset, len)) => file.write_all_at(&vec![0xa5; len], offset).unwrap(),
                // Cut off in the middle.
                None => file.set_len((mib << 20) / 8).unwrap(),
            }
            script += &format!("add {} format:raw\n", path.display());
            let device = format!("/dev/sd{}", char::from(b'a' + number));
            for call in [
                "vfs-type",
                "vfs-label",
                "vfs-uuid",
                "blkid",
                "vfs-minimum-size",
                "tune2fs-l",
                "xfs-info",
                "inspect-get-type",
            ] {
                checks += &format!("-{call} {device}\n");
            }
            checks += &format!(
                "-mount-ro {device} /\n-ll /\n-find /\n-statvfs /\n-umount-all\n-fsck {kind} {device}\nping-daemon\n"
            );
            number += 1;
        }
    }
    checks += "-inspect-os\nlist-devices\n";
    let (out, err) = says(&host, &(script + &checks));
    assert!(out.ends_with(&format!("/dev/sd{}\n", char::from(b'a' + number - 1))), "{out}\n{err}");
    assert!(err.contains("mount_ro"), "{err}");
}

#[test]
fn garbage_in_place_of_tables_and_images_is_an_error_and_no_more() {
    let host = host();
    let mut script = String::new();
    let mut checks = "run\nlist-devices\nlist-partitions\n-list-filesystems\n".to_owned();
    // A GPT whose entries are damaged, an MBR whose extended partitions go round in circles, and heads of squashfs,
    // ISO 9660, LUKS, LVM, swap and a Windows registry, with nothing after them.
    let gpt = sparse(&host, "0.img", 8);
    run("/usr/sbin/sgdisk", "gdisk", &["-n", "1:2048:4096", gpt.to_str().unwrap()]);
    File::options().write(true).open(&gpt).unwrap().write_all_at(&[0xff; 100], 1024).unwrap();
    let mbr = sparse(&host, "1.img", 8);
    let mut sector = [0; 512];
    sector[446..462].copy_from_slice(&[0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 16, 0, 0]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut extended = sector;
    extended[446..462].copy_from_slice(&[0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    let file = File::options().write(true).open(&mbr).unwrap();
    file.write_all_at(&sector, 0).unwrap();
    file.write_all_at(&extended, 512).unwrap();
    let mut disks = vec![gpt, mbr];
    let heads: [(u64, &[u8]); 6] = [
        (0, b"hsqs\xff\xff\xff\xff\xff\xff\xff\xff"),
        (0x8000, b"\x01CD001\x01\xff\xff\xff\xff\xff\xff\xff\xff"),
        (0, b"LUKS\xba\xbe\x00\x02\xff\xff\xff\xff\xff\xff"),
        (512, b"LABELONE\xff\xff\xff\xff\xff\xff\xff\xff"),
        (4086, b"SWAPSPACE2"),
        (0, b"regf\xff\xff\xff\xff"),
    ];
    for (n, (offset, head)) in heads.into_iter().enumerate() {
        let path = sparse(&host, &format!("{}.img", n + 2), 2);
        File::options().write(true).open(&path).unwrap().write_all_at(head, offset).unwrap();
        disks.push(path);
    }
    for (n, disk) in (0u8..).zip(&disks) {
        script += &format!("add {} format:raw\n", disk.display());
        let device = format!("/dev/sd{}", char::from(b'a' + n));
        for call in [
            "part-list",
            "part-get-parttype",
            "isoinfo-device",
            "vfs-type",
            "blkid",
            "swapon-device",
            "part-to-partnum",
        ] {
            checks += &format!("-{call} {device}\n");
        }
        checks += &format!(
            "-part-get-gpt-type {device} 1\n-part-get-name {device} 1\n-part-get-mbr-id {device} 1\n"
        );
        checks += &format!("-part-resize {device} 1 3000\n-part-expand-gpt {device}\n");
        checks += &format!(
            "-mount {device} /\n-find /\n-umount-all\n-swapoff-device {device}\nping-daemon\n"
        );
    }
    checks += "-inspect-os\nnr-devices\n";
    let (out, err) = says(&host, &(script + &checks));
    assert!(out.ends_with(&format!("{}\n", disks.len())), "{out}\n{err}");
}
