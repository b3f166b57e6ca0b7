// SPDX-License-Identifier: Apache-2.0
//! What a client needs in its environment for libguestfs to start this program in place of QEMU.
//!
//! libguestfs wants an appliance: with a "fixed appliance" in a directory it neither looks for
//! supermin nor builds anything. This module makes one of four files, none of which is used.

use crate::daemon;
use crate::error::{Context, Error, Result};
use crate::mode::{self, Mode};
use rustix::fs::{Mode as Permissions, OFlags};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Files of a fixed appliance, but for its root.
const EMPTY: &[&str] = &["README.fixed", "kernel", "initrd"];
/// Bytes of a root: libguestfs looks for an ext2 filesystem's UUID.
const ROOT_SIZE: usize = 4096;
const EXT2_MAGIC: (usize, &[u8]) = (1024 + 56, &[0x53, 0xEF]);
const EXT2_UUID: (usize, &[u8]) = (1024 + 104, b"guestfs-novm\0\0\0\x01");

/// Variables for a client.
pub(crate) fn environment(
    mode: Option<Mode>,
    guestfsd: Option<&Path>,
) -> Result<Vec<(&'static str, OsString)>> {
    let own = std::env::current_exe().on("this program")?;
    let mut variables = vec![
        ("LIBGUESTFS_BACKEND", "direct".into()),
        ("LIBGUESTFS_HV", own.into()),
        ("LIBGUESTFS_PATH", appliance()?.into()),
    ];
    if let Some(mode) = mode {
        variables.push((mode::VARIABLE, mode.name().into()));
    }
    if let Some(path) = guestfsd {
        let path = std::path::absolute(path).on(path.display())?;
        variables.push((daemon::VARIABLE, path.into()));
    }
    Ok(variables)
}

/// The same as lines of a shell.
pub(crate) fn shell(variables: &[(&str, OsString)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in variables {
        text.extend_from_slice(format!("export {name}='").as_bytes());
        for byte in value.as_bytes() {
            match byte {
                b'\'' => text.extend_from_slice(b"'\\''"),
                other => text.push(*other),
            }
        }
        text.extend_from_slice(b"'\n");
    }
    text
}

/// Makes the appliance, if it is not there; yields its directory.
fn appliance() -> Result<PathBuf> {
    let uid = rustix::process::geteuid();
    let dir = if uid.is_root() {
        PathBuf::from("/run/guestfs-novm")
    } else {
        match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(dir) if dir.is_absolute() && dir.is_dir() => dir.join("guestfs-novm"),
            _ => std::env::temp_dir().join(format!("guestfs-novm-{}", uid.as_raw())),
        }
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e).on(dir.display()),
        _ => {}
    }
    let found = std::fs::symlink_metadata(&dir).on(dir.display())?;
    if !found.is_dir() || found.uid() != uid.as_raw() || found.mode() & 0o022 != 0 {
        return Err(Error::Usage(format!(
            "{}: not a directory that only this user may write to; remove it",
            dir.display()
        )));
    }
    for name in EMPTY {
        write(&dir.join(name), b"")?;
    }
    let mut root = vec![0; ROOT_SIZE];
    for (at, bytes) in [EXT2_MAGIC, EXT2_UUID] {
        root[at..at + bytes.len()].copy_from_slice(bytes);
    }
    write(&dir.join("root"), &root)?;
    Ok(dir)
}

/// Writes a file unless it is there; several may do so at a time.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|m| m.len() == content.len() as u64) {
        return Ok(());
    }
    let new = path.with_extension(format!("{}", std::process::id()));
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&new, flags, Permissions::from_raw_mode(0o600)).on(new.display())?;
    std::io::Write::write_all(&mut std::fs::File::from(file), content).on(new.display())?;
    std::fs::rename(&new, path).on(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_every_value_as_it_is() {
        let text = shell(&[("A", "plain".into()), ("B", "it's; $x".into())]);
        assert_eq!(text, b"export A='plain'\nexport B='it'\\''s; $x'\n");
    }
}
