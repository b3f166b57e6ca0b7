// SPDX-License-Identifier: Apache-2.0
//! What is made of several devices, set up before the daemon starts as the appliance of libguestfs does:
//! RAID arrays, volume groups, and volumes of dynamic disks of Windows. In the host's kernel they are taken down at the
//! end ([`super::init`]), and nothing there has the same name or UUID: to LVM that would be the same group, whose
//! volumes it would change. Where something is left out, the client is told.

use super::Kernel;
use crate::error::Error;
use crate::report::report;
use probe::device_mapper::{self, Map};
use probe::{lvm, partition};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The beginning of a superblock of md.
const MD_MAGIC: [u8; 4] = 0xA92B_4EFCu32.to_le_bytes();
const ASSEMBLE: (&str, &[&str]) = ("mdadm", &["--assemble", "--scan", "--auto=yes", "--run"]);
const ACTIVATE: (&str, &[&str]) = ("lvm", &["vgchange", "--activate", "ay"]);
const GROUPS: (&str, &[&str]) = ("lvm", &["vgs", "--noheadings", "--options", "vg_uuid,vg_name"]);
const CREATE: (&str, &[&str]) = ("ldmtool", &["create", "all"]);

/// Sets up arrays, volume groups and volumes if there are any on these devices, as far as the kernel can. Whether there
/// were.
pub(super) fn assemble(devices: &[PathBuf], environment: &[(&str, &str)], kernel: Kernel) -> bool {
    // The host's has what it has: no module is loaded for a session.
    let can = |has: fn() -> bool| kernel == Kernel::Own || has();
    let arrays = devices.iter().any(|d| is(d, is_member)) && can(has_arrays);
    if arrays {
        run(ASSEMBLE, &[], environment);
    }
    // Physical volumes may be on arrays.
    let volumes = arrays || devices.iter().any(|d| is(d, is_physical_volume));
    let volumes = volumes && can(has_mapper) && activate(environment);
    let dynamic = devices.iter().any(|d| is(d, is_dynamic_disk)) && can(has_mapper);
    if dynamic {
        run(CREATE, &[], environment);
    }
    arrays || volumes || dynamic
}

/// Activates the volume groups that are the session's alone. Whether there were any.
fn activate(environment: &[(&str, &str)]) -> bool {
    // Between looking and activating no other session does the same. If it cannot be locked, that is unlikely still.
    let program = File::open("/proc/self/exe").ok();
    program.as_ref().map(|file| flock(file, FlockOperation::LockExclusive));
    let hidden = device_mapper::hidden();
    if hidden.is_empty() {
        run(ACTIVATE, &[], environment);
        return true;
    }
    let listed = command(GROUPS, &[], environment).stdout(Stdio::piped()).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    // Neither a name nor a UUID has a space in it.
    let groups = listed.lines().filter_map(|line| line.trim().split_once(' '));
    let mut free = Vec::new();
    for (id, name) in groups {
        match hidden.iter().find(|map| map.is_of_group(name, id)) {
            Some(map) => report(&taken(name, map)),
            None => free.push(name),
        }
    }
    if !free.is_empty() {
        run(ACTIVATE, &free, environment);
    }
    !free.is_empty()
}

fn taken(group: &str, map: &Map) -> Error {
    Error::Active(format!(
        "the volume group {group} on the disks stays inactive: the host's kernel has {} of a group with the same name \
         or UUID, which is the host's or another session's; guestfs-novm --uml brings a kernel of its own",
        Path::new("/dev/mapper").join(&map.name).display()
    ))
}

/// The kernel loads its module for who opens this.
fn has_mapper() -> bool {
    File::open("/dev/mapper/control").is_ok()
}

fn has_arrays() -> bool {
    Path::new("/proc/mdstat").exists()
}

/// What is to be said where volumes are on these devices that this kernel cannot use, because it has no device mapper:
/// tools that leave out what they cannot read say nothing.
pub(super) fn missing_mapper(devices: &[PathBuf]) -> Option<Error> {
    if has_mapper() {
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

/// Runs a program with more arguments. If it fails, the client finds the array or volume group missing.
fn run(program: (&str, &[&str]), more: &[&str], environment: &[(&str, &str)]) {
    match command(program, more, environment).status() {
        Ok(status) => tracing::info!("{}: {status}", program.0),
        Err(e) => tracing::warn!("{}: {e}", program.0),
    }
}

fn command(
    (program, arguments): (&str, &[&str]),
    more: &[&str],
    environment: &[(&str, &str)],
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).args(more).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
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
