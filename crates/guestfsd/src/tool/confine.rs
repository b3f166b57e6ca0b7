// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // prctl(2) with a seccomp filter has no safe wrapper.
//! What a program of the guest is kept from where the kernel is the host's: done by the child between fork and exec,
//! which makes system calls only.

use rustix::io::Errno as Raw;
use rustix::mount::{MountFlags, mount};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
};
use std::io;

/// Capabilities that programs of a confined guest keep: what installing packages takes, and nothing that
/// concerns more than files, processes and users of the guest. The device nodes that they make do not
/// work, for all that they can write to is mounted `nodev`.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE);

/// By architecture (linux/audit.h), the first of the three system calls on keys, which follow each
/// other. Keys of root are the host's root's, whatever the namespaces.
const KEYS: [(u32, u32); 4] =
    [(0xC000_003E, 248), (0x4000_0003, 286), (0xC000_00B7, 217), (0x4000_0028, 309)];
/// In the number of a system call of the x32 ABI.
const X32: u32 = 0x4000_0000;
/// Instructions for an architecture.
const PIECE: usize = 6;

const LENGTH: usize = KEYS.len() * PIECE + 2;

/// A seccomp filter for which there are no keys in this kernel.
const NO_KEYS: [libc::sock_filter; LENGTH] = no_keys();

const fn no_keys() -> [libc::sock_filter; LENGTH] {
    const fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        // Codes are of 16 bits.
        #[allow(clippy::cast_possible_truncation)]
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const SUB: u32 = libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const ENOSYS: u32 = 38;
    let mut filter = [op(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0); LENGTH];
    filter[0] = op(LOAD, ARCHITECTURE, 0, 0);
    let mut n = 0;
    while n < KEYS.len() {
        let at = 1 + n * PIECE;
        filter[at] = op(EQUAL, KEYS[n].0, 0, 5);
        filter[at + 1] = op(LOAD, NUMBER, 0, 0);
        filter[at + 2] = op(AND, !X32, 0, 0);
        filter[at + 3] = op(SUB, KEYS[n].1, 0, 0);
        // Not one of the three: on to the last instruction.
        #[allow(clippy::cast_possible_truncation)]
        let end = (filter.len() - 1 - (at + 5)) as u8;
        filter[at + 4] = op(AT_LEAST, 3, end, 0);
        filter[at + 5] = op(RETURN, libc::SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
        n += 1;
    }
    filter
}

/// Hides all that is in this namespace but for what the guest's root has: who leaves that (chroot(2) in a
/// chroot) finds an empty directory.
pub(super) fn cover() -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount(c"none", c"/", c"tmpfs", flags, c"mode=755,size=4k")?)
}

/// Permanently drops rights, for this process and all that it starts.
pub(super) fn give_up() -> io::Result<()> {
    #[allow(clippy::cast_possible_truncation)] // There are a few instructions.
    let program = libc::sock_fprog {
        len: u16::try_from(NO_KEYS.len()).unwrap_or(0),
        filter: NO_KEYS.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the instructions, and writes nothing.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    // A kernel without filters: keys are little beside the rest.
    if done != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
        return Err(io::Error::last_os_error());
    }
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel does not have so many.
            Err(Raw::INVAL) => {}
            done => done?,
        }
    }
    let mut sets = capabilities(None)?;
    sets.permitted &= KEPT;
    sets.effective &= KEPT;
    sets.inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, sets)?)
}
