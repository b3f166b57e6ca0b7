// SPDX-License-Identifier: Apache-2.0
//! Augeas: its tree lives in a process of its own, and is of the guest's files only. Needs root, loop
//! devices and libaugeas with its lenses (Debian: libaugeas0).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guest_error::Errno;
use guestfs_api::options;
use std::os::unix::ffi::OsStrExt;

/// A guest with a file of hosts, and a daemon that has it mounted.
fn guest() -> (LoopDevice, Daemon) {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 32);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    d.client.mkdir("/etc").unwrap();
    d.client.upload(&mut &b"127.0.0.1 localhost\n"[..], "/etc/hosts").unwrap();
    (image, d)
}

fn contents(d: &mut Daemon, path: &str) -> String {
    let mut out = Vec::new();
    d.client.download(path, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The process that has the tree.
fn helper(d: &Daemon) -> i32 {
    let mut pids: Vec<u32> = vec![d.child.id()];
    while let Some(pid) = pids.pop() {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if cmdline.ends_with(b"--helper=augeas\0") {
            return pid.try_into().unwrap();
        }
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            pids.extend(children.unwrap().split_whitespace().map(|p| p.parse::<u32>().unwrap()));
        }
    }
    panic!("no such process");
}

#[test]
fn what_is_set_and_saved_is_in_the_file() {
    let (_image, mut d) = guest();
    let g = &mut d.client;
    g.aug_init("/", 0).unwrap();
    assert_eq!(g.aug_get("/files/etc/hosts/1/ipaddr").unwrap(), "127.0.0.1");
    assert_eq!(g.aug_defvar("hosts", Some("/files/etc/hosts/*".as_ref())).unwrap(), 1);
    let made = g.aug_defnode("new", "/files/etc/hosts/01", "").unwrap();
    assert_eq!((made.i, made.b), (1, 1));
    g.aug_set("$new/ipaddr", "10.0.0.1").unwrap();
    g.aug_set("$new/canonical", "a").unwrap();
    g.aug_insert("/files/etc/hosts/01", "#comment", true).unwrap();
    g.aug_set("/files/etc/hosts/#comment", "made").unwrap();
    g.aug_set("/files/etc/hosts/1/alias", "x").unwrap();
    assert_eq!(g.aug_setm("/files/etc/hosts/1", Some("alias".as_ref()), "y").unwrap(), 1);
    g.aug_save().unwrap();
    assert_eq!(contents(&mut d, "/etc/hosts"), "127.0.0.1 localhost y\n# made\n10.0.0.1\ta\n");
    let g = &mut d.client;
    assert_eq!(g.aug_rm("/files/etc/hosts/1").unwrap(), 4);
    g.aug_mv("/files/etc/hosts/01", "/files/etc/hosts/7").unwrap();
    assert_eq!(g.aug_label("/files/etc/hosts/*[canonical = 'a']").unwrap(), "7");
    let below = g.aug_ls("/files/etc/hosts").unwrap();
    assert_eq!(below, ["/files/etc/hosts/#comment", "/files/etc/hosts/7"]);
    g.aug_close().unwrap();
    assert_eq!(g.aug_close().unwrap_err().errno(), Some(Errno::EINVAL));
}

#[test]
fn a_lens_can_be_given_a_file_after_the_start() {
    let (_image, mut d) = guest();
    let g = &mut d.client;
    g.upload(&mut &b"::1 six\n"[..], "/etc/hosts2").unwrap();
    // Neither files nor lenses are loaded: the lens is found when it is asked for.
    g.aug_init("/", 32 | 64).unwrap();
    g.aug_transform("Hosts.lns", "/etc/hosts*", &options::AugTransform::default()).unwrap();
    let remove = options::AugTransform { remove: Some(true) };
    g.aug_transform("Hosts.lns", "/etc/hosts", &remove).unwrap();
    g.aug_load().unwrap();
    assert_eq!(g.aug_match("/files/etc/*").unwrap(), ["/files/etc/hosts2"]);
    g.aug_clear("/files/etc/hosts2").unwrap();
}

#[test]
fn links_of_the_guest_do_not_lead_augeas_out_of_it() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("hosts");
    std::fs::write(&secret, "10.9.8.7 secret\n").unwrap();
    let (_image, mut d) = guest();
    let g = &mut d.client;
    g.rm("/etc/hosts").unwrap();
    g.ln_s(secret.to_str().unwrap(), "/etc/hosts").unwrap();
    g.ln_s(format!("../../../../..{}", secret.to_str().unwrap()), "/etc/fstab").unwrap();
    g.aug_init("/", 0).unwrap();
    assert_eq!(g.aug_match("/files//ipaddr").unwrap().len(), 0);
    // A file that is written through such a link is the guest's.
    g.mkdir_p(outside.path().to_str().unwrap()).unwrap();
    g.aug_set("/files/etc/hosts/1/ipaddr", "1.1.1.1").unwrap();
    g.aug_set("/files/etc/hosts/1/canonical", "x").unwrap();
    g.aug_save().ok();
    assert_eq!(std::fs::read(&secret).unwrap(), b"10.9.8.7 secret\n");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn lenses_are_this_machines_and_not_the_guests() {
    let (_image, mut d) = guest();
    let g = &mut d.client;
    g.mkdir_p("/usr/share/augeas/lenses/dist").unwrap();
    let lens = b"module Evil = let lns = [ label \"evil\" . store /.*/ ]\n";
    g.upload(&mut &lens[..], "/usr/share/augeas/lenses/dist/evil.aug").unwrap();
    g.aug_init("/", 0).unwrap();
    g.aug_transform("Evil.lns", "/etc/hosts", &options::AugTransform::default()).unwrap();
    g.aug_load().unwrap();
    assert_eq!(g.aug_match("/files//evil").unwrap().len(), 0);
    assert_eq!(g.aug_match("/augeas/load/Evil/error").unwrap().len(), 1);
}

#[test]
fn an_open_tree_keeps_nothing_mounted() {
    let (image, mut d) = guest();
    d.client.aug_init("/", 0).unwrap();
    d.client.umount("/", &options::Umount::default()).unwrap();
    assert!(!image.is_busy());
    assert_eq!(d.client.aug_get("/files/etc/hosts/1/canonical").unwrap(), "localhost");
    d.client.mount(image.name(), "/").unwrap();
    d.client.aug_set("/files/etc/hosts/1/canonical", "x").unwrap();
    d.client.aug_save().unwrap();
    assert_eq!(contents(&mut d, "/etc/hosts"), "127.0.0.1 x\n");
    d.client.umount_all().unwrap();
    let e = d.client.aug_get("/files").unwrap_err();
    assert!(e.to_string().contains("you must call 'aug-init' first"), "{e}");
}

#[test]
fn a_crash_of_the_library_is_one_calls_error() {
    let (_image, mut d) = guest();
    d.client.aug_init("/", 0).unwrap();
    let pid = rustix::process::Pid::from_raw(helper(&d)).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let e = d.client.aug_get("/files").unwrap_err();
    assert_eq!(e.errno(), Some(Errno::ECONNABORTED), "{e}");
    assert!(e.to_string().contains("call aug-init again"), "{e}");
    d.client.aug_init("/", 0).unwrap();
    assert_eq!(d.client.aug_get("/files/etc/hosts/1/ipaddr").unwrap(), "127.0.0.1");
}

#[test]
fn errors_say_what_augeas_says() {
    let (_image, mut d) = guest();
    let g = &mut d.client;
    g.aug_init("/", 0).unwrap();
    for (path, errno, text) in [
        ("/files/[", Errno::EINVAL, "/files/[: Invalid path expression: empty name"),
        ("/files/nonesuch", Errno::ENOENT, "/files/nonesuch: no matching node"),
        ("/files/etc/hosts/1", Errno::ENODATA, "node has no value"),
        ("/files/etc/hosts/1/*", Errno::EINVAL, "Too many matches for path expression"),
    ] {
        let e = g.aug_get(path).unwrap_err();
        assert_eq!(e.errno(), Some(errno), "{path}");
        assert!(e.to_string().contains(text), "{e}");
    }
    g.aug_set("/files/etc/hosts/nonsense", "x").unwrap();
    let e = g.aug_save().unwrap_err();
    assert!(e.to_string().contains("/etc/hosts: "), "{e}");
    let e = g.aug_insert("/files/etc/hosts/1", "a/b", false).unwrap_err();
    assert!(e.to_string().contains("label: a/b: "), "{e}");
    assert_eq!(g.aug_ls("/files/*").unwrap_err().errno(), Some(Errno::EINVAL));
    assert!(g.aug_ls("/").unwrap().iter().any(|n| n.as_bytes() == b"/files"));
}
