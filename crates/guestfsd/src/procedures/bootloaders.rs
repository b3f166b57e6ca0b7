// SPDX-License-Identifier: Apache-2.0
//! Installing boot loaders: SYSLINUX, EXTLINUX, GRUB.
//!
//! The programs are this machine's. Those that write to filesystems that are mounted follow symbolic links there as if
//! they were this machine's own, and are kept from writing anything else.

use super::change::change;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Error, Result};
use guest_fs::paths::{GuestPath, path_of};
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::path::PathBuf;

/// Installs SYSLINUX on a FAT that is not mounted.
pub(crate) fn syslinux(s: &mut Session, device: Device, o: &options::Syslinux<'_>) -> Result<()> {
    let mut tool = Tool::new("syslinux").args(["--install", "--force"]);
    if let Some(directory) = o.directory {
        check_directory(directory)?;
        tool = tool.arg("--directory").arg(directory);
    }
    change(s, &device, tool.arg(device.path()))
}

/// An error for what might not go as a name through the shell that the program has run mtools.
fn check_directory(directory: &OsStr) -> Result<()> {
    let harmless =
        |&b: &u8| b.is_ascii_alphanumeric() || b" !#%&()+,-./=@^_{}~".contains(&b) || b >= 0x80;
    let bytes = directory.as_encoded_bytes();
    if !bytes.is_empty() && !bytes.starts_with(b"-") && bytes.iter().all(harmless) {
        return Ok(());
    }
    Err(Error::argument("directory", directory, "not the name of a directory that can be used"))
}

/// Installs EXTLINUX in a directory of a filesystem that is mounted.
pub(crate) fn extlinux(s: &mut Session, directory: GuestPath<'_>) -> Result<()> {
    let at = real_path(s, directory)?;
    let tool = Tool::on_guest(s.config(), "extlinux")?.arg("--install").arg(at);
    tool.ok().map_err(|e| e.within(directory))
}

/// Installs GRUB on a device, with its files below a directory.
pub(crate) fn grub_install(s: &mut Session, root: GuestPath<'_>, device: Device) -> Result<()> {
    let mut option = std::ffi::OsString::from("--root-directory=");
    option.push(real_path(s, root)?);
    let tool = Tool::on_guest(s.config(), "grub-install")?.arg(option);
    change(s, &device, tool.arg(device.path()))
}

/// The path that a directory has on this machine: the programs look for the filesystem that is mounted there.
fn real_path(s: &Session, path: GuestPath<'_>) -> Result<PathBuf> {
    path_of(s.open(path, OFlags::PATH | OFlags::DIRECTORY)?).on(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_could_take_for_more_than_a_name_is_refused() {
        for good in ["boot", "/boot/syslinux", "a b", "é"] {
            assert!(check_directory(OsStr::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "-x", "a'b", "a\"b", "a`b`", "$(x)", "a;b", "a|b", "a\nb", "a\\b", "*"] {
            assert!(check_directory(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
