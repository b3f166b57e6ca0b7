// SPDX-License-Identifier: Apache-2.0
//! Tar archives of GNU tar and of hostile makers, unpacked into a guest, and archives made there. Needs root,
//! loop devices and GNU tar.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice, run, text};
use guestfs_api::options::{IsDir, TarIn, TarOut};
use proptest::prelude::*;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

fn guest() -> (LoopDevice, Daemon) {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    (image, d)
}

/// A tree with one of everything that archives know.
fn tree(dir: &Path) {
    // Devices and owners are part of the archive.
    common::need_root();
    let script = r#"
        set -e
        echo hello >a; ln a hard; ln -s /etc/passwd link; mkfifo fifo; mknod node c 5 1
        truncate -s 3M sparse; printf x | dd of=sparse bs=1 seek=1M conv=notrunc status=none
        mkdir -p "deep/$(printf 'x%.0s' $(seq 120))"
        echo y >"deep/$(printf 'x%.0s' $(seq 120))/$(printf 'y%.0s' $(seq 130))"
        ln -s "$(printf 'z%.0s' $(seq 150))" longlink
        chown 1234:5678 a; chmod 4750 sparse; mkdir -m 700 closed; touch -d '2001-02-03 04:05:06' closed
    "#;
    run(Command::new("bash").args(["-c", script]).current_dir(dir));
}

/// What `find` says of a tree, and what is in its files.
fn listing(dir: &Path) -> String {
    let find = r"find . -printf '%p %y %m %U:%G %l %T@\n' | grep -v ' d ' | sed 's/[.][0-9]*$//' | LC_ALL=C sort;
        find . -type d -printf '%p %m\n' | LC_ALL=C sort; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    run(Command::new("bash").args(["-c", find]).current_dir(dir))
}

#[test]
fn an_archive_with_attributes_has_times_to_the_nanosecond() {
    let (_image, mut d) = guest();
    d.client.touch("/f").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive");
    let all: [(&str, TarOut<'_>); 3] = [
        ("xattrs", TarOut { xattrs: Some(true), ..Default::default() }),
        ("acls", TarOut { acls: Some(true), ..Default::default() }),
        ("selinux", TarOut { selinux: Some(true), ..Default::default() }),
    ];
    // Before 1970, too.
    for (seconds, record) in [(1_000_000, "1000000.123456789"), (-2, "-1.876543211")] {
        d.client.utimens("/f", seconds, 123_456_789, seconds, 123_456_789).unwrap();
        for (what, options) in &all {
            let mut out = std::fs::File::create(&path).unwrap();
            d.client.tar_out("/", &mut out, options).unwrap();
            let archive = std::fs::read(&path).unwrap();
            let record = format!(" mtime={record}\n");
            assert!(archive.windows(record.len()).any(|w| w == record.as_bytes()), "{what}");
            if seconds > 0 {
                // As GNU tar reads it (which shows times before 1970 wrongly).
                let list = ["--full-time", "-tvf", text(&path), "./f"];
                let listed = run(Command::new("tar").args(list).env("TZ", "UTC"));
                assert!(listed.contains("1970-01-12 13:46:40.123456789"), "{what}: {listed}");
            }
            // And back.
            d.client.utimens("/f", 0, 0, 0, 0).unwrap();
            let mut file = std::fs::File::open(&path).unwrap();
            d.client.tar_in(&mut file, "/", &TarIn::default()).unwrap();
            let stat = d.client.statns("/f").unwrap();
            let time = (stat.st_mtime_sec, stat.st_mtime_nsec);
            assert_eq!(time, (seconds, 123_456_789), "{what}");
        }
    }
}

#[test]
fn archives_of_every_format_go_in_and_come_out_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (source, back) = (dir.path().join("source"), dir.path().join("back"));
    std::fs::create_dir(&source).unwrap();
    tree(&source);
    let expected = listing(&source);
    let (_image, mut d) = guest();
    let formats: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ];
    for (i, format) in formats.iter().enumerate() {
        let archive = dir.path().join("archive");
        run(Command::new("tar")
            .args(*format)
            .args(["--numeric-owner", "-C"])
            .arg(&source)
            .arg("-cf")
            .arg(&archive)
            .arg("."));
        let inside = format!("/{i}");
        d.client.mkdir(&inside).unwrap();
        let mut file = std::fs::File::open(&archive).unwrap();
        d.client.tar_in(&mut file, &inside, &TarIn::default()).unwrap();
        let mut out = std::fs::File::create(&archive).unwrap();
        let numeric = TarOut { numericowner: Some(true), ..Default::default() };
        d.client.tar_out(&inside, &mut out, &numeric).unwrap();
        std::fs::create_dir(&back).unwrap();
        run(Command::new("tar")
            .args(["--numeric-owner", "-C"])
            .arg(&back)
            .arg("-xpf")
            .arg(&archive));
        assert_eq!(listing(&back), expected, "{format:?}");
        std::fs::remove_dir_all(&back).unwrap();
    }
}

#[test]
fn compressed_archives_go_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), vec![b'x'; 1 << 20]).unwrap();
    let archive = dir.path().join("x.tgz");
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-czf").arg(&archive).arg("x"));
    let (_image, mut d) = guest();
    let gzip = Some(OsStr::new("gzip"));
    let compressed = TarIn { compress: gzip, ..Default::default() };
    d.client.tar_in(&mut std::fs::File::open(&archive).unwrap(), "/", &compressed).unwrap();
    assert_eq!(d.client.filesize("/x").unwrap(), 1 << 20);
    let mut out = Vec::new();
    d.client.tar_out("/", &mut out, &TarOut { compress: gzip, ..Default::default() }).unwrap();
    assert_eq!(out[..2], [0x1f, 0x8b]);
    let e = d.client.tar_in(&mut &b"nonsense"[..], "/", &compressed).unwrap_err();
    assert!(e.to_string().starts_with("gzip: "), "{e}");
    d.client.ping_daemon().unwrap();
}

#[test]
fn members_and_links_that_point_out_stay_inside() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    let archive = dir.path().join("archive");
    let script = format!(
        "set -e; ln -s {out} link; ln link hard; ln -s hard again; tar -cf through link hard again; \
         rm link hard again; mkdir link hard again; touch link/file hard/file again/file; \
         cp through hard.tar; cp through again.tar; tar -rf through link/file; \
         tar -rf hard.tar hard/file; tar -rf again.tar again/file; \
         echo x >file; tar -P --transform='s,file,/absolute,' -cf archive file; \
         tar -P --transform='s,file,../../../../..{out}/climbed,' -rf archive file; \
         tar -P --transform='s,file,a/../../b,' -rf archive file"
    );
    run(Command::new("bash").args(["-c", &script]).current_dir(dir.path()));
    let (_image, mut d) = guest();
    d.client.mkdir("/dir").unwrap();
    d.client.mkdir_p(out).unwrap();
    for name in ["through", "hard.tar", "again.tar"] {
        let mut file = std::fs::File::open(dir.path().join(name)).unwrap();
        let e = d.client.tar_in(&mut file, "/dir", &TarIn::default()).unwrap_err();
        assert!(e.to_string().contains("Not a directory"), "{name}: {e}");
        // The links themselves are there.
        for link in ["/dir/link", "/dir/hard"] {
            assert_eq!(d.client.readlink(link).unwrap(), out);
        }
        assert_eq!(d.client.lstatns("/dir/link").unwrap().st_nlink, 2);
        for name in ["link", "hard", "again"] {
            d.client.rm(format!("/dir/{name}")).unwrap();
        }
    }
    let mut file = std::fs::File::open(&archive).unwrap();
    d.client.tar_in(&mut file, "/dir", &TarIn::default()).unwrap();
    for inside in ["/dir/absolute", &format!("/dir{out}/climbed"), "/dir/b"] {
        assert!(d.client.exists(inside).unwrap(), "{inside}");
    }
    assert!(!d.client.exists(format!("{out}/file")).unwrap());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_link_out_that_the_archive_replaces_stays_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let script = "set -e; ln -s /etc a; ln -s ../x b; mkdir d; ln -s /d d/l; touch -d @1000000000 d; \
                  tar -cf archive a b d; rm a b; echo file >a; mkdir b; echo deep >b/x; tar -rf archive a b";
    run(Command::new("bash").args(["-c", script]).current_dir(dir.path()));
    let (_image, mut d) = guest();
    let mut file = std::fs::File::open(dir.path().join("archive")).unwrap();
    d.client.tar_in(&mut file, "/", &TarIn::default()).unwrap();
    assert_eq!(d.client.filesize("/a").unwrap(), 5);
    assert_eq!(d.client.filesize("/b/x").unwrap(), 5);
    assert_eq!(d.client.readlink("/d/l").unwrap(), "/d");
    assert_eq!(d.client.lstatns("/d").unwrap().st_mtime_sec, 1_000_000_000);
}

#[test]
fn a_link_in_the_place_of_a_directory_is_replaced_or_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lib")).unwrap();
    std::fs::write(dir.path().join("lib/x"), "x").unwrap();
    let archive = dir.path().join("archive");
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-cf").arg(&archive).arg("lib"));
    let (_image, mut d) = guest();
    for (keep, real) in [(true, "/usr"), (false, "/usr2")] {
        d.client.mkdir_p(format!("{real}/lib")).unwrap();
        d.client.ln_sf(format!("{real}/lib"), "/lib").unwrap();
        let options = TarIn { keepdirlink: Some(keep), ..Default::default() };
        d.client.tar_in(&mut std::fs::File::open(&archive).unwrap(), "/", &options).unwrap();
        assert_eq!(d.client.is_symlink("/lib").unwrap(), keep);
        assert_eq!(d.client.exists(format!("{real}/lib/x")).unwrap(), keep);
    }
    assert!(d.client.is_dir("/lib", &IsDir::default()).unwrap());
}

#[test]
fn members_that_fail_do_not_keep_others_from_being_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let make = "echo 1 >a; echo 2 >b; echo 3 >c; mkdir z; tar -cf archive a b c z";
    run(Command::new("bash").args(["-c", make]).current_dir(dir.path()));
    let (_image, mut d) = guest();
    for full in ["/a/x", "/b/x"] {
        d.client.mkdir_p(full).unwrap();
    }
    let mut archive = std::fs::File::open(dir.path().join("archive")).unwrap();
    let e = d.client.tar_in(&mut archive, "/", &TarIn::default()).unwrap_err();
    assert_eq!(e.to_string(), "a: Directory not empty (and 1 errors more)");
    assert_eq!(d.client.pread("/c", 100, 0).unwrap(), b"3\n");
    assert!(d.client.is_dir("/z", &IsDir::default()).unwrap());
    assert!(d.client.is_dir("/b/x", &IsDir::default()).unwrap());
}

#[test]
fn a_protected_directory_does_not_cost_other_members_their_owners() {
    let dir = tempfile::tempdir().unwrap();
    let make = "mkdir d; echo 1 >s; chown 1234:5678 d s; chmod 4755 s; tar -cf archive d s";
    run(Command::new("bash").args(["-c", make]).current_dir(dir.path()));
    let (_image, mut d) = guest();
    d.client.mkdir("/d").unwrap();
    d.client.set_e2attrs("/d", "i", &Default::default()).unwrap();
    let mut archive = std::fs::File::open(dir.path().join("archive")).unwrap();
    let e = d.client.tar_in(&mut archive, "/", &TarIn::default()).unwrap_err();
    assert!(e.to_string().starts_with("d/: Operation not permitted"), "{e}");
    let s = d.client.statns("/s").unwrap();
    assert_eq!((s.st_uid, s.st_gid, s.st_mode & 0o7777), (1234, 5678, 0o4755));
}

#[test]
fn modes_and_owners_are_the_archives_whatever_the_directory_gives() {
    let dir = tempfile::tempdir().unwrap();
    let make = "set -e; mkdir t; for i in 1 2; do for m in 600 644 444 666 0 4755 2711 1777; do \
                echo $i >t/r$m-$i; chmod $m t/r$m-$i; done; done; \
                for m in 600 640 4755 2755; do echo x >t/o$m; chown 1234:5678 t/o$m; chmod $m t/o$m; done; \
                tar --numeric-owner -cf archive -C t $(ls t)";
    run(Command::new("bash").args(["-c", make]).current_dir(dir.path()));
    let (_image, mut d) = guest();
    for directory in ["/plain", "/group", "/list", "/mask"] {
        d.client.mkdir(directory).unwrap();
    }
    d.client.chown(0, 5678, "/group").unwrap();
    d.client.chmod(0o2777, "/group").unwrap();
    let list = "user::rwx,user:1234:rwx,group::r-x,mask::rwx,other::---";
    d.client.acl_set_file("/list", "default", list).unwrap();
    for directory in ["/plain", "/group", "/list", "/mask"] {
        d.client.umask(if directory == "/mask" { 0o077 } else { 0o022 }).unwrap();
        let mut archive = std::fs::File::open(dir.path().join("archive")).unwrap();
        d.client.tar_in(&mut archive, directory, &TarIn::default()).unwrap();
        let mut names = Vec::new();
        d.client.ls0(directory, &mut names).unwrap();
        let names = String::from_utf8(names).unwrap();
        assert_eq!(names.split_terminator('\0').count(), 20, "{directory}");
        for name in names.split_terminator('\0') {
            let stat = d.client.lstatns(format!("{directory}/{name}")).unwrap();
            let mode = name[1..].split('-').next().unwrap();
            let expected = if name.starts_with('o') { (1234, 5678) } else { (0, 0) };
            assert_eq!(format!("{:o}", stat.st_mode & 0o7777), mode, "{directory}/{name}");
            assert_eq!((stat.st_uid, stat.st_gid), expected, "{directory}/{name}");
        }
    }
}

#[test]
fn excluded_names_stay_out() {
    let (_image, mut d) = guest();
    for file in ["/a.o", "/a.c", "/sub/b.o", "/sub/b.c", "/skip/c.c"] {
        d.client.mkdir_p(Path::new(file).parent().unwrap()).unwrap();
        d.client.internal_write(file, b"x").unwrap();
    }
    let mut out = Vec::new();
    let options = TarOut {
        excludes: Some(vec!["*.o".as_ref(), "skip".as_ref(), "lost+found".as_ref()]),
        ..Default::default()
    };
    d.client.tar_out("/", &mut out, &options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), out).unwrap();
    let names = run(Command::new("tar").arg("-tf").arg(dir.path().join("x")));
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["./", "./a.c", "./sub/", "./sub/b.c"]);
}

#[test]
fn what_is_no_archive_or_not_all_of_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), vec![7; 5000]).unwrap();
    let archive =
        run(Command::new("bash").args(["-c", "tar -cf a x; wc -c <a"]).current_dir(dir.path()));
    assert!(archive.trim().parse::<u64>().unwrap() >= 5632);
    let whole = std::fs::read(dir.path().join("a")).unwrap();
    let (_image, mut d) = guest();
    for bytes in [&b""[..], &[b'x'; 3000], &whole[..100], &whole[..600], &whole[..5600]] {
        let e = d.client.tar_in(&mut &*bytes, "/", &TarIn::default()).unwrap_err();
        assert!(e.to_string().starts_with("archive: "), "{e}");
        d.client.ping_daemon().unwrap();
    }
}

#[test]
fn damaged_archives_never_take_the_daemon_down() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut archives = Vec::new();
    for args in [
        &["--format=gnu", "-S"][..],
        &["--format=posix", "-S"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
    ] {
        let path = dir.path().with_extension("tar");
        run(Command::new("tar")
            .args(args)
            .arg("-C")
            .arg(dir.path())
            .arg("-cf")
            .arg(&path)
            .arg("."));
        archives.push(std::fs::read(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
    let (_image, d) = guest();
    let d = std::cell::RefCell::new(d);
    let strategy = (
        0..archives.len(),
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        any::<bool>(),
    );
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
    proptest!(config, |((which, changes, repair) in strategy)| {
        let mut bytes = archives[which].clone();
        for (at, value) in changes {
            let i = at.index(bytes.len());
            bytes[i] = value;
        }
        if repair {
            repair_checksums(&mut bytes);
        }
        let client = &mut d.borrow_mut().client;
        // Whether it is still an archive is not the question.
        let _ = client.tar_in(&mut &bytes[..], "/", &TarIn::default());
        client.ping_daemon().unwrap();
    });
}

/// Makes the checksum of every block that looks like a header right, so that what is wrong in it is met.
fn repair_checksums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
