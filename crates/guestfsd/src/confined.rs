// SPDX-License-Identifier: Apache-2.0
//! What a process that works for a session gives up before a C library in it reads what is the guest's.

use guest_error::{Context, Result};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::{Gid, Uid};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// It ends with the session, leaves no core, and uses no more than so many bytes of memory.
pub(crate) fn limit(name: &str, memory: u64) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).on(name)?;
    setrlimit(Resource::As, at_most(memory)).on(name)?;
    setrlimit(Resource::Core, at_most(0)).on(name)
}

/// It keeps what it has open, and can open, make and start nothing else.
pub(crate) fn nothing_else(name: &str) -> Result<()> {
    // No write to a file: pipes are none.
    setrlimit(Resource::Fsize, at_most(0)).on(name)?;
    setrlimit(Resource::Nproc, at_most(0)).on(name)?;
    setrlimit(Resource::Nofile, at_most(0)).on(name)?;
    rustix::thread::set_no_new_privs(true).on(name)?;
    // In a user namespace there may be no such user: the limits hold in any case.
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[]).ok();
    rustix::thread::set_thread_res_gid(gid, gid, gid).ok();
    rustix::thread::set_thread_res_uid(uid, uid, uid).ok();
    // The signal goes with the user.
    set_parent_process_death_signal(Some(Signal::KILL)).on(name)
}

fn at_most(n: u64) -> Rlimit {
    Rlimit { current: Some(n), maximum: Some(n) }
}
