// SPDX-License-Identifier: Apache-2.0
//! Who is in a multicast group of generic netlink, as the kernel tells it. The kernel sends
//! TCM-User's events to the members in every network namespace, so all of them count.
//!
//! In: `/proc/PID/net/netlink`, one table per network namespace, which shows groups 1 to 32. The
//! numbers are given out as families register, so TCM-User's may be larger: then the answer comes
//! from `NETLINK_SOCK_DIAG` (`linux/netlink_diag.h`), which knows all groups, but only of our own
//! namespace. Out: inode numbers of sockets, which no two sockets share. (Port ids do not tell
//! sockets of different namespaces apart.)

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::retry_on_intr;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};
use zerocopy::native_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::wire::{Attributes, NLMSG_ERROR, split_message};
use crate::Error;

/// The largest group that `/proc/net/netlink` shows.
const PROC_GROUPS: u32 = 32;
/// The protocol number of generic netlink.
const GENERIC: u8 = 16;
const FAMILY: u8 = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NDIAG_SHOW_GROUPS: u32 = 2;
const NETLINK_DIAG_GROUPS: u16 = 1;
const BUFFER_LEN: usize = 32 << 10;

/// The sockets that have joined `group`, by inode number.
pub(super) fn of_group(group: u32) -> Result<BTreeSet<u64>, Error> {
    if group <= PROC_GROUPS { by_proc(Path::new("/proc"), group) } else { by_diag(group) }
}

/// Looks in the table of each network namespace that a process is in.
fn by_proc(proc: &Path, group: u32) -> Result<BTreeSet<u64>, Error> {
    let mut members = table(&proc.join("self/net/netlink"), group)?;
    let mut seen: BTreeSet<PathBuf> = fs::read_link(proc.join("self/ns/net")).into_iter().collect();
    for process in processes(proc)? {
        // A process may end while it is looked at.
        let Ok(namespace) = fs::read_link(process.join("ns/net")) else { continue };
        if !seen.contains(&namespace)
            && let Ok(found) = table(&process.join("net/netlink"), group)
        {
            seen.insert(namespace);
            members.extend(found);
        }
    }
    Ok(members)
}

/// The directories of all processes.
pub(super) fn processes(proc: &Path) -> Result<impl Iterator<Item = PathBuf>, Error> {
    let is_pid = |name: &OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let entries = fs::read_dir(proc).map_err(Error::io("list", proc))?;
    let pids = entries.flatten().map(|entry| entry.file_name()).filter(is_pid);
    Ok(pids.map(|pid| proc.join(pid)))
}

/// The members in one table.
fn table(path: &Path, group: u32) -> Result<BTreeSet<u64>, Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode; Eth is the protocol.
    let member = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, protocol, _, groups, .., inode] = fields.as_slice() else { return None };
        let groups = u32::from_str_radix(groups, 16).ok()?;
        let joined = groups.checked_shr(group.checked_sub(1)?)? & 1 == 1;
        (protocol == GENERIC.to_string() && joined).then(|| inode.parse().ok()).flatten()
    };
    Ok(text.lines().skip(1).filter_map(member).collect())
}

/// `struct netlink_diag_req` after its message header.
#[derive(IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Request {
    len: U32,
    kind: U16,
    flags: U16,
    sequence: U32,
    port: U32,
    family: u8,
    protocol: u8,
    padding: U16,
    inode: U32,
    show: U32,
    cookie: [U32; 2],
}

/// `struct netlink_diag_msg`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Socket {
    family: u8,
    kind: u8,
    protocol: u8,
    state: u8,
    port: U32,
    destination_port: U32,
    destination_group: U32,
    inode: U32,
    cookie: [U32; 2],
}

/// Asks for the generic netlink sockets of our network namespace.
fn by_diag(group: u32) -> Result<BTreeSet<u64>, Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))
        .map_err(Error::channel("open a socket for NETLINK_SOCK_DIAG"))?;
    let len = u32::try_from(size_of::<Request>()).unwrap_or_default();
    let request = Request {
        len: len.into(),
        kind: SOCK_DIAG_BY_FAMILY.into(),
        flags: NLM_F_REQUEST_DUMP.into(),
        sequence: 1.into(),
        port: 0.into(),
        family: FAMILY,
        protocol: GENERIC,
        padding: 0.into(),
        inode: 0.into(),
        show: NDIAG_SHOW_GROUPS.into(),
        cookie: [u32::MAX.into(); 2],
    };
    let kernel = SocketAddrNetlink::new(0, 0);
    retry_on_intr(|| sendto(&fd, request.as_bytes(), SendFlags::NOSIGNAL, &kernel))
        .map_err(Error::channel("ask NETLINK_SOCK_DIAG"))?;
    let mut members = BTreeSet::new();
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let (_, len) = retry_on_intr(|| recv(&fd, buffer.as_mut_slice(), RecvFlags::TRUNC))
            .map_err(Error::channel("ask NETLINK_SOCK_DIAG"))?;
        let mut datagram = buffer.get(..len).unwrap_or_default();
        if datagram.is_empty() {
            return Err(malformed());
        }
        while !datagram.is_empty() {
            let (header, body, rest) = split_message(datagram).ok_or_else(malformed)?;
            datagram = rest;
            match header.kind.get() {
                NLMSG_DONE => return Ok(members),
                NLMSG_ERROR => {
                    let errno = body.first_chunk().map_or(0, |errno| i32::from_ne_bytes(*errno));
                    let errno = io::Error::from_raw_os_error(errno.saturating_neg());
                    return Err(Error::Netlink(format!(
                        "the kernel does not tell who is in group {group} (it needs the module \
                         netlink_diag): {errno}"
                    )));
                }
                _ => members.extend(member(body, group).ok_or_else(malformed)?),
            }
        }
    }
}

fn malformed() -> Error {
    Error::Netlink("malformed answer of NETLINK_SOCK_DIAG".into())
}

/// The inode number of a socket that has joined `group`; `Some(None)` for one that has not.
fn member(body: &[u8], group: u32) -> Option<Option<u64>> {
    let (socket, attributes) = Socket::read_from_prefix(body).ok()?;
    let bit = usize::try_from(group.checked_sub(1)?).ok()?;
    for attribute in Attributes(attributes) {
        let (kind, value) = attribute?;
        if kind != NETLINK_DIAG_GROUPS {
            continue;
        }
        // Words of the machine, the lowest bit being group 1.
        let word = value.chunks_exact(8).nth(bit / 64).and_then(|word| word.try_into().ok());
        let joined = word.is_some_and(|word| u64::from_ne_bytes(word) >> (bit % 64) & 1 == 1);
        return Some(joined.then_some(socket.inode.get().into()));
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::super::membership;
    use super::*;
    use std::os::fd::OwnedFd;

    /// The group `notify` of the controller, which is always there and which anybody may join.
    const NOTIFY: u32 = 16;

    fn socket() -> (OwnedFd, u64) {
        let generic = Some(rustix::net::netlink::GENERIC);
        let fd =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, generic)
                .unwrap();
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).unwrap();
        let inode = rustix::fs::fstat(&fd).unwrap().st_ino;
        (fd, inode)
    }

    #[test]
    fn the_kernel_tells_who_has_joined_a_group_and_who_has_not() {
        let ((a, a_inode), (b, b_inode), (_c, c_inode)) = (socket(), socket(), socket());
        membership::join(&a, NOTIFY).unwrap();
        membership::join(&b, NOTIFY).unwrap();
        for members in [of_group(NOTIFY).unwrap(), by_diag(NOTIFY).unwrap()] {
            assert!(members.contains(&a_inode) && members.contains(&b_inode), "{members:?}");
            assert!(!members.contains(&c_inode), "{members:?}");
        }
        drop(b);
        for members in [of_group(NOTIFY).unwrap(), by_diag(NOTIFY).unwrap()] {
            assert!(members.contains(&a_inode) && !members.contains(&b_inode), "{members:?}");
        }
    }

    #[test]
    fn every_network_namespace_counts_once_and_other_protocols_do_not() {
        let head = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n";
        let proc = tempfile::tempdir().unwrap();
        for (process, namespace, lines) in [
            ("self", "net:[1]", "0 16 7 00000004 0 0 0 2 0 11\n0 16 0 00000000 0 0 0 2 0 12\n"),
            ("1", "net:[1]", "not read again"),
            ("20", "net:[2]", "0 15 7 00000004 0 0 0 2 0 21\n0 16 7 80000004 0 0 0 2 0 22\n"),
            ("21", "net:[3]", "0 16 7 00000002 0 0 0 2 0 31\nshort\n"),
            ("sys", "net:[4]", "0 16 7 00000004 0 0 0 2 0 41\n"),
        ] {
            let dir = proc.path().join(process);
            fs::create_dir_all(dir.join("ns")).unwrap();
            fs::create_dir_all(dir.join("net")).unwrap();
            std::os::unix::fs::symlink(namespace, dir.join("ns/net")).unwrap();
            fs::write(dir.join("net/netlink"), format!("{head}{lines}")).unwrap();
        }
        fs::create_dir(proc.path().join("22")).unwrap();
        assert_eq!(by_proc(proc.path(), 3).unwrap(), BTreeSet::from([11, 22]));
        assert_eq!(by_proc(proc.path(), 32).unwrap(), BTreeSet::from([22]));
        assert_eq!(by_proc(proc.path(), 0).unwrap(), BTreeSet::new());
    }

    #[test]
    fn groups_beyond_the_first_word_are_found_in_the_bitmap() {
        let mut body = vec![0; size_of::<Socket>()];
        body[16..20].copy_from_slice(&77u32.to_ne_bytes());
        let mut bitmap = [0u8; 16];
        bitmap[8..].copy_from_slice(&(1u64 << 5).to_ne_bytes());
        body.extend_from_slice(&20u16.to_ne_bytes());
        body.extend_from_slice(&NETLINK_DIAG_GROUPS.to_ne_bytes());
        body.extend_from_slice(&bitmap);
        assert_eq!(member(&body, 70), Some(Some(77)));
        for group in [1, 6, 69, 71, 200] {
            assert_eq!(member(&body, group), Some(None), "{group}");
        }
        assert_eq!(member(&body[..10], 1), None);
    }
}
