// SPDX-License-Identifier: Apache-2.0
//! What holds a device: what is made of it, mounts, swap space, and processes that have it open.

use crate::layers::Layer;
use crate::{mounts, swaps};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Most of each that are named.
const MAX: usize = 5;

/// What holds a device, as far as this process may see.
pub(crate) fn of(layer: &Layer) -> Vec<String> {
    let mut found = Vec::new();
    let (major, minor) = layer.number;
    let number = libc::makedev(major, minor);
    let above = fs::read_dir(layer.directory.join("holders")).into_iter().flatten().flatten();
    found.extend(above.take(MAX).map(|e| format!("by {}", e.file_name().to_string_lossy())));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = format!("{major}:{minor}");
    let mounted = mounts::mounts(&table).filter(|(_, device)| *device == own);
    found.extend(mounted.take(MAX).map(|(at, _)| format!("mounted on {}", at.display())));
    let is_it = |found: fs::Metadata| found.file_type().is_block_device() && found.rdev() == number;
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps::parse(&table).iter().any(|path| fs::metadata(path).is_ok_and(is_it)) {
        found.push("swapped to".to_owned());
    }
    found.extend(processes(is_it).take(MAX));
    found
}

/// Processes that have such a device open.
fn processes(is_it: impl Fn(fs::Metadata) -> bool) -> impl Iterator<Item = String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(move |process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let has = open.any(|fd| fs::metadata(fd.path()).is_ok_and(&is_it));
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        has.then(|| format!("open in process {pid} ({})", name.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Kind;

    #[test]
    fn a_device_that_is_open_names_its_process() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let inode = file.metadata().unwrap().ino();
        let found: Vec<_> = processes(|found| found.ino() == inode).collect();
        let own = format!("open in process {} (", std::process::id());
        assert!(found.iter().any(|text| text.starts_with(&own)), "{found:?}");
    }

    #[test]
    fn a_device_that_nothing_holds_has_no_holders() {
        let layer = Layer {
            directory: "/nonexistent".into(),
            name: "dm-0".into(),
            number: (4095, 1_048_575),
            kind: Kind::Other,
        };
        assert_eq!(of(&layer), [""; 0]);
    }
}
