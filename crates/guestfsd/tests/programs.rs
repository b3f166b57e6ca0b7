// SPDX-License-Identifier: Apache-2.0
//! Programs of the guest, and watching its files. Needs root, loop devices and a static busybox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guest_error::Errno;
use std::path::Path;

/// A guest whose only program is busybox.
fn guest(arguments: &[&str]) -> (LoopDevice, Daemon) {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    common::need_root();
    let mut d = Daemon::start(&[&["--session=outer", "--allow-host-access"], arguments].concat());
    d.client.mount(image.name(), "/").unwrap();
    for dir in ["/bin", "/dev", "/proc", "/sys", "/etc"] {
        d.client.mkdir(dir).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let busybox = busybox.expect("this test needs a static busybox: install busybox-static");
    d.client.upload(&mut std::fs::File::open(busybox).unwrap(), "/bin/busybox").unwrap();
    d.client.chmod(0o755, "/bin/busybox").unwrap();
    d.client.ln_s("busybox", "/bin/sh").unwrap();
    (image, d)
}

#[test]
fn what_a_program_writes_is_the_result() {
    let (_image, mut d) = guest(&[]);
    // As they are: no shell sees them.
    let out = d.client.command(&["/bin/busybox", "echo", "$HOME", "a  b", ";"]).unwrap();
    assert_eq!(out, "$HOME a  b ;\n");
    assert_eq!(d.client.sh("echo one; echo; printf two").unwrap(), "one\n\ntwo");
    assert_eq!(d.client.sh_lines("echo one; echo; printf two").unwrap(), ["one", "", "two"]);
    assert_eq!(d.client.sh_lines("true").unwrap().len(), 0);
    assert_eq!(d.client.sh("printf 'a\\000b'").unwrap(), "a");
    let mut long = Vec::new();
    d.client.sh_out("busybox yes | busybox head -c 6000000", &mut long).unwrap();
    assert_eq!(long.len(), 6_000_000);
    let e = d.client.sh("busybox yes").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EFBIG));
    assert!(d.client.command(&[] as &[&str]).is_err());
}

#[test]
fn a_program_that_fails_is_an_error_with_its_own_words() {
    let (_image, mut d) = guest(&[]);
    let e = d.client.sh("echo out; echo what is wrong >&2; exit 3").unwrap_err();
    assert_eq!(e.to_string(), "what is wrong");
    assert!(d.client.sh("exit 3").unwrap_err().to_string().contains("exit status 3"));
    assert!(d.client.sh("kill -9 $$").unwrap_err().to_string().contains("signal 9"));
    let e = d.client.command(&["/nonesuch"]).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ENOENT));
    let e = d.client.sh_out("echo no >&2; exit 1", &mut Vec::new()).unwrap_err();
    assert_eq!(e.to_string(), "no");
    d.client.umount_all().unwrap();
    assert!(d.client.sh("true").unwrap_err().to_string().contains("'mount' first"));
}

#[test]
fn what_is_bound_for_a_program_is_gone_after_it() {
    let (_image, mut d) = guest(&[]);
    let seen = d.client.sh_lines("ls -d /dev/null /proc/self /sys/kernel").unwrap();
    assert_eq!(seen, ["/dev/null", "/proc/self", "/sys/kernel"]);
    // However it ends, and whatever it leaves running.
    d.client.sh("kill -9 $$").unwrap_err();
    d.client.sh("busybox sleep 60 >/dev/null 2>&1 </dev/null &").unwrap();
    d.client.sh("busybox mount -t tmpfs none /etc").unwrap();
    for dir in ["/dev", "/proc", "/sys", "/etc"] {
        let mut names = Vec::new();
        d.client.ls0(dir, &mut names).unwrap();
        assert!(names.is_empty(), "{dir}");
    }
    assert_eq!(d.client.mountpoints().unwrap().len(), 1);
    // A guest whose directories are links out of it, or not there, goes without.
    d.client.rmdir("/proc").unwrap();
    d.client.ln_s("/../../../proc", "/proc").unwrap();
    d.client.rmdir("/sys").unwrap();
    assert_eq!(d.client.sh("echo still runs").unwrap(), "still runs\n");
    d.client.umount_all().unwrap();
}

#[test]
fn with_the_network_programs_ask_this_machines_name_servers() {
    let Ok(here) = std::fs::read_to_string("/etc/resolv.conf") else { return };
    let (_image, mut d) = guest(&["--network"]);
    let there = |d: &mut Daemon| d.client.sh("busybox cat /etc/resolv.conf");
    assert!(there(&mut d).is_err());
    d.client.internal_write("/etc/resolv.conf", b"the guest's own\n").unwrap();
    assert_eq!(there(&mut d).unwrap(), *here);
    // As systemd leaves it: a link to what only a running system has.
    d.client.rm("/etc/resolv.conf").unwrap();
    d.client.ln_s("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf").unwrap();
    assert_eq!(there(&mut d).unwrap(), *here);
    assert_eq!(
        d.client.readlink("/etc/resolv.conf").unwrap(),
        "../run/systemd/resolve/stub-resolv.conf"
    );
    assert!(d.client.sh("busybox test -e /run").is_err());
}

#[test]
fn events_arrive_once_and_with_their_names() {
    const CREATE: i32 = 0x100;
    let (_image, mut d) = guest(&[]);
    let e = d.client.inotify_read().unwrap_err();
    assert!(e.to_string().contains("inotify_init"), "{e}");
    d.client.inotify_init(0).unwrap();
    let wd = d.client.inotify_add_watch("/etc", CREATE).unwrap();
    for name in ["/etc/b", "/etc/a", "/bin/other"] {
        d.client.touch(name).unwrap();
    }
    let events = d.client.inotify_read().unwrap();
    let seen: Vec<_> = events.iter().map(|e| (e.in_wd, e.in_mask, e.in_name.clone())).collect();
    assert_eq!(seen, [(wd, 0x100, "b".into()), (wd, 0x100, "a".into())]);
    assert!(d.client.inotify_read().unwrap().is_empty());
    d.client.touch("/etc/d").unwrap();
    d.client.touch("/etc/c").unwrap();
    assert_eq!(d.client.inotify_files().unwrap(), ["c", "d"]);
    d.client.inotify_rm_watch(i32::try_from(wd).unwrap()).unwrap();
    d.client.touch("/etc/e").unwrap();
    assert!(d.client.inotify_files().unwrap().is_empty());
    // A watch of a link out of the guest watches nothing of this machine.
    d.client.ln_s("/../../tmp", "/link").unwrap();
    assert_eq!(
        d.client.inotify_add_watch("/link", CREATE).unwrap_err().errno(),
        Some(Errno::ENOENT)
    );
    d.client.inotify_close().unwrap();
    assert!(d.client.inotify_close().is_err());
}

#[test]
fn a_queue_that_is_too_short_says_so_and_this_machines_limit_stays() {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";
    const OVERFLOW: u32 = 0x4000;
    let before = std::fs::read(LIMIT).unwrap();
    let (_image, mut d) = guest(&[]);
    d.client.inotify_init(3).unwrap();
    d.client.inotify_add_watch("/etc", 0x100).unwrap();
    for n in 0..10 {
        d.client.touch(format!("/etc/{n}")).unwrap();
    }
    let events = d.client.inotify_read().unwrap();
    assert_eq!(events.len(), 4);
    assert_eq!(events[3].in_mask, OVERFLOW);
    assert_eq!(std::fs::read(LIMIT).unwrap(), before);
    assert!(d.client.inotify_init(-1).is_err());
}
