// SPDX-License-Identifier: Apache-2.0
//! Every call that takes a path and changes something, on links of the guest that point out of it: what is
//! outside stays as it is. Needs root and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use guestfs_api::xdr::Encoder;
use guestfs_api::{Kind, PROCEDURES, Procedure, options};
use guestfs_client::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

type C = Client<UnixStream>;
/// A call on a path.
type Change = fn(&mut C, &str) -> guestfs_client::Result<()>;

/// What changes what a path leads to, or is at it. Where a call takes two paths, both are tried.
const CHANGES: &[(&str, Change)] = &[
    ("touch", |c, p| c.touch(p)),
    ("internal_write", |c, p| c.internal_write(p, b"x")),
    ("internal_write_append", |c, p| c.internal_write_append(p, b"x")),
    ("write_file", |c, p| c.write_file(p, "x", 0)),
    ("upload", |c, p| c.upload(&mut &b"x"[..], p)),
    ("upload_offset", |c, p| c.upload_offset(&mut &b"x"[..], p, 0)),
    ("pwrite", |c, p| c.pwrite(p, b"x", 0).map(drop)),
    ("truncate", |c, p| c.truncate(p)),
    ("truncate_size", |c, p| c.truncate_size(p, 1)),
    ("fallocate", |c, p| c.fallocate(p, 1)),
    ("fallocate64", |c, p| c.fallocate64(p, 1)),
    ("fill", |c, p| c.fill(1, 1, p)),
    ("fill_pattern", |c, p| c.fill_pattern("x", 1, p)),
    ("fill_dir", |c, p| c.fill_dir(p, 2)),
    ("chmod", |c, p| c.chmod(0, p)),
    ("chown", |c, p| c.chown(1, 1, p)),
    ("lchown", |c, p| c.lchown(1, 1, p)),
    ("utimens", |c, p| c.utimens(p, 1, 1, 1, 1)),
    ("setxattr", |c, p| c.setxattr("user.x", "x", 1, p)),
    ("lsetxattr", |c, p| c.lsetxattr("trusted.x", "x", 1, p)),
    ("removexattr", |c, p| c.removexattr("user.kept", p)),
    ("lremovexattr", |c, p| c.lremovexattr("user.kept", p)),
    ("acl_set_file", |c, p| c.acl_set_file(p, "access", "u::rwx,g::rwx,o::rwx")),
    ("acl_delete_def_file", |c, p| c.acl_delete_def_file(p)),
    ("cap_set_file", |c, p| c.cap_set_file(p, "cap_chown=p")),
    ("mkdir", |c, p| c.mkdir(p)),
    ("mkdir_p", |c, p| c.mkdir_p(p)),
    ("mkdir_mode", |c, p| c.mkdir_mode(p, 0o777)),
    ("mkdtemp", |c, p| c.mkdtemp(format!("{p}XXXXXX")).map(drop)),
    ("mktemp", |c, p| c.mktemp(format!("{p}XXXXXX"), &options::Mktemp::default()).map(drop)),
    ("mkmountpoint", |c, p| c.mkmountpoint(p)),
    ("mkfifo", |c, p| c.mkfifo(0o600, p)),
    ("mknod", |c, p| c.mknod(0o100_600, 0, 0, p)),
    ("mknod_b", |c, p| c.mknod_b(0o600, 7, 0, p)),
    ("mknod_c", |c, p| c.mknod_c(0o600, 1, 3, p)),
    ("ln to", |c, p| c.ln("/own", p)),
    ("ln from", |c, p| c.ln(p, "/linked")),
    ("ln_f", |c, p| c.ln_f("/own", p)),
    ("ln_s", |c, p| c.ln_s("own", p)),
    ("ln_sf", |c, p| c.ln_sf("own", p)),
    ("cp to", |c, p| c.cp("/own", p)),
    ("cp_a to", |c, p| c.cp_a("/tree", p)),
    ("cp_r to", |c, p| c.cp_r("/tree", p)),
    ("cp_a of a file", |c, p| c.cp_a("/own", p)),
    ("mv to", |c, p| c.mv("/tree", p)),
    ("mv from", |c, p| c.mv(p, "/moved")),
    ("rename to", |c, p| c.rename("/own", p)),
    ("rename from", |c, p| c.rename(p, "/renamed")),
    ("copy_file_to_file", |c, p| {
        c.copy_file_to_file("/own", p, &options::CopyFileToFile::default())
    }),
    ("copy_attributes", |c, p| {
        let all = options::CopyAttributes { all: Some(true), ..Default::default() };
        c.copy_attributes("/own", p, &all)
    }),
    ("dd", |c, p| c.dd("/own", p)),
    ("base64_in", |c, p| c.base64_in(&mut &b"eA=="[..], p)),
    ("tar_in", |c, p| {
        let mut archive = Vec::new();
        c.tar_out("/tree", &mut archive, &options::TarOut::default())?;
        c.tar_in(&mut &archive[..], p, &options::TarIn::default())
    }),
    ("mkswap_file", |c, p| c.mkswap_file(p)),
    ("rmmountpoint", |c, p| c.rmmountpoint(p)),
    ("rm", |c, p| c.rm(p)),
    ("rm_f", |c, p| c.rm_f(p)),
    ("rmdir", |c, p| c.rmdir(p)),
    ("rm_rf", |c, p| c.rm_rf(p)),
];

/// Everything that can be seen of a directory and what is in it, but for when it was read.
fn look(dir: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.chain([dir.to_owned()]) {
        let m = std::fs::symlink_metadata(&path).unwrap();
        let content = if m.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        let text = format!("{:o} {} {} {times:?} {content:?}", m.mode(), m.uid(), m.nlink());
        seen.insert(path.display().to_string(), text);
    }
    seen
}

/// Links in the guest, by what is behind them.
fn make_links(c: &mut C, out: &str) {
    for (name, target) in [
        ("absolute", out.to_owned()),
        ("relative", format!("../../../../../../..{out}")),
        ("magic", format!("/proc/self/root{out}")),
        ("init", format!("/proc/1/root{out}")),
        ("cwd", format!("/proc/self/cwd{out}")),
    ] {
        c.rm_rf(format!("/{name}")).unwrap();
        c.rm_rf(format!("/{name}-file")).unwrap();
        c.ln_s(&target, format!("/{name}")).unwrap();
        c.ln_s(format!("{target}/file"), format!("/{name}-file")).unwrap();
    }
    c.rm_rf("/tree").unwrap();
    c.mkdir_p("/tree/sub").unwrap();
    c.internal_write("/tree/sub/file", b"new").unwrap();
    c.internal_write("/own", b"own").unwrap();
}

#[test]
fn nothing_that_a_call_changes_is_outside_of_the_guest() {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    let outside = tempfile::tempdir().unwrap();
    let out = common::text(outside.path());
    let file = outside.path().join("file");
    std::fs::write(&file, "content").unwrap();
    rustix::fs::setxattr(&file, "user.kept", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    std::fs::create_dir(outside.path().join("dir")).unwrap();
    let before = look(outside.path());
    let mut d = Daemon::of_a_listener();
    let c = &mut d.client;
    c.mount(image.name(), "/").unwrap();
    // Calls that were carried out.
    let mut done = BTreeMap::new();
    // First the guest has nothing where its links point, then it has the same there.
    for twin in [false, true] {
        for (name, change) in CHANGES {
            c.rm_rf(out).unwrap();
            if twin {
                c.mkdir_p(format!("{out}/dir")).unwrap();
                // Large enough to be swapped to.
                c.internal_write(format!("{out}/file"), &[7; 64 << 10]).unwrap();
                c.setxattr("user.kept", "x", 1, format!("{out}/file")).unwrap();
            }
            for link in ["absolute", "relative", "magic", "init", "cwd"] {
                make_links(c, out);
                for path in ["", "/", "/.", "/new", "/file", "/dir", "/dir/..", "/..", "-file"] {
                    // Whether it can do that is its own affair, as long as it answers and does it inside.
                    match change(c, &format!("/{link}{path}")) {
                        Ok(()) => *done.entry(*name).or_insert(0) += 1,
                        Err(guestfs_client::Error::Daemon { .. }) => {}
                        Err(e) => panic!("{name} /{link}{path}: {e}"),
                    }
                    assert_eq!(look(outside.path()), before, "{name} /{link}{path}");
                }
            }
        }
        c.ping_daemon().unwrap();
    }
    // A call that is refused wherever a link leads would prove nothing.
    let never: Vec<_> = CHANGES.iter().filter(|(name, _)| !done.contains_key(name)).collect();
    let never: Vec<&str> = never.into_iter().map(|(name, _)| *name).collect();
    assert_eq!(never, [""; 0]);
}

#[test]
fn what_looks_at_the_outside_sees_each_change() {
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let mut seen = vec![look(outside.path())];
    let mut changed = |what: &str| {
        let now = look(outside.path());
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    };
    std::fs::write(&file, "CONTENT").unwrap();
    changed("content");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    changed("mode");
    std::fs::File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    changed("times");
    std::fs::hard_link(&file, outside.path().join("link")).unwrap();
    changed("a name more");
    std::fs::remove_file(&file).unwrap();
    changed("a name less");
}

#[test]
fn a_copy_into_a_tree_of_links_stays_in_the_guest() {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 32);
    let outside = tempfile::tempdir().unwrap();
    let out = common::text(outside.path());
    std::fs::write(outside.path().join("file"), "content").unwrap();
    std::fs::create_dir(outside.path().join("dir")).unwrap();
    let before = look(outside.path());
    let mut d = Daemon::of_a_listener();
    let c = &mut d.client;
    c.mount(image.name(), "/").unwrap();
    c.mkdir_p("/from/tree/dir").unwrap();
    c.internal_write("/from/tree/dir/inner", b"new").unwrap();
    c.internal_write("/from/tree/file", b"new").unwrap();
    c.internal_write("/from/tree/other", b"new").unwrap();
    for up in [String::new(), "../../../../..".to_owned()] {
        c.rm_rf("/to").unwrap();
        c.mkdir_p("/to/tree").unwrap();
        c.ln_s(format!("{up}{out}/dir"), "/to/tree/dir").unwrap();
        c.ln_s(format!("{up}{out}/file"), "/to/tree/file").unwrap();
        // A directory is not copied over a link, a file not through one that leads nowhere.
        assert!(c.cp_a("/from/tree", "/to").is_err());
        assert!(c.cp_r("/from/tree", "/to").is_err());
        assert_eq!(look(outside.path()), before);
        // The rest has been copied all the same.
        assert!(c.exists("/to/tree/other").unwrap());
        c.rm_rf("/to").unwrap();
        assert_eq!(look(outside.path()), before);
    }
}

/// Procedures that are not called on links: they end the session or what it has mounted, wait, or run what
/// they are told.
const LEFT_OUT: &[&str] = &[
    "umount",
    "umount_all",
    "internal_autosync",
    "internal_exit",
    "internal_rhbz914931",
    "inotify_read",
    "sleep",
    "debug",
    "command",
    "command_lines",
    "command_out",
    "sh",
    "sh_lines",
    "sh_out",
];

/// Arguments that are no paths, with a value that makes sense; all others are the path.
const TEXTS: &[(&str, &str)] = &[
    ("csumtype", "md5"),
    ("ctype", "gzip"),
    ("acltype", "access"),
    ("acl", "u::rwx,g::rwx,o::rwx"),
    ("xattr", "user.kept"),
    ("regex", "."),
    ("pattern", "."),
    ("fstype", "ext4"),
    ("options", ""),
    ("vfstype", "ext4"),
    ("cap", "cap_chown=p"),
];

/// Arguments of a procedure, every path of which is this one; none if it takes no path.
fn arguments(p: &Procedure, path: &str) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut e = Encoder::new(&mut body);
    let mut takes_path = false;
    for argument in p.args.iter().chain(p.options) {
        match argument.kind {
            Kind::FileIn | Kind::FileOut => {}
            Kind::Bool => e.u32(0),
            Kind::Int => e.i32(64),
            Kind::Int64 => e.i64(64),
            Kind::BufferIn => e.opaque(b"x").unwrap(),
            Kind::OptString => e.u32(0),
            Kind::Device | Kind::Mountable => e.string("/dev/null").unwrap(),
            Kind::DeviceList => e.strings::<&str>(&[]).unwrap(),
            Kind::FilenameList => e.strings(&["file"]).unwrap(),
            Kind::PathnameList | Kind::StringList => {
                takes_path |= argument.kind == Kind::PathnameList;
                e.strings(&[path]).unwrap();
            }
            Kind::Key | Kind::GUID | Kind::Filename => e.string("x").unwrap(),
            Kind::Pathname | Kind::DevOrPath | Kind::MountableOrPath | Kind::String => {
                let text = TEXTS.iter().find(|(name, _)| *name == argument.name);
                takes_path |= text.is_none();
                e.string(text.map_or(path, |(_, text)| text)).unwrap();
            }
        }
    }
    takes_path.then_some(body)
}

#[test]
fn no_call_of_the_table_answers_what_is_outside_of_the_guest_or_changes_it() {
    const SECRET: &[u8] = b"SECRET";
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 64);
    let outside = tempfile::tempdir().unwrap();
    let out = common::text(outside.path());
    std::fs::write(outside.path().join("file"), "SECRET content\n".repeat(16)).unwrap();
    std::fs::create_dir(outside.path().join("dir")).unwrap();
    std::fs::write(outside.path().join("dir/SECRET name"), "SECRET content\n").unwrap();
    let before = look(outside.path());
    let mut d = Daemon::of_a_listener();
    d.client.mount(image.name(), "/").unwrap();
    let mut asked = 0;
    for p in PROCEDURES.iter().filter(|p| !LEFT_OUT.contains(&p.name)) {
        make_links(&mut d.client, out);
        for link in ["absolute", "relative", "init"] {
            for path in ["", "/file", "/dir", "-file"] {
                let path = format!("/{link}{path}");
                let Some(body) = arguments(p, &path) else { continue };
                let mut file = Vec::new();
                let result = d.client.perform(p, &body, &mut &b"x"[..], &mut file);
                let answer = [result.unwrap_or_default(), file].concat();
                let told = answer.windows(SECRET.len()).any(|window| window == SECRET);
                assert!(!told, "{} {path}", p.name);
                assert_eq!(look(outside.path()), before, "{} {path}", p.name);
                asked += 1;
            }
        }
    }
    d.client.ping_daemon().unwrap();
    assert!(asked > 1000, "the table has more procedures that take paths: {asked} calls");
    // Where the guest has the same, its links lead there: the calls do answer what they find.
    let mut tell = BTreeSet::new();
    for p in PROCEDURES.iter().filter(|p| !LEFT_OUT.contains(&p.name)) {
        make_links(&mut d.client, out);
        d.client.rm_rf(out).unwrap();
        d.client.mkdir_p(format!("{out}/dir/SECRET name")).unwrap();
        d.client.internal_write(format!("{out}/file"), &b"SECRET content\n".repeat(16)).unwrap();
        for path in ["/absolute", "/absolute/file", "/absolute/dir"] {
            let Some(body) = arguments(p, path) else { continue };
            let mut file = Vec::new();
            let result = d.client.perform(p, &body, &mut &b"x"[..], &mut file);
            let answer = [result.unwrap_or_default(), file].concat();
            if answer.windows(SECRET.len()).any(|window| window == SECRET) {
                tell.insert(p.name);
            }
        }
    }
    for name in ["download", "pread", "ls0", "find0", "grep", "tar_out", "head", "strings"] {
        assert!(tell.contains(name), "{name} is not among {tell:?}");
    }
    assert!(tell.len() > 20, "{tell:?}");
}
