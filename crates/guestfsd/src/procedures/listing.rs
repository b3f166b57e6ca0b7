// SPDX-License-Identifier: Apache-2.0
//! Listings of directories as ls writes them, for people. Owners are numbers: names would be those of the machine
//! that runs the daemon, not of the guest.

use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Result};
use guest_fs::paths::{GuestPath, proc_path};
use rustix::fs::{FileType, OFlags};
use std::os::fd::AsFd;

/// A directory in the long form.
pub(crate) fn ll(s: &mut Session, directory: GuestPath<'_>) -> Result<Vec<u8>> {
    list(s, directory, "-lan")
}

/// A directory in the long form with SELinux labels.
pub(crate) fn llz(s: &mut Session, directory: GuestPath<'_>) -> Result<Vec<u8>> {
    list(s, directory, "-lanZ")
}

fn list(s: &Session, path: GuestPath<'_>, how: &str) -> Result<Vec<u8>> {
    let open = s.open(path, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&open).on(path)?;
    // It lists where it is run: its arguments are nothing that could lead elsewhere.
    let tool = Tool::new("ls").arg(how);
    let output = if FileType::from_raw_mode(stat.st_mode).is_dir() {
        tool.current_dir(proc_path(open.as_fd())).output()
    } else {
        let entry = s.entry(path)?;
        tool.current_dir(proc_path(entry.dir.as_fd())).arg("--").arg(&entry.name).output()
    };
    output.map_err(|e| e.within(path))
}
