// SPDX-License-Identifier: Apache-2.0
//! The daemon itself: whether it is alive, what it can do, and what clients call at the end.

use super::numbers::not_negative;
use crate::features::{self, Availability};
use crate::kernel;
use crate::session::Session;
use crate::swap::Swaps;
use guest_error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// Does nothing: the reply shows that the daemon is alive.
pub(crate) fn ping_daemon(_: &mut Session) -> Result<()> {
    Ok(())
}

/// The words, with a space between each two.
pub(crate) fn echo_daemon(_: &mut Session, words: &[&OsStr]) -> Result<OsString> {
    Ok(words.join(OsStr::new(" ")))
}

/// Waits.
pub(crate) fn sleep(_: &mut Session, secs: i32) -> Result<()> {
    std::thread::sleep(Duration::from_secs(not_negative("secs", secs)?));
    Ok(())
}

/// 0: the group is there, 1: it is not, 2: there is no such group.
pub(crate) fn internal_feature_available(s: &mut Session, group: &OsStr) -> Result<i32> {
    Ok(match s.features().group(&group.to_string_lossy()) {
        Availability::Available => 0,
        Availability::Unavailable => 1,
        Availability::Unknown => 2,
    })
}

/// Names of all groups.
pub(crate) fn available_all_groups(_: &mut Session) -> Result<Vec<&'static str>> {
    Ok(features::groups().into_iter().collect())
}

/// Whether the kernel can mount filesystems of this type.
pub(crate) fn filesystem_available(_: &mut Session, filesystem: &OsStr) -> Result<bool> {
    let name = filesystem.to_string_lossy();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let why = "filesystem name contains non-alphanumeric characters";
        return Err(Error::argument("filesystem", filesystem, why));
    }
    Ok(kernel::filesystem(&name))
}

/// The last call of a client with autosync: nothing is mounted or swapped to any more, everything that was
/// written is on the disks, and nothing is made of them any more.
pub(crate) fn internal_autosync(s: &mut Session) -> Result<()> {
    // A file that is swapped to keeps its filesystem mounted.
    s.state::<Swaps>().switch_all_off();
    let unmounted = if s.config().serves_machine() { Ok(()) } else { s.unmount_all() };
    let flushed = s.flush_all();
    // The client kills the machine next. What is still in use was named in the log, and its data is safe.
    s.take_down().ok();
    unmounted.and(flushed)
}

/// Everything that was written is on the disks.
pub(crate) fn sync(s: &mut Session) -> Result<()> {
    s.flush_all()
}

/// Ends the daemon at once, with no reply: for tests of clients.
pub(crate) fn internal_exit(s: &mut Session) -> Result<()> {
    s.quit();
    Ok(())
}
