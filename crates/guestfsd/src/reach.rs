// SPDX-License-Identifier: Apache-2.0
//! What reaches outside of the guest: refused to clients of a listener.
//!
//! In an appliance the machine belongs to the client, and nothing on it needs protection. A daemon that listens
//! runs on a machine that has other work to do. Its clients may read and change the machine's disks (except the
//! one that holds `/`) and what is on them; with `-r`, its files. They cannot run programs, load modules, read the
//! kernel's log or write the daemon's files, unless the daemon was started with `--allow-host-access`.
//!
//! | started with | sysroot | what reaches outside |
//! |---|---|---|
//! | `--channel` | any | allowed |
//! | `--listen` | any | refused |
//! | `--listen`, `--allow-host-access` | any | allowed |
//!
//! Beside what this module refuses, device nodes in filesystems that such a client mounts do not work.

use crate::config::Config;
use crate::kernel;
use guest_error::{Errno, Error, Result, shown};
use guestfs_api::Procedure;
use std::ffi::OsStr;

/// Procedures that reach outside, and how.
const PROCEDURES: &[(&str, &str)] = &[
    ("clevis_luks_unlock", "uses the network of this machine"),
    ("command", PROGRAM),
    ("command_lines", PROGRAM),
    ("command_out", PROGRAM),
    ("debug_upload", "writes files of this machine"),
    ("dmesg", "reads the log of this machine's kernel"),
    ("drop_caches", "has this machine's kernel drop its caches"),
    ("extlinux", PROGRAM),
    ("grub_install", PROGRAM),
    ("internal_upload", "writes files of this machine"),
    ("modprobe", "loads modules into this machine's kernel"),
    ("mount_9p", "mounts directories of this machine's host"),
    ("rsync", NETWORK),
    ("rsync_in", NETWORK),
    ("rsync_out", NETWORK),
    ("setcon", "changes the daemon's SELinux context"),
    ("sh", PROGRAM),
    ("sh_lines", PROGRAM),
    ("sh_out", PROGRAM),
    ("swapoff_device", SWAP),
    ("swapoff_file", SWAP),
    ("swapoff_label", SWAP),
    ("swapoff_uuid", SWAP),
    ("swapon_device", SWAP),
    ("swapon_file", SWAP),
    ("swapon_label", SWAP),
    ("swapon_uuid", SWAP),
];
/// As root, with the machine's devices and /proc: chroot does not protect them.
const PROGRAM: &str = "runs programs as root of this machine";
const NETWORK: &str = "uses the network of this machine";
const SWAP: &str = "changes where this machine swaps to";

/// Subcommands of `debug` that do not reach outside: all others do, or may.
const HARMLESS: &[&str] = &["device_speed", "error", "help", "progress"];

/// Filesystems that programs mount, and not the kernel.
const HELPERS: &[&str] = &["exfat-fuse", "fuseblk", "lowntfs-3g", "ntfs", "ntfs-3g"];

/// How a procedure reaches outside, if it does.
pub(crate) fn outside(procedure: &Procedure) -> Option<&'static str> {
    PROCEDURES.iter().find(|(name, _)| *name == procedure.name).map(|(_, how)| *how)
}

/// An error if the procedure reaches outside and its client must not.
pub(crate) fn check(config: &Config, procedure: &Procedure) -> Result<()> {
    match outside(procedure) {
        Some(how) if !config.host_access => Err(refused(procedure.name, how)),
        _ => Ok(()),
    }
}

/// The same for a subcommand of `debug`.
pub(crate) fn check_debug(config: &Config, subcommand: &OsStr) -> Result<()> {
    if config.host_access || HARMLESS.iter().any(|name| subcommand == *name) {
        return Ok(());
    }
    Err(refused(&format!("debug {}", shown(subcommand)), "reaches the daemon and its machine"))
}

/// The same for a type of filesystem: of those that are not on a device, some show files of this machine, and
/// some are its kernel's settings.
pub(crate) fn check_filesystem(config: &Config, fstype: &OsStr) -> Result<()> {
    let on_a_device = |name: &str| HELPERS.contains(&name) || kernel::filesystem(name);
    let all = |types: &str| types.split(',').all(|name| name.is_empty() || on_a_device(name));
    if config.host_access || fstype.to_str().is_some_and(all) {
        return Ok(());
    }
    let how =
        "is not known as a filesystem that is on a device, and may reach this machine's files";
    Err(refused(&format!("vfstype: {}", shown(fstype)), how))
}

fn refused(what: &str, how: &str) -> Error {
    let message = format!(
        "{what}: {how}: clients of a daemon that listens must not, unless it was started with \
         --allow-host-access"
    );
    Error::new(Errno::EPERM, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_outside_is_in_the_table_of_procedures() {
        for (name, _) in PROCEDURES {
            assert!(guestfs_api::PROCEDURES.iter().any(|p| p.name == *name), "{name}");
        }
    }
}
