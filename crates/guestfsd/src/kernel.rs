// SPDX-License-Identifier: Apache-2.0
//! What this machine's kernel can do, if necessary after a module of it was loaded.

use crate::tool::{self, Tool};
use std::fs::File;
use std::path::Path;

/// Whether a feature's file is there, if necessary after its module was loaded.
pub(crate) fn has(file: &str, module: &str) -> bool {
    let there = || Path::new(file).exists();
    there() || (load(module) && there())
}

/// Whether the kernel has the device mapper.
pub(crate) fn has_device_mapper() -> bool {
    // Where this process may not load modules, the kernel itself does so for who opens the node.
    File::open("/dev/mapper/control").is_ok() || has("/sys/class/misc/device-mapper", "dm-mod")
}

/// Whether the kernel has a filesystem that is on a device, if necessary after its module was loaded.
pub(crate) fn filesystem(name: &str) -> bool {
    let there = || {
        std::fs::read_to_string("/proc/filesystems")
            .is_ok_and(|text| text.lines().any(|line| line.strip_prefix('\t') == Some(name)))
    };
    there() || (load(name) && there())
}

fn load(module: &str) -> bool {
    tool::find("modprobe").is_some() && Tool::new("modprobe").args(["--", module]).ok().is_ok()
}
