// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Vsock addresses, namespaces and inherited descriptors have no safe interface.
//! What the kernel offers for connections and namespaces below the level of the standard library.

use crate::mounts;
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A socket on which other machines of this host connect.
pub(super) fn listen_vsock(cid: u32, port: u32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).map_err(io::Error::other)?;
    address.svm_cid = cid;
    address.svm_port = port;
    let len = u32::try_from(size_of::<libc::sockaddr_vm>()).map_err(io::Error::other)?;
    // SAFETY: the address lives through the call and is as long as it is said to be.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// The next client of such a socket, and its machine's CID.
pub(super) fn accept_vsock(listener: &OwnedFd) -> io::Result<(OwnedFd, u32)> {
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    let mut len = u32::try_from(size_of::<libc::sockaddr_vm>()).map_err(io::Error::other)?;
    let whole = len;
    let to = (&raw mut address).cast();
    // SAFETY: the address lives through the call and has the length that is said.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), to, &raw mut len, libc::SOCK_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let client = unsafe { OwnedFd::from_raw_fd(fd) };
    if len != whole || libc::c_int::from(address.svm_family) != libc::AF_VSOCK {
        return Err(io::Error::other("a client without an address"));
    }
    Ok((client, address.svm_cid))
}

/// A descriptor that the process was started with.
pub(crate) fn inherited(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers only; a descriptor that is not open is an error.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // Programs that we start are not to have it. Should it be standard input to error, they keep it.
    if number > 2 {
        // SAFETY: as above.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the next child live in a process namespace of its own, and this process and it in a mount namespace.
pub(super) fn new_namespaces() -> io::Result<()> {
    // SAFETY: the process has one thread and shares neither memory nor descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWPID)? };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", private)?)
}

/// In the first process of new namespaces: /proc shows them.
pub(super) fn enter_namespaces() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, None)?)
}

/// In a mount namespace of its own: device nodes do not work in the sysroot before something is mounted there. With
/// `-r` they are the machine's own, and stay.
pub(super) fn disable_devices(sysroot: &Path) {
    if sysroot != Path::new("/")
        && let Err(e) = disable_devices_of_mount(sysroot)
    {
        tracing::warn!(error = %e, "device nodes in an empty sysroot work");
    }
}

fn disable_devices_of_mount(sysroot: &Path) -> io::Result<()> {
    let path = std::fs::canonicalize(sysroot).unwrap_or_else(|_| sysroot.to_owned());
    let over = |path: &Path| {
        let all = mounts::all().map_err(io::Error::other)?;
        let found = all.into_iter().rfind(|m| path.starts_with(&m.at));
        found.ok_or_else(|| io::Error::other("nothing is mounted there"))
    };
    let mount = over(&path)?;
    if over(Path::new("/dev"))?.id == mount.id {
        return Err(io::Error::other("/dev is in the same filesystem"));
    }
    let has = rustix::fs::statvfs(&mount.at)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::NODEV;
    for (is, stays) in [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        flags.set(stays, has.contains(is));
    }
    Ok(mount_remount(&mount.at, flags, c"")?)
}
