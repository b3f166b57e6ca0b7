// SPDX-License-Identifier: Apache-2.0
//! Copying by rsync: in the guest, and from and to other machines.
//!
//! The program gets directories of the guest as descriptors, so that no symbolic link on the way to one leads out of the
//! guest; links below them it copies, and does not follow. The other side is on the network of this machine.

use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use guestfs_api::options;
use rustix::fs::{FileType, OFlags};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Copies in the guest.
pub(crate) fn rsync(
    s: &mut Session,
    src: GuestPath<'_>,
    dest: GuestPath<'_>,
    options: &options::Rsync,
) -> Result<()> {
    let (source, destination) = (source(s, src)?, destination(s, dest)?);
    let tool = program(s, options.archive, options.deletedest)?.current_dir(source.directory());
    let tool = tool.arg("--").arg(&source.name).arg(destination.path());
    tool.ok().map_err(|e| e.within(dest))
}

/// Copies from another machine.
pub(crate) fn rsync_in(
    s: &mut Session,
    remote: &OsStr,
    dest: GuestPath<'_>,
    options: &options::RsyncIn,
) -> Result<()> {
    check_remote(remote)?;
    let destination = destination(s, dest)?;
    let tool = program(s, options.archive, options.deletedest)?.arg("--").arg(remote);
    tool.arg(destination.path()).ok().map_err(|e| e.within(remote))
}

/// Copies to another machine.
pub(crate) fn rsync_out(
    s: &mut Session,
    src: GuestPath<'_>,
    remote: &OsStr,
    options: &options::RsyncOut,
) -> Result<()> {
    check_remote(remote)?;
    let source = source(s, src)?;
    let tool = program(s, options.archive, options.deletedest)?.current_dir(source.directory());
    tool.arg("--").arg(&source.name).arg(remote).ok().map_err(|e| e.within(remote))
}

fn program(s: &Session, archive: Option<bool>, delete: Option<bool>) -> Result<Tool> {
    let archive = (archive == Some(true)).then_some("--archive");
    let delete = (delete == Some(true)).then_some("--delete");
    Ok(Tool::on_guest(s.config(), "rsync")?.args(archive).args(delete))
}

/// A name in a directory that is held.
struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    fn directory(&self) -> std::path::PathBuf {
        proc_path(self.directory.as_fd())
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory().join(&self.name)
    }
}

/// What is copied: a file or directory, or what is in a directory where the path ends in `/`.
fn source(s: &Session, path: GuestPath<'_>) -> Result<Place> {
    if path.bytes().ends_with(b"/") {
        let directory = s.open(path, OFlags::PATH | OFlags::DIRECTORY)?.into();
        return Ok(Place { directory, name: "./".into() });
    }
    let entry = s.entry(path)?;
    let mut name = OsString::from("./");
    name.push(&entry.name);
    Ok(Place { directory: entry.dir, name })
}

/// Where it goes: into a directory that is there, or else to this name.
fn destination(s: &Session, path: GuestPath<'_>) -> Result<Place> {
    match s.open(path, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => return Ok(Place { directory: directory.into(), name: OsString::new() }),
        Err(e) if [Errno::ENOENT, Errno::ENOTDIR].contains(&e.errno()) => {}
        Err(e) => return Err(e),
    }
    let entry = s.entry(path)?;
    let is_link =
        |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    match entry.lstat() {
        // The program would follow it, as if it was one of this machine.
        Ok(stat) if is_link(stat) => {
            Err(Error::invalid("a symbolic link that does not lead to a directory").within(path))
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => {
            let mut name = entry.name;
            if path.bytes().ends_with(b"/") {
                name.push("/");
            }
            Ok(Place { directory: entry.dir, name })
        }
        Err(e) => Err(e).on(path),
    }
}

/// An error for what is no other machine: rsync would take it for a path of this one, or for an option of its own
/// or of the remote shell.
fn check_remote(remote: &OsStr) -> Result<()> {
    const SCHEME: &[u8] = b"rsync://";
    let bytes = remote.as_bytes();
    let host = match bytes.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => &bytes[SCHEME.len()..],
        _ => {
            let colon = bytes.iter().position(|&b| b == b':');
            let slash = bytes.iter().position(|&b| b == b'/').unwrap_or(bytes.len());
            bytes.get(..colon.filter(|&colon| colon < slash).unwrap_or(0)).unwrap_or_default()
        }
    };
    let user_and_host = host.split(|&b| b == b'/').next().unwrap_or_default();
    let options = user_and_host.split(|&b| b == b'@').any(|part| part.starts_with(b"-"));
    if user_and_host.is_empty() || options {
        let why = "must be [USER@]HOST:PATH, [USER@]HOST::MODULE/PATH or rsync://HOST/MODULE/PATH";
        return Err(Error::argument("remote", remote, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_another_machine_and_no_option() {
        let is_remote = |text: &str| check_remote(OsStr::new(text)).is_ok();
        for good in [
            "host:path",
            "user@host:/path",
            "host::module/path",
            "rsync://host/module",
            "[::1]:/x",
            "RSYNC://user@host:873/module",
        ] {
            assert!(is_remote(good), "{good}");
        }
        for bad in [
            "",
            "path",
            "/path",
            "/a:b",
            "./a:b",
            ":path",
            "::module",
            "rsync://",
            "rsync:///x",
            "-e:sh",
            "-host::module",
            "user@-oProxyCommand=x:path",
            "rsync://-x/module",
            "-e sh@host:/x",
        ] {
            assert!(!is_remote(bad), "{bad}");
        }
    }
}
