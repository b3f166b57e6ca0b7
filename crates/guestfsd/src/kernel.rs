// SPDX-License-Identifier: Apache-2.0
//! What this machine's kernel can do, if necessary after a module of it was loaded.

use crate::tool::{self, Tool};
use std::path::Path;

/// Whether a feature's file is there, if necessary after its module was loaded.
pub(crate) fn has(file: &str, module: &str) -> bool {
    let there = || Path::new(file).exists();
    there() || (load(module) && there())
}

/// Whether the kernel has the device mapper.
pub(crate) fn has_device_mapper() -> bool {
    has("/sys/class/misc/device-mapper", "dm-mod")
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
