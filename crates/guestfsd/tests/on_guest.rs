// SPDX-License-Identifier: Apache-2.0
//! Programs of this machine that work on the guest's files: labels, boot loaders, copies. Needs root, loop devices,
//! policycoreutils, extlinux, rsync and btrfs-progs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guest_error::Errno;
use guestfs_api::options;

fn guest() -> (LoopDevice, Daemon) {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    (image, d)
}

fn label(d: &mut Daemon, path: &str) -> String {
    let value = d.client.lgetxattr(path, "security.selinux").unwrap_or_default();
    String::from_utf8(value).unwrap().trim_end_matches('\0').to_owned()
}

#[test]
fn files_are_labelled_below_several_directories_and_not_where_they_are_excluded() {
    let (_image, mut d) = guest();
    for dir in ["/a", "/a/out", "/b", "/c", "/a/other"] {
        d.client.mkdir(dir).unwrap();
        d.client.touch(format!("{dir}/file")).unwrap();
    }
    let all = "/.*\tsystem_u:object_r:default_t:s0\n";
    d.client.internal_write("/contexts", all.as_bytes()).unwrap();
    let excludes: Vec<&std::ffi::OsStr> = vec!["/a/out".as_ref(), "/none".as_ref()];
    let options = options::Setfiles { excludes: Some(excludes), ..Default::default() };
    d.client.setfiles("/contexts", &["/a", "/b"], &options).unwrap();
    let default = "system_u:object_r:default_t:s0";
    for (path, wanted) in [
        ("/a", default),
        ("/a/file", default),
        ("/a/other/file", default),
        ("/b/file", default),
        ("/a/out/file", ""),
        ("/c/file", ""),
    ] {
        assert_eq!(label(&mut d, path), wanted, "{path}");
    }
    let none = options::Setfiles::default();
    d.client.setfiles("/contexts", &[] as &[&str], &none).unwrap();
    d.client.internal_write("/bad", b"/(\tsystem_u:object_r:default_t:s0\n").unwrap();
    let e = d.client.setfiles("/bad", &["/c"], &none).unwrap_err();
    assert!(e.to_string().contains("/bad") && !e.to_string().contains("/tmp"), "{e}");
}

#[test]
fn a_compiled_specification_of_the_guest_is_not_read() {
    let (_image, mut d) = guest();
    d.client.touch("/file").unwrap();
    d.client.internal_write("/contexts", b"/.*\tsystem_u:object_r:default_t:s0\n").unwrap();
    d.client.internal_write("/contexts.bin", &[0xff; 4096]).unwrap();
    d.client.setfiles("/contexts", &["/file"], &options::Setfiles::default()).unwrap();
    assert_eq!(label(&mut d, "/file"), "system_u:object_r:default_t:s0");
}

#[test]
fn a_boot_loader_is_not_written_through_a_link_that_leads_out_of_the_guest() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "as it was").unwrap();
    let (_image, mut d) = guest();
    d.client.mkdir("/boot").unwrap();
    d.client.ln_s(&victim, "/boot/ldlinux.sys").unwrap();
    let installed = d.client.extlinux("/boot");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was", "{installed:?}");
    d.client.rm("/boot/ldlinux.sys").unwrap();
    d.client.extlinux("/boot").unwrap();
    assert!(d.client.filesize("/boot/ldlinux.sys").unwrap() > 0);
}

#[test]
fn rsync_does_not_write_through_links_that_lead_out_of_the_guest() {
    let outside = tempfile::tempdir().unwrap();
    let (_image, mut d) = guest();
    let archive = options::Rsync { archive: Some(true), deletedest: None };
    d.client.mkdir_p("/src/sub").unwrap();
    d.client.touch("/src/sub/file").unwrap();
    d.client.mkdir("/dest").unwrap();
    d.client.ln_s(outside.path(), "/dest/sub").unwrap();
    d.client.rsync("/src/", "/dest/", &archive).unwrap();
    d.client.ln_s(outside.path(), "/link").unwrap();
    let e = d.client.rsync("/src/", "/link", &archive).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL), "{e}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(d.client.filesize("/dest/sub/file").unwrap(), 0);
}

#[test]
fn what_is_mounted_to_be_read_only_is_not_written() {
    let image = LoopDevice::with_filesystem(&["mkfs.btrfs", "-q"], 200);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    for dir in ["/src", "/dest", "/below"] {
        d.client.mkdir(dir).unwrap();
    }
    d.client.touch("/src/file").unwrap();
    // The same filesystem, which can be written elsewhere: it is this mount that is read-only.
    d.client.mount_ro(image.name(), "/below").unwrap();
    let archive = options::Rsync { archive: Some(true), deletedest: None };
    let e = d.client.rsync("/src/", "/below/dest", &archive).unwrap_err();
    assert!(e.to_string().contains("Read-only file system"), "{e}");
    d.client.extlinux("/below/dest").unwrap_err();
    assert!(!d.client.exists("/dest/file").unwrap());
    assert!(!d.client.exists("/dest/ldlinux.c32").unwrap());
    d.client.extlinux("/dest").unwrap();
    assert!(d.client.exists("/dest/ldlinux.c32").unwrap());
}

#[test]
fn a_path_of_the_machine_is_no_remote() {
    let (_image, mut d) = guest();
    d.client.mkdir("/dest").unwrap();
    let e = d.client.rsync_in("/etc/", "/dest", &options::RsyncIn::default()).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL), "{e}");
    let e = d.client.rsync_out("/", "/tmp/x", &options::RsyncOut::default()).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL), "{e}");
}
