// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // What a child does between fork and exec cannot be said in safe Rust; mount_setattr(2).
//! Keeping a program of this machine that works on the guest's files from writing any others: in a mount namespace of
//! its own, all is read-only but what is mounted in the sysroot. Programs follow symbolic links in the guest's tree as
//! if the machine's root was the guest's.

use crate::config::Config;
use guest_error::{Errno, Error, Result};
use rustix::fs::CWD;
use rustix::io::Errno as Raw;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};
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
        // What is read-only in the sysroot stays so, and nothing else there becomes so: a copy of it comes to lie on it.
        let tree = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let guest = match open_tree(CWD, &*sysroot, tree) {
            // Before Linux 5.2.
            Err(Raw::NOSYS) => return Ok(()),
            opened => opened?,
        };
        match make_read_only(c"/") {
            // Before Linux 5.12.
            Err(Raw::NOSYS) => return Ok(()),
            done => done?,
        }
        Ok(move_mount(&guest, c"", CWD, &*sysroot, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    };
    // SAFETY: `before_exec` makes system calls on what was prepared here and does not allocate.
    unsafe { command.pre_exec(before_exec) };
    Ok(())
}

/// Makes a mount and all below it read-only for those who use it by this namespace.
fn make_read_only(at: &CStr) -> rustix::io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
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
