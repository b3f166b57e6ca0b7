// SPDX-License-Identifier: Apache-2.0
//! What is made of several devices, set up before the daemon starts as the appliance of libguestfs does:
//! RAID arrays, volume groups, and volumes of dynamic disks of Windows. Only in a kernel of our own: in the host's they
//! would outlive the session. Of one that cannot have them, the client is told.

use crate::error::Error;
use probe::{lvm, partition};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The beginning of a superblock of md.
const MD_MAGIC: [u8; 4] = 0xA92B_4EFCu32.to_le_bytes();
const ASSEMBLE: (&str, &[&str]) = ("mdadm", &["--assemble", "--scan", "--auto=yes", "--run"]);
const ACTIVATE: (&str, &[&str]) = ("lvm", &["vgchange", "--activate", "ay"]);
const CREATE: (&str, &[&str]) = ("ldmtool", &["create", "all"]);

/// Sets up arrays, volume groups and volumes if there are any on these devices. Whether there were.
pub(super) fn assemble(devices: &[PathBuf], environment: &[(&str, &str)]) -> bool {
    let arrays = devices.iter().any(|d| is(d, is_member));
    let mut any = arrays && run(ASSEMBLE, environment);
    // Physical volumes may be on arrays.
    if arrays || devices.iter().any(|d| is(d, is_physical_volume)) {
        any |= run(ACTIVATE, environment);
    }
    if devices.iter().any(|d| is(d, is_dynamic_disk)) {
        any |= run(CREATE, environment);
    }
    any
}

/// What is to be said where volumes are on these devices that this kernel cannot use, because it has no device mapper:
/// tools that leave out what they cannot read say nothing.
pub(super) fn missing_mapper(devices: &[PathBuf]) -> Option<Error> {
    // The kernel loads its module for who opens this.
    if File::open("/dev/mapper/control").is_ok() {
        return None;
    }
    let any = devices.iter().any(|d| is(d, is_physical_volume) || is(d, is_dynamic_disk));
    any.then(|| {
        Error::Missing(
            "volumes on the disks (of LVM, or a dynamic disk of Windows) cannot be used: the host's \
             kernel has no device mapper (module dm_mod); guestfs-novm --uml brings one that has it"
                .into(),
        )
    })
}

fn is(device: &Path, what: fn(&File, u64) -> Option<bool>) -> bool {
    let Ok(mut file) = File::open(device) else { return false };
    let Ok(size) = file.seek(SeekFrom::End(0)) else { return false };
    what(&file, size).unwrap_or(false)
}

fn is_physical_volume(device: &File, _: u64) -> Option<bool> {
    Some(lvm::is_physical_volume(device))
}

fn is_dynamic_disk(device: &File, _: u64) -> Option<bool> {
    Some(partition::is_dynamic_disk(device))
}

/// Of every version: at the beginning, 4 KiB from there, or near the end.
fn is_member(device: &File, size: u64) -> Option<bool> {
    let old = (size & !0xFFFF).checked_sub(0x1_0000)?;
    let end = (size / 512).checked_sub(16)? / 8 * 8 * 512;
    Some([0, 4096, old, end].iter().any(|at| {
        let mut magic = [0; 4];
        device.read_exact_at(&mut magic, *at).is_ok() && magic == MD_MAGIC
    }))
}

/// Runs a program. If it fails, the client finds the array or volume group missing.
fn run((program, arguments): (&str, &[&str]), environment: &[(&str, &str)]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match command.status() {
        Ok(status) => tracing::info!("{program}: {status}"),
        Err(e) => tracing::warn!("{program}: {e}"),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(parts: &[(u64, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        for (at, bytes) in parts {
            file.as_file().write_all_at(bytes, *at).unwrap();
        }
        file
    }

    #[test]
    fn physical_volumes_and_members_of_arrays_are_known() {
        let blank = device(&[]);
        assert!(!is(blank.path(), is_physical_volume) && !is(blank.path(), is_member));
        assert!(is(device(&[(512, b"LABELONE")]).path(), is_physical_volume));
        assert!(!is(device(&[(2048, b"LABELONE")]).path(), is_physical_volume));
        for at in [0, 4096, (1 << 20) - (64 << 10), (1 << 20) - (8 << 10)] {
            assert!(is(device(&[(at, &MD_MAGIC)]).path(), is_member), "{at}");
        }
        assert!(!is("/nonexistent".as_ref(), is_member));
    }
}
