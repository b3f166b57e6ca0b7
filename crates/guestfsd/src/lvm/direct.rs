// SPDX-License-Identifier: Apache-2.0
//! Which volumes there are, from LVM's metadata itself: where all is in order, the program need not be run to say so.
//!
//! The answer is that of the program, or none. It is none where another thing than metadata could change what LVM sees:
//! a device that is a part of something else, a name that is not its only one, a setting of the machine's.

use probe::lvm::{Doubt, Known, Survey, device};
use probe::{device_mapper, sysfs};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Kinds of devices on which LVM looks for physical volumes, by the kernel's names.
const KINDS: &[&str] = &["sd", "hd", "vd", "ubd", "xvd", "nvme", "mmcblk", "loop", "md"];
/// What the device mapper's UUIDs of encrypted devices begin with. Other kinds, but LVM's own, may be paths of the same
/// device.
const ENCRYPTED: &str = "CRYPT-";

/// What there is on these devices, if it is certain that the program would say the same.
pub(super) fn known(devices: &[PathBuf]) -> Result<Known, Doubt> {
    let maps = device_mapper::all();
    // LVM does not look into its own volumes.
    let own = maps.iter().filter(|map| map.is_of_lvm());
    let own: HashSet<u64> = own.filter_map(|map| number(&map.node()).ok()).collect();
    let mut seen = HashMap::new();
    let mut survey = Survey::default();
    for path in devices {
        let number = match number(path) {
            Ok(number) => number,
            Err(Errno::NOENT) => continue,
            Err(_) => return Err(Doubt("a device cannot be looked at")),
        };
        match seen.insert(number, path) {
            _ if own.contains(&number) => continue,
            Some(before) if before == path => continue,
            Some(_) => return Err(Doubt("a device has two names")),
            None => {}
        }
        if let Some(physical) = open(path)?.map_or(Ok(None), |file| device::read(&file))? {
            check(path, number, &maps)?;
            survey.add(path, physical)?;
        }
    }
    survey.finish()
}

fn number(path: &Path) -> Result<u64, Errno> {
    rustix::fs::stat(path).map(|stat| stat.st_rdev)
}

/// A device without a medium is none to LVM either.
fn open(path: &Path) -> Result<Option<File>, Doubt> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOMEDIUM | Errno::NXIO) => Ok(None),
        Err(_) => Err(Doubt("a device cannot be opened")),
    }
}

/// Whether LVM takes a device as it is, and calls it so.
fn check(path: &Path, number: u64, maps: &[device_mapper::Map]) -> Result<(), Doubt> {
    let plain = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'-' | b'_');
    // The filter has any character in the place of others.
    if !path.as_os_str().as_bytes().iter().all(plain) {
        return Err(Doubt("the name of a device has unusual characters"));
    }
    let directory = std::fs::canonicalize(sysfs::directory(number));
    let directory = directory.map_err(|_| Doubt("sysfs does not have a device"))?;
    let kernel = directory.file_name().unwrap_or_default();
    match maps.iter().find(|map| map.node().file_name() == Some(kernel)) {
        Some(map) => {
            let usual = map.uuid.starts_with(ENCRYPTED) && *path == map.path();
            if !usual || read(&directory.join("dm/suspended")) != Some("0".into()) {
                return Err(Doubt(
                    "a physical volume is on an unusual device of the device mapper",
                ));
            }
        }
        None => {
            let known = KINDS.iter().any(|kind| kernel.as_bytes().starts_with(kind.as_bytes()));
            if !known || *path != Path::new("/dev").join(kernel) || !is_node(path) {
                return Err(Doubt("a physical volume is on an unusual device"));
            }
        }
    }
    // A partition of a disk that is one of several paths is such a path, too.
    let disk = directory.join("partition").exists().then(|| directory.join(".."));
    for directory in [Some(directory), disk].into_iter().flatten() {
        let volumes = |name: &std::ffi::OsStr| {
            maps.iter().any(|map| map.is_of_lvm() && map.node().file_name() == Some(name))
        };
        let mut holders = std::fs::read_dir(directory.join("holders"))
            .map_err(|_| Doubt("sysfs does not say what a device is a part of"))?;
        if !holders.all(|holder| holder.is_ok_and(|holder| volumes(&holder.file_name()))) {
            return Err(Doubt("a physical volume is a part of something else"));
        }
    }
    Ok(())
}

fn is_node(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_block_device())
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}
