// SPDX-License-Identifier: Apache-2.0
//! Space of filesystems, initrds, and the daemon's insides. Needs root, loop devices, cpio, gzip, xz and scrub.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice, run};
use guest_error::Errno;
use guestfs_api::options::{CpioOut, Fstrim};
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::Command;

fn guest() -> (LoopDevice, Daemon) {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F", "-b", "1024"], 32);
    let mut d = Daemon::isolated();
    d.client.mount(image.name(), "/").unwrap();
    (image, d)
}

#[test]
fn usage_counts_blocks_once_and_follows_no_links() {
    let (_image, mut d) = guest();
    d.client.mkdir_p("/dir/sub").unwrap();
    d.client.upload(&mut &[1; 10_240][..], "/dir/file").unwrap();
    d.client.ln("/dir/file", "/dir/sub/same").unwrap();
    d.client.ln_s("/", "/dir/link").unwrap();
    d.client.sync().unwrap();
    assert_eq!(d.client.du("/dir/file").unwrap(), 10);
    assert_eq!(d.client.du("/dir").unwrap(), 12);
    assert_eq!(d.client.du("/dir/link").unwrap(), 0);
    assert_eq!(d.client.du("/nonesuch").unwrap_err().errno(), Some(Errno::ENOENT));
    let space = d.client.statvfs("/dir").unwrap();
    assert_eq!((space.bsize, space.namemax), (1024, 255));
    assert!(space.blocks > space.bfree && space.bfree > space.bavail);
}

#[test]
fn df_tells_of_what_the_session_has_mounted_and_of_nothing_else() {
    let (image, mut d) = guest();
    let second = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 16);
    d.client.mkdir("/mnt").unwrap();
    d.client.mount(second.name(), "/mnt").unwrap();
    for df in [d.client.df().unwrap(), d.client.df_h().unwrap()] {
        let df = df.to_str().unwrap();
        let lines: Vec<&str> = df.lines().collect();
        let [head, root, mnt] = lines[..] else { panic!("{df}") };
        assert!(head.starts_with("Filesystem "), "{df}");
        assert!(root.starts_with(image.name()) && root.ends_with(" /sysroot"), "{df}");
        assert!(mnt.starts_with(second.name()) && mnt.ends_with(" /sysroot/mnt"), "{df}");
    }
}

/// A FUSE filesystem whose program has ended: whoever asks it gets an error.
struct DeadFuse(tempfile::TempDir);

impl DeadFuse {
    fn new() -> Self {
        common::need_root();
        let fuse = std::fs::File::options().read(true).write(true).open("/dev/fuse");
        let fuse = fuse.expect("this test needs FUSE: modprobe fuse");
        let dir = tempfile::tempdir().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&fuse);
        let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        rustix::mount::mount("dead", dir.path(), "fuse", flags, options.as_c_str()).unwrap();
        Self(dir)
    }
}

impl Drop for DeadFuse {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[test]
fn df_does_not_ask_filesystems_of_the_machine() {
    let dead = DeadFuse::new();
    assert!(std::fs::read_dir(dead.0.path()).is_err(), "it is dead");
    let (_image, mut d) = guest();
    d.client.df().unwrap();
    d.client.df_h().unwrap();
    let mut machine = Daemon::on_this_machine();
    machine.client.df().unwrap();
}

#[test]
fn free_space_holds_zeroes_afterwards_and_nothing_else_has_changed() {
    let (image, mut d) = guest();
    let secret = b"a secret that is to be gone for good".repeat(400_000);
    d.client.upload(&mut &secret[..], "/secret").unwrap();
    d.client.sync().unwrap();
    d.client.rm("/secret").unwrap();
    d.client.internal_write("/kept", b"kept").unwrap();
    d.client.zero_free_space("/").unwrap();
    assert_eq!(d.client.filesize("/kept").unwrap(), 4);
    let mut names = Vec::new();
    d.client.ls0("/", &mut names).unwrap();
    assert_eq!(names.split(|&b| b == 0).filter(|n| !n.is_empty()).count(), 2);
    d.client.umount_all().unwrap();
    let mut all = Vec::new();
    std::fs::File::open(&image.path).unwrap().read_to_end(&mut all).unwrap();
    // But for what ext4 keeps for itself: 2 % of its blocks.
    let left = all.windows(36).filter(|w| *w == &secret[..36]).count() * 36;
    assert!(left <= all.len() / 50, "{left}");
}

#[test]
fn scrubbed_files_are_gone_and_links_out_are_not_followed() {
    let (_image, mut d) = guest();
    let outside = tempfile::NamedTempFile::new().unwrap();
    d.client.internal_write("/secret", b"secret").unwrap();
    d.client.ln_s("secret", "/link").unwrap();
    d.client.scrub_file("/link").unwrap();
    assert!(!d.client.exists("/secret").unwrap());
    d.client.ln_s(outside.path(), "/out").unwrap();
    assert_eq!(d.client.scrub_file("/out").unwrap_err().errno(), Some(Errno::ENOENT));
    assert!(outside.path().exists());
    d.client.mkdir("/dir").unwrap();
    assert_eq!(d.client.scrub_freespace("/dir").unwrap_err().errno(), Some(Errno::EEXIST));
    assert!(d.client.scrub_file("/dir").is_err());
}

#[test]
fn trimming_takes_numbers_that_make_sense() {
    let (_image, mut d) = guest();
    d.client.fstrim("/", &Fstrim::default()).unwrap();
    let some =
        Fstrim { offset: Some(1 << 20), length: Some(1 << 20), minimumfreeextent: Some(4096) };
    d.client.fstrim("/", &some).unwrap();
    for (options, named) in [
        (Fstrim { offset: Some(-1), ..Default::default() }, "offset"),
        (Fstrim { length: Some(0), ..Default::default() }, "length"),
        (Fstrim { minimumfreeextent: Some(0), ..Default::default() }, "minimumfreeextent"),
    ] {
        let e = d.client.fstrim("/", &options).unwrap_err();
        assert!(e.to_string().starts_with(named), "{e}");
    }
}

/// An initrd: microcode first, not compressed, then what `compress` makes of the tree.
fn initrd(dir: &Path, compress: &str) -> Vec<u8> {
    let script = format!(
        "set -e; mkdir -p early/kernel tree/bin; echo code >early/kernel/code; echo main >tree/init; \
         ln -f tree/init tree/bin/same; ln -sf init tree/link; \
         pack() {{ (cd $1 && find . | LC_ALL=C sort | cpio --quiet -o -H newc); }}; \
         pack early; pack tree | {compress}"
    );
    let out = Command::new("bash").args(["-c", &script]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn initrds_are_read_however_they_are_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let (_image, mut d) = guest();
    for compress in ["cat", "gzip -c", "xz -c --check=crc32", "xz -c --format=lzma", "zstd -c"] {
        let image = initrd(dir.path(), compress);
        d.client.upload(&mut &image[..], "/initrd").unwrap();
        assert_eq!(
            d.client.initrd_list("/initrd").unwrap(),
            [".", "kernel", "kernel/code", ".", "bin", "bin/same", "init", "link"],
            "{compress}"
        );
        for (name, content) in
            [("kernel/code", "code\n"), ("init", "main\n"), ("bin/same", "main\n")]
        {
            let found = d.client.initrd_cat("/initrd", name).unwrap();
            assert_eq!(found, content.as_bytes(), "{compress}: {name}");
        }
        for (name, errno) in
            [("nonesuch", Errno::ENOENT), ("bin", Errno::EISDIR), ("link", Errno::ENOENT)]
        {
            let e = d.client.initrd_cat("/initrd", name).unwrap_err();
            assert_eq!(e.errno(), Some(errno), "{e}");
        }
        for len in [1, 100, 200, 400, image.len() / 2] {
            d.client.upload(&mut &image[..len], "/cut").unwrap();
            assert!(d.client.initrd_list("/cut").is_err(), "{compress}: {len}");
        }
    }
}

#[test]
fn cpio_archives_hold_what_the_guest_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (_image, mut d) = guest();
    d.client.mkdir_p("/d/sub").unwrap();
    d.client.upload(&mut &[7; 100_000][..], "/d/file").unwrap();
    d.client.ln("/d/file", "/d/sub/hard").unwrap();
    d.client.ln_s("file", "/d/link").unwrap();
    d.client.chown(12, 34, "/d/file").unwrap();
    for format in ["newc", "crc"] {
        let mut out = Vec::new();
        let options = CpioOut { format: Some(OsStr::new(format)) };
        d.client.cpio_out("/d", &mut out, &options).unwrap();
        assert_eq!(out.len() % 512, 0);
        std::fs::write(dir.path().join("archive"), &out).unwrap();
        let script = "set -e; rm -rf x; mkdir x; cd x; cpio --quiet -idm <../archive; \
                      stat -c '%n %h %s %u:%g' file sub/hard; readlink link; cmp file sub/hard";
        let said = run(Command::new("bash").args(["-c", script]).current_dir(dir.path()));
        assert_eq!(said, "file 2 100000 12:34\nsub/hard 2 100000 12:34\nfile\n", "{format}");
    }
    let odc = CpioOut { format: Some(OsStr::new("odc")) };
    assert!(d.client.cpio_out("/d", &mut Vec::new(), &odc).is_err());
    d.client.ping_daemon().unwrap();
}

#[test]
fn the_daemon_shows_its_insides() {
    let mut d = Daemon::isolated();
    let debug = |d: &mut Daemon, command: &str, args: &[&str]| d.client.debug(command, args);
    assert!(debug(&mut d, "help", &[]).unwrap().to_str().unwrap().contains(" sh "));
    let said = debug(&mut d, "sh", &["echo", "one; echo two >&2"]).unwrap();
    assert_eq!(said, "one\ntwo");
    let e = debug(&mut d, "sh", &["echo why; exit 1"]).unwrap_err();
    assert_eq!(e.to_string(), "why");
    debug(&mut d, "setenv", &["LUNETTE", "a b"]).unwrap();
    assert_eq!(debug(&mut d, "sh", &["echo $LUNETTE"]).unwrap(), "a b");
    debug(&mut d, "unsetenv", &["LUNETTE"]).unwrap();
    assert_eq!(debug(&mut d, "sh", &["echo $LUNETTE"]).unwrap(), "");
    let e = debug(&mut d, "error", &["1000"]).unwrap_err();
    assert_eq!(e.to_string().len(), 1000);
    for (command, args) in [("nonesuch", &[][..]), ("setenv", &["x"]), ("spew", &["-1"])] {
        assert_eq!(debug(&mut d, command, args).unwrap_err().errno(), Some(Errno::EINVAL));
    }
    assert_eq!(d.client.utsname().unwrap().uts_sysname, "Linux");
    assert!(d.client.drop_caches(0).unwrap_err().to_string().contains("whattodrop"));
    d.client.internal_rhbz914931(&mut &[0; 100_000][..], 3).unwrap_err();
    d.client.ping_daemon().unwrap();
}
