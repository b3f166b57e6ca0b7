// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // What a child does between fork and exec cannot be said in safe Rust; mount_setattr(2).
//! Keeping a program of this machine that works on the guest's files from writing any others: in a mount namespace of
//! its own, all is read-only but what is mounted in the sysroot. Programs follow symbolic links in the guest's tree as
//! if the machine's root was the guest's.

use crate::config::Config;
use guest_error::{Errno, Error, Result};
use rustix::io::Errno as Raw;
use rustix::mount::{MountPropagationFlags, mount_change};
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the program run so. Where `/` itself is served, there is nothing else.
pub(super) fn enter(command: &mut Command, config: &Config) -> Result<()> {
    if config.serves_machine() {
        return Ok(());
    }
    let sysroot = CString::new(config.sysroot.as_os_str().as_bytes())
        .map_err(|_| Error::new(Errno::EINVAL, "sysroot: a path with a NUL byte"))?;
    let before_exec = move || -> io::Result<()> {
        // SAFETY: this process has one thread, and shares nothing with its parent.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
        // Not private: a filesystem that the session unmounts is to go here as well.
        let down = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(c"/", down)?;
        match set_read_only(c"/", true) {
            Ok(()) => {}
            // Before Linux 5.12.
            Err(Raw::NOSYS) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        match set_read_only(&sysroot, false) {
            // Nothing is mounted there.
            Err(Raw::INVAL) => Ok(()),
            done => Ok(done?),
        }
    };
    // SAFETY: `before_exec` makes system calls on what was prepared here and does not allocate.
    unsafe { command.pre_exec(before_exec) };
    Ok(())
}

/// Makes a mount and all below it read-only for those who use it by this namespace, or ends that.
fn set_read_only(at: &CStr, read_only: bool) -> rustix::io::Result<()> {
    let (set, clear) =
        if read_only { (libc::MOUNT_ATTR_RDONLY, 0) } else { (0, libc::MOUNT_ATTR_RDONLY) };
    let attributes =
        libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    // SAFETY: the path ends in NUL, and the kernel reads the structure, whose size it is told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Raw::from_io_error(&io::Error::last_os_error()).unwrap_or(Raw::IO)),
    }
}
