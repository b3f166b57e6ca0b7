// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for system calls that no library wraps: fork, unshare, mount_setattr,
//! and ioctls of block devices.
#![allow(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;
use std::ffi::CStr;
use std::io;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which of the two processes after a fork this is.
#[derive(Clone, Copy, Debug)]
pub enum Fork {
    /// The new one.
    Child,
    /// The old one, and the new one's ID.
    Parent(Pid),
}

/// Forks. The caller must have one thread only: of others, the child would have their locks.
pub fn fork() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork in a process with several threads"));
    }
    // SAFETY: there is one thread, so the child may do whatever its parent may.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent))
}

/// A process that takes its children along when it ends, however it ends.
#[derive(Debug)]
pub struct Parent(OwnedFd);

impl Parent {
    /// This process. To be called before the fork.
    pub fn this() -> io::Result<Self> {
        Ok(Self(pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?))
    }

    /// In the child: from now on it is killed when the parent ends.
    ///
    /// # Errors
    /// Also when the parent has ended already, of which no signal tells.
    pub fn take_along(&self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        match self.has_ended()? {
            false => Ok(()),
            true => Err(io::Error::other("the process that started this one has ended")),
        }
    }

    /// In the child: from now on it looks itself whether its parent has ended.
    pub fn let_go(&self) -> io::Result<()> {
        Ok(set_parent_process_death_signal(None)?)
    }

    /// Whether it has.
    pub fn has_ended(&self) -> io::Result<bool> {
        Ok(poll(&mut [self.poll_fd()], Some(&Timespec::default()))? != 0)
    }

    /// What to wait at for its end.
    pub fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.0, PollFlags::IN)
    }
}

/// Kills all processes but this one, which has to be process 1.
pub fn kill_all_others() -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::Error::other("not process 1: others are not its own"));
    }
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(-1, libc::SIGKILL) }).map(drop)
}

/// Closes all descriptors but these.
pub fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<libc::c_uint> =
        kept.iter().filter_map(|fd| libc::c_uint::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut from = 0;
    for fd in kept.into_iter().chain([libc::c_uint::MAX]) {
        if from < fd {
            // SAFETY: only called between fork and exit, where what owns the descriptors is not
            // used any more.
            check(unsafe { libc::close_range(from, fd - 1, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Moves this process (for a PID namespace: its children) into new namespaces.
pub fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors stay shared as they are; namespaces do not affect memory.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(Into::into)
}

/// Signals that end a session.
pub const ENDING: &[libc::c_int] = &[libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Makes a mount and all below it read-only, without device nodes, and without programs that change
/// who they run as: whose they are is not as it seems in a user namespace.
pub fn make_read_only(mount: impl AsFd) -> io::Result<()> {
    // struct mount_attr: set, clear, propagation, userns_fd.
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let attributes: [u64; 4] = [set, 0, 0, 0];
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a string, and the kernel reads as many bytes as are there.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets this process's host name.
pub fn set_host_name(name: &CStr) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the name has.
    check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }).map(drop)
}

/// Brings the loopback interface up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: `ifreq` is plain numbers; zero is a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = 1; // IFF_UP
    // SAFETY: the kernel reads an `ifreq`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) }).map(drop)
}

/// `SIOCOUTQ`: how many bytes the other end of a socket has not read yet.
pub fn unread(socket: impl AsFd) -> io::Result<libc::c_int> {
    let mut bytes = 0;
    // SAFETY: the kernel writes an int.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes)
}

/// `LOOP_CTL_GET_FREE`: the number of a loop device that nobody uses.
pub fn loop_get_free(control: impl AsFd) -> io::Result<u32> {
    // SAFETY: the ioctl has no argument.
    let n = check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), 0x4C82) })?;
    u32::try_from(n).map_err(io::Error::other)
}

/// What a loop device is to be: `struct loop_config` with the fields that matter named.
#[derive(Debug)]
pub struct LoopConfig<'a> {
    /// The file below it.
    pub file: rustix::fd::BorrowedFd<'a>,
    /// Bytes of a sector; 0: 512.
    pub sector: u32,
    /// `LO_FLAGS_*`.
    pub flags: u32,
    /// What losetup shows.
    pub name: &'a [u8],
}

/// `LOOP_CONFIGURE`.
pub fn loop_configure(device: impl AsFd, config: &LoopConfig<'_>) -> io::Result<()> {
    // struct loop_config: fd, block_size, struct loop_info64, eight reserved words.
    let mut raw = [0u8; 304];
    raw[..4].copy_from_slice(&config.file.as_raw_fd().to_ne_bytes());
    raw[4..8].copy_from_slice(&config.sector.to_ne_bytes());
    raw[60..64].copy_from_slice(&config.flags.to_ne_bytes());
    let name = &config.name[..config.name.len().min(63)];
    raw[64..64 + name.len()].copy_from_slice(name);
    // SAFETY: the kernel reads a loop_config, which `raw` has the size and layout of.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), 0x4C0A, raw.as_ptr()) }).map(drop)
}

/// `LOOP_CLR_FD`: detaches a loop device, if need be when its last user closes it.
pub fn loop_clear(device: impl AsFd) -> io::Result<()> {
    // SAFETY: the ioctl has no argument.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), 0x4C01) }).map(drop)
}

/// Tells the kernel of a partition: `BLKPG_ADD_PARTITION`, in bytes.
pub fn add_partition(disk: impl AsFd, number: u32, start: u64, length: u64) -> io::Result<()> {
    #[repr(C)]
    struct Partition {
        start: i64,
        length: i64,
        number: libc::c_int,
        names: [u8; 128],
    }
    #[repr(C)]
    struct Argument<'a> {
        operation: libc::c_int,
        flags: libc::c_int,
        length: libc::c_int,
        data: &'a Partition,
    }
    let partition = Partition {
        start: i64::try_from(start).map_err(io::Error::other)?,
        length: i64::try_from(length).map_err(io::Error::other)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        names: [0; 128],
    };
    let length = i32::try_from(size_of::<Partition>()).map_err(io::Error::other)?;
    let argument = Argument { operation: 1, flags: 0, length, data: &partition };
    // SAFETY: the kernel reads a blkpg_ioctl_arg and the blkpg_partition that it points to.
    check(unsafe { libc::ioctl(disk.as_fd().as_raw_fd(), 0x1269, &argument) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_whose_parent_has_ended_before_is_told_so() {
        let mut parent = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let bound = Parent(pidfd_open(Pid::from_child(&parent), PidfdFlags::empty()).unwrap());
        // On a thread of its own, whose end no test waits for.
        let bind = || std::thread::scope(|s| s.spawn(|| bound.take_along()).join().unwrap());
        bind().unwrap();
        drop(parent.stdin.take());
        parent.wait().unwrap();
        bind().unwrap_err();
    }
}
