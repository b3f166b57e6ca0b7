// SPDX-License-Identifier: Apache-2.0
//! Programs that outlive the call that started them: daemons of the guest.
//!
//! The daemon is made the reaper of its descendants, so that they become its children when their
//! own parents end, and can be found and killed when the session ends.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when all children of the process are ours to wait for: not where we are a part of another program.
static ADOPTING: AtomicBool = AtomicBool::new(false);

/// From now on orphans of programs that we start become our children.
pub(crate) fn adopt_orphans() {
    ADOPTING.store(true, Ordering::Relaxed);
    if let Err(e) = rustix::process::set_child_subreaper(rustix::process::getpid().into()) {
        tracing::warn!(error = %e, "adopting orphans");
    }
}

/// Takes note of adopted children that have ended, so that they do not stay as zombies. To be called when
/// no program of our own is being waited for.
pub(crate) fn reap() {
    while ADOPTING.load(Ordering::Relaxed)
        && let Ok(Some(_)) = wait(WaitOptions::NOHANG)
    {}
}

/// Kills all children, and what becomes our child through that, and waits for them.
pub(crate) fn kill_all() {
    if !ADOPTING.load(Ordering::Relaxed) {
        return;
    }
    // Each round takes at least one generation; a fork bomb is not waited for forever.
    for _ in 0..1000 {
        let children = children();
        if children.is_empty() {
            break;
        }
        for pid in children {
            kill_process(pid, Signal::KILL).ok();
        }
        wait(WaitOptions::empty()).ok();
        reap();
    }
}

fn children() -> Vec<Pid> {
    // Each thread has its own; children live on when the thread ends, with another.
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace();
            pids.filter_map(|p| Pid::from_raw(p.parse().ok()?)).collect::<Vec<_>>()
        })
        .collect()
}
