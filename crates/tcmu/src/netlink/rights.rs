// SPDX-License-Identifier: Apache-2.0
//! Whose sockets those are, and whether their owners may answer the kernel. Anybody may join a group of
//! generic netlink; an answer to TCM-User takes CAP_NET_ADMIN in the first user namespace
//! (capabilities(7)). Who lacks it can only listen, and must not keep a device waiting.
//!
//! In: `/proc/PID/fd`, `/proc/PID/status` and `/proc/PID/ns/user`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::members::processes;
use crate::Error;

const CAP_NET_ADMIN: u32 = 12;

/// Whether one of these sockets belongs to a process that may answer. One whose owner is not found
/// counts: it may be on its way from one process to another.
pub(super) fn may_answer(proc: &Path, sockets: &BTreeSet<u64>) -> Result<bool, Error> {
    if sockets.is_empty() {
        return Ok(false);
    }
    let mut unowned = sockets.clone();
    for process in processes(proc)? {
        let owned = owned(&process, sockets);
        if !owned.is_empty() && has_rights(proc, &process) {
            return Ok(true);
        }
        unowned.retain(|socket| !owned.contains(socket));
    }
    Ok(!unowned.is_empty())
}

/// Which of the sockets a process has open. It may end while it is looked at.
fn owned(process: &Path, sockets: &BTreeSet<u64>) -> BTreeSet<u64> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode =
        |target: &Path| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    targets.filter_map(|target| inode(&target)).filter(|inode| sockets.contains(inode)).collect()
}

/// Whether a process has the capability, and that in our user namespace and not in one of its own.
/// What cannot be read counts as yes.
fn has_rights(proc: &Path, process: &Path) -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/user")).ok();
    let (ours, theirs) = (namespace(&proc.join("self")), namespace(process));
    if ours.is_some() && theirs.is_some() && ours != theirs {
        return false;
    }
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.is_none_or(|bits| bits >> CAP_NET_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Proc {
            let proc = Proc(tempfile::tempdir().unwrap());
            proc.process("self", "user:[1]", "ffff", &[]);
            proc
        }

        fn process(&self, pid: &str, namespace: &str, capabilities: &str, sockets: &[u64]) {
            let dir: PathBuf = self.0.path().join(pid);
            fs::create_dir_all(dir.join("ns")).unwrap();
            fs::create_dir_all(dir.join("fd")).unwrap();
            symlink(namespace, dir.join("ns/user")).unwrap();
            symlink("/dev/null", dir.join("fd/0")).unwrap();
            for (i, socket) in sockets.iter().enumerate() {
                symlink(format!("socket:[{socket}]"), dir.join(format!("fd/{}", i + 3))).unwrap();
            }
            fs::write(dir.join("status"), format!("Name:\tx\nCapEff:\t{capabilities}\n")).unwrap();
        }

        fn may_answer(&self, sockets: &[u64]) -> bool {
            may_answer(self.0.path(), &sockets.iter().copied().collect()).unwrap()
        }
    }

    #[test]
    fn only_owners_with_the_capability_in_our_user_namespace_may_answer() {
        let proc = Proc::new();
        proc.process("10", "user:[1]", "0000000000000000", &[7]);
        proc.process("11", "user:[2]", "000001ffffffffff", &[8]);
        proc.process("12", "user:[1]", "0000000000001000", &[9]);
        assert!(!proc.may_answer(&[]));
        assert!(!proc.may_answer(&[7]) && !proc.may_answer(&[8]) && !proc.may_answer(&[7, 8]));
        assert!(proc.may_answer(&[9]) && proc.may_answer(&[7, 9]));
        // One of several owners is enough.
        proc.process("13", "user:[1]", "0000000000001000", &[7]);
        assert!(proc.may_answer(&[7]));
    }

    #[test]
    fn a_socket_whose_owner_is_not_found_counts() {
        let proc = Proc::new();
        proc.process("10", "user:[1]", "0", &[7]);
        assert!(proc.may_answer(&[7, 99]) && proc.may_answer(&[99]));
    }
}
