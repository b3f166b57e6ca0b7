// SPDX-License-Identifier: Apache-2.0
//! The machine that the daemon runs on: its kernel, its messages, its caches and modules.

use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::FileIn;
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::structs::Utsname;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// The kernel's name, release, version and machine.
pub(crate) fn utsname(_: &mut Session) -> Result<Utsname> {
    let found = rustix::system::uname();
    let text = |text: &CStr| OsString::from_vec(text.to_bytes().to_vec());
    Ok(Utsname {
        uts_sysname: text(found.sysname()),
        uts_release: text(found.release()),
        uts_version: text(found.version()),
        uts_machine: text(found.machine()),
    })
}

/// The kernel's messages.
pub(crate) fn dmesg(_: &mut Session) -> Result<Vec<u8>> {
    Tool::new("dmesg").output()
}

/// Has the kernel forget what it keeps of files (1), names and inodes (2), or both (3).
pub(crate) fn drop_caches(_: &mut Session, whattodrop: i32) -> Result<()> {
    rustix::fs::sync();
    match std::fs::write(DROP_CACHES, whattodrop.to_string()) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            let why = "must be 1, 2 or 3";
            Err(Error::argument("whattodrop", whattodrop.to_string(), why))
        }
        done => done.on(DROP_CACHES),
    }
}

/// Loads a module of the kernel.
pub(crate) fn modprobe(_: &mut Session, modulename: &OsStr) -> Result<()> {
    if modulename.is_empty() {
        return Err(Error::argument("modulename", modulename, "is empty"));
    }
    Tool::new("modprobe").arg("--").arg(modulename).ok()
}

/// For a test of the client library: takes `count` pieces of the file, and fails.
pub(crate) fn internal_rhbz914931(
    _: &mut Session,
    filename: &mut FileIn<'_>,
    count: i32,
) -> Result<()> {
    use std::io::Read;
    let mut piece = vec![0; guestfs_api::frame::MAX_CHUNK];
    for _ in 0..count {
        if filename.read(&mut piece).map_err(|e| guest_error::from_io(e, "filename"))? == 0 {
            break;
        }
    }
    Err(Error::new(Errno::EINVAL, "debug: this call always fails"))
}
