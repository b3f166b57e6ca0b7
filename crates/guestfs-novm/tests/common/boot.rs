// SPDX-License-Identifier: Apache-2.0
//! A User-Mode Linux of a test's own, which is to sessions in namespaces what a host is whose kernel has dm and md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// How long all sessions may take, in seconds.
const PATIENCE: &str = "900";

/// Boots the kernel with this script as process 1; yields what is printed.
pub(crate) fn boot(script: &str) -> String {
    for (program, package) in [
        ("/usr/bin/linux.uml", "user-mode-linux"),
        ("/usr/bin/guestfish", "libguestfs-tools"),
        ("/usr/sbin/cryptsetup", "cryptsetup-bin"),
        ("/usr/sbin/dmsetup", "dmsetup"),
        ("/usr/sbin/lvm", "lvm2"),
        ("/usr/sbin/mdadm", "mdadm"),
        ("/usr/bin/pgrep", "procps"),
    ] {
        assert!(Path::new(program).exists(), "{program} is needed (Debian package {package})");
    }
    // Not in /tmp, which is another one there.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("init"), script).unwrap();
    fs::write(path("host.sh"), include_str!("../data/host.sh")).unwrap();
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
