// SPDX-License-Identifier: Apache-2.0
//! Volumes that LVM's metadata has, but for which there is no device: why, and what to do about it.

use super::report::Report;
use super::{command, volumes};
use crate::kernel;
use crate::session::Session;
use guest_error::{Errno, Error};
use probe::device_mapper;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is wrong where volumes cannot be used, and what to do about it.
pub(crate) const NO_DEVICE_MAPPER: &str = "LVM's volumes need the device mapper (module dm_mod), which this kernel does not have; \
     guestfs-novm --uml and libguestfs's own virtual machine bring a kernel that has it";
/// The same where they only have not been made active.
const NOT_ACTIVE: &str = "this logical volume is not active; vg-activate-all makes it so";

/// Why there is no device of this name, if it is that of a volume: `ENODEV`.
pub(crate) fn without_device(s: &mut Session, name: &OsStr) -> Option<Error> {
    let named = |volume: &PathBuf| is_named(name.as_bytes(), volume);
    volumes(s).ok()?.iter().any(named).then(|| why().within(name))
}

/// One field of what LVM's metadata has of a volume that has no device, as `lvs` writes it; sizes are in bytes.
pub(crate) fn field_of_inactive(s: &mut Session, name: &OsStr, field: &str) -> Option<String> {
    let lvs = command(s, "lvs").ok()?;
    let report = Report::run(lvs, &["vg_name", "lv_name", field], &[]).ok()?;
    let of_volume = report.rows().find(|row| {
        let part = |name| row.text(name).unwrap_or_default();
        is_named(name.as_bytes(), &Path::new("/dev").join(part("vg_name")).join(part("lv_name")))
    });
    of_volume?.text(field).ok().map(str::to_owned)
}

/// Volumes without a device; the error is that of the first.
pub(crate) fn inactive(s: &mut Session) -> Option<Error> {
    let active: Vec<PathBuf> =
        device_mapper::volumes().into_iter().map(|(volume, _)| volume.path()).collect();
    let all = volumes(s).ok()?;
    all.iter().find(|volume| !active.contains(volume)).map(|volume| why().within(volume))
}

fn why() -> Error {
    let why = if kernel::has_device_mapper() { NOT_ACTIVE } else { NO_DEVICE_MAPPER };
    Error::new(Errno::ENODEV, why)
}

/// Whether a device, or that of a btrfs subvolume, is named so: `/dev/VG/LV` or `/dev/mapper/VG-LV`.
fn is_named(name: &[u8], volume: &Path) -> bool {
    let mut parts = volume.iter().skip(2).map(|part| part.to_string_lossy().replace('-', "--"));
    let (Some(group), Some(own)) = (parts.next(), parts.next()) else { return false };
    let mapped = format!("/dev/mapper/{group}-{own}");
    let (device, is_subvolume) = match name.strip_prefix(b"btrfsvol:") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    [volume.as_os_str().as_bytes(), mapped.as_bytes()].into_iter().any(|known| {
        let rest = device.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || (is_subvolume && rest.starts_with(b"/")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_two_names_and_may_have_subvolumes() {
        let volume = Path::new("/dev/my-vg/a-b");
        let is = |name: &str| is_named(name.as_bytes(), volume);
        assert!(is("/dev/my-vg/a-b") && is("/dev/mapper/my--vg-a--b"));
        assert!(is("btrfsvol:/dev/my-vg/a-b/home") && is("btrfsvol:/dev/mapper/my--vg-a--b/x/y"));
        for other in ["/dev/my-vg/a", "/dev/my-vg/a-b/c", "/dev/mapper/my-vg-a-b", "", "btrfsvol:"]
        {
            assert!(!is(other), "{other}");
        }
    }
}
