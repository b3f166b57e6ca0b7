// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // What a child does between fork and exec cannot be said in safe Rust.
//! Entering the guest: what a child does before it becomes a program of the guest.
//!
//! Where the kernel is the host's (guestfs-novm), `GUESTFSD_CONFINE` names a directory with what such a program
//! sees of this machine, and it gets no rights with which it could reach more: see [`confine`].

use super::confine;
use crate::config::Config;
use guest_error::{Errno, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno as Raw;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_bind_recursive, mount_change};
use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Directories of this machine that programs of the guest see.
const BOUND: [&CStr; 3] = [c"dev", c"proc", c"sys"];

/// The variable that names a directory to take them from in place of `/`.
const CONFINE: &str = "GUESTFSD_CONFINE";

/// The name servers that this machine asks.
const RESOLVER: &CStr = c"/etc/resolv.conf";

/// Has the program run chrooted into the sysroot, in a mount namespace of its own, so that nothing
/// that is mounted for it (or by it) outlives it. Where `/` itself is served, it just runs.
pub(super) fn enter(command: &mut Command, config: &Config) -> Result<()> {
    if config.serves_machine() {
        command.current_dir("/");
        return Ok(());
    }
    let sysroot = CString::new(config.sysroot.as_os_str().as_bytes())
        .map_err(|_| Error::new(Errno::EINVAL, "sysroot: a path with a NUL byte"))?;
    let network = config.network;
    let confined = std::env::var_os(CONFINE);
    let machine = confined.as_deref().map_or("/".as_ref(), Path::new);
    let confined = confined.is_some();
    let source = |name: &CStr| {
        let name = OsStr::from_bytes(name.to_bytes());
        CString::new(machine.join(name).into_os_string().into_vec())
            .map_err(|_| Error::new(Errno::EINVAL, "a directory with a NUL byte"))
    };
    let sources = [source(BOUND[0])?, source(BOUND[1])?, source(BOUND[2])?];
    let before_exec = move || -> io::Result<()> {
        // SAFETY: this process has one thread, and shares nothing with its parent.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
        // Not private: a filesystem that the session unmounts is to go here as well.
        let down = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(c"/", down)?;
        // Descriptors from before are of the other namespace: resolve again.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&*sysroot, flags, Mode::empty())?;
        for (source, name) in sources.iter().zip(BOUND) {
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let found = match rustix::fs::openat2(&root, name, flags, Mode::empty(), inside) {
                Err(Raw::NOSYS) => {
                    rustix::fs::openat(&root, name, flags | OFlags::NOFOLLOW, Mode::empty())
                }
                found => found,
            };
            // A guest without such a directory goes without.
            let Ok(dir) = found else { continue };
            rustix::process::fchdir(&dir)?;
            mount_bind_recursive(&**source, c".")?;
        }
        if network {
            // A guest without such a file goes without.
            bind_resolver(&root).ok();
        }
        if confined {
            confine::cover()?;
        }
        rustix::process::fchdir(&root)?;
        rustix::process::chroot(c".")?;
        rustix::process::chdir(c"/")?;
        if confined { confine::give_up() } else { Ok(()) }
    };
    // SAFETY: `before_exec` makes system calls on what was prepared here and does not allocate.
    unsafe { command.pre_exec(before_exec) };
    Ok(())
}

/// Has programs of the guest ask the name servers that this machine asks. What the guest has for that is covered:
/// if it is a link (to what only a running system has, as a rule), the link itself.
fn bind_resolver(root: &OwnedFd) -> rustix::io::Result<()> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let etc = rustix::fs::openat2(root, c"etc", directory, Mode::empty(), inside)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&etc, c"resolv.conf", flags, Mode::empty())?;
    let mut name = [0; 32];
    write!(&mut name[..], "/proc/self/fd/{}", file.as_raw_fd()).map_err(|_| Raw::NAMETOOLONG)?;
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| Raw::NAMETOOLONG)?;
    mount_bind(RESOLVER, name)
}
