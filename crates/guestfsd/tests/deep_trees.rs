// SPDX-License-Identifier: Apache-2.0
//! Trees of more levels than a process may have descriptors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, run, text};
use guestfs_api::options::{CpioOut, TarOut};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

const LEVELS: usize = 2_500;
const DESCRIPTORS: u64 = 128;

/// A directory in a directory in ..., a file before and one after each.
fn deep_tree(top: &Path) {
    std::fs::create_dir(top).unwrap();
    let mut here = rustix::fs::open(top, OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..LEVELS {
        for file in ["a", "z"] {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            rustix::fs::openat(&here, file, flags, Mode::RUSR).unwrap();
        }
        rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
}

fn daemon_with_few_descriptors() -> Daemon {
    let d = Daemon::on_this_machine();
    let pid = Pid::from_child(&d.child);
    let few = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    rustix::process::prlimit(Some(pid), Resource::Nofile, few).unwrap();
    d
}

fn found(d: &mut Daemon, dir: &Path) -> BTreeSet<Vec<u8>> {
    let mut names = Vec::new();
    d.client.find0(text(dir), &mut names).unwrap();
    names.split(|&b| b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()
}

/// How many names a program lists of an archive.
fn listed(program: &mut Command, archive: &Path) -> usize {
    let archive = std::fs::File::open(archive).unwrap();
    run(program.stdin(Stdio::from(archive))).lines().count()
}

#[test]
fn a_tree_deeper_than_descriptors_go_is_listed_measured_archived_copied_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, copy, archive) =
        (dir.path().join("tree"), dir.path().join("copy"), dir.path().join("archive"));
    deep_tree(&tree);
    let mut d = daemon_with_few_descriptors();

    let names = found(&mut d, &tree);
    assert_eq!(names.len(), 3 * LEVELS);
    let du = run(Command::new("du").arg("-sk").arg(&tree));
    let (kib, _) = du.split_once('\t').unwrap();
    assert_eq!(d.client.du(text(&tree)).unwrap(), kib.parse::<i64>().unwrap());

    let mut out = std::fs::File::create(&archive).unwrap();
    d.client.tar_out(text(&tree), &mut out, &TarOut::default()).unwrap();
    assert_eq!(listed(Command::new("tar").arg("-t"), &archive), 3 * LEVELS + 1);
    let mut out = std::fs::File::create(&archive).unwrap();
    d.client.cpio_out(text(&tree), &mut out, &CpioOut::default()).unwrap();
    let mut sums = Vec::new();
    d.client.checksums_out("md5", text(&tree), &mut sums).unwrap();
    assert_eq!(sums.split(|&b| b == b'\n').count(), 2 * LEVELS + 1);

    d.client.cp_a(text(&tree), text(&copy)).unwrap();
    assert_eq!(found(&mut d, &copy), names);
    d.client.rm_rf(text(&tree)).unwrap();
    d.client.rm_rf(text(&copy)).unwrap();
    assert!(!tree.exists() && !copy.exists());
}
