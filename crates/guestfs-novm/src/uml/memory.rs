// SPDX-License-Identifier: Apache-2.0
//! Where User-Mode Linux has its memory: a file, whose pages the kernel kills it for if there is no room for them.

use crate::error::{Error, Result};
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::path::{Path, PathBuf};

/// Where the file may be. In memory it is fastest.
const PLACES: &[&str] = &["/dev/shm", "/tmp", "/var/tmp"];
/// A directory with room for so many MiB.
pub(super) fn place(wanted: u32) -> Result<PathBuf> {
    let mut looked_at = Vec::new();
    for place in PLACES.iter().map(Path::new).filter(|place| place.is_dir()) {
        let Ok(found) = statvfs(place) else { continue };
        let free = found.f_bavail.saturating_mul(found.f_frsize) >> 20;
        if found.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            looked_at.push(format!("{} is mounted noexec", place.display()));
        } else if free < u64::from(wanted) {
            looked_at.push(format!("{} has {free}", place.display()));
        } else {
            return Ok(place.to_owned());
        }
    }
    Err(Error::Missing(format!(
        "User-Mode Linux needs room for its memory, {wanted} MiB, and there is none: {}. Make room, or give the \
         session less memory (set-memsize, LIBGUESTFS_MEMSIZE)",
        looked_at.join(", ")
    )))
}

/// Whether there is room for a session that does not say how much it wants.
pub fn has_memory() -> bool {
    place(crate::qemu::MEMORY).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_place_has_room_for_is_refused_with_what_there_is() {
        let text = place(u32::MAX).unwrap_err().to_string();
        assert!(
            text.starts_with("User-Mode Linux needs room for its memory, 4294967295 MiB"),
            "{text}"
        );
        assert!(text.contains("/tmp"), "{text}");
        assert!(place(0).is_ok());
    }
}
