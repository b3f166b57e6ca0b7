// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for one socket option that no library has.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Joins a multicast group.
pub(super) fn join(fd: impl AsFd, group: u32) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; the option takes a 32-bit integer, which is read only.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
