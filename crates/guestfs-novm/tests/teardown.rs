// SPDX-License-Identifier: Apache-2.0
//! Sessions in namespaces of a kernel that has dm and md, which is a User-Mode Linux of the test's own: whatever ends
//! them, the kernel has nothing of them afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// How long all sessions may take, in seconds.
const PATIENCE: &str = "900";
/// What a session with everything has: the encrypted device, two volumes, the array and the disks.
const ALL: &str = "ACTIVE dm-0 dm-1 dm-2 md127 loop0/loop loop1/loop swaps=2";

/// Boots the kernel with the script as process 1; yields what is printed.
fn boot() -> String {
    for (program, package) in [
        ("/usr/bin/linux.uml", "user-mode-linux"),
        ("/usr/bin/guestfish", "libguestfs-tools"),
        ("/usr/sbin/cryptsetup", "cryptsetup-bin"),
        ("/usr/sbin/lvm", "lvm2"),
        ("/usr/sbin/mdadm", "mdadm"),
        ("/usr/bin/pgrep", "procps"),
    ] {
        assert!(Path::new(program).exists(), "{program} is needed (Debian package {package})");
    }
    // Not in /tmp, which is another one there.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("init"), include_str!("data/teardown.sh")).unwrap();
    fs::set_permissions(path("init"), PermissionsExt::from_mode(0o755)).unwrap();
    let novm = Path::new(env!("CARGO_BIN_EXE_guestfs-novm"));
    let guestfsd = novm.with_file_name("guestfsd");
    assert!(guestfsd.exists(), "{}: cargo build -p guestfsd makes it", guestfsd.display());
    symlink(novm, path("guestfs-novm")).unwrap();
    symlink(guestfsd, path("guestfsd")).unwrap();
    fs::write(path("xstate.so"), uml_xstate::LIBRARY).unwrap();
    let output = Command::new("timeout")
        .args([PATIENCE, "linux.uml", "mem=1024M", "umid=u", "noreboot", "panic=1", "quiet"])
        .arg(format!("uml_dir={}/", dir.path().display()))
        .args(["con=null", "con0=null,fd:1", "ssl=null", "console=tty0"])
        .args(["root=none", "rootfstype=hostfs", "ro"])
        .arg(format!("init={}", path("init").display()))
        .env("LD_PRELOAD", path("xstate.so"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

#[test]
fn however_a_session_ends_the_kernel_has_nothing_of_it() {
    let printed = boot();
    let lines: Vec<&str> = printed.lines().collect();
    let ended: Vec<&&str> = lines.iter().filter(|line| line.starts_with("ENDED ")).collect();
    assert_eq!(ended.len(), 8, "{printed}");
    let (in_use, clean) = ended.split_last().unwrap();
    for line in clean {
        assert!(line.ends_with(": swaps=0"), "{line}\n{printed}");
    }
    let with_all = lines.iter().filter(|line| **line == ALL).count();
    assert_eq!(with_all, 5, "{printed}");
    // What is open elsewhere cannot go, and keeps what it lies on; the log says why.
    assert!(in_use.contains("dm-0 md127"), "{printed}");
    let names = |line: &&str| {
        line.contains("/dev/mapper/secret (dm-0) on md127 is still active")
            && line.contains("(sleep)")
    };
    assert!(lines.iter().any(names), "{printed}");
}
