// SPDX-License-Identifier: Apache-2.0
//! What keeps a filesystem in order while it is mounted: flushing, scrubbing, balancing, defragmenting, resizing.

use super::target::{btrfs, open};
use crate::btrfs::balance::{self, Control};
use crate::btrfs::scrubs::Scrubs;
use crate::btrfs::sync;
use crate::procedures::numbers::not_negative;
use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::options;
use guestfs_api::structs::{Btrfsbalance, Btrfsscrub};
use rustix::fs::OFlags;

/// Ways to compress what is defragmented.
const COMPRESSIONS: &[&str] = &["zlib", "lzo"];

/// Writes everything to the devices.
pub(crate) fn btrfs_filesystem_sync(s: &mut Session, fs: GuestPath<'_>) -> Result<()> {
    sync(open(s, fs)?).on(fs)
}

/// Starts reading and verifying everything.
pub(crate) fn btrfs_scrub_start(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let file = open(s, path)?;
    s.state::<Scrubs>().start(file, path.as_os_str(), false)
}

/// Cancels that.
pub(crate) fn btrfs_scrub_cancel(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let file = open(s, path)?;
    s.state::<Scrubs>().cancel(&file, path.as_os_str())
}

/// Goes on where it was cancelled.
pub(crate) fn btrfs_scrub_resume(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let file = open(s, path)?;
    s.state::<Scrubs>().resume(file, path.as_os_str())
}

/// Reads and verifies everything, and ends when that is done.
pub(crate) fn btrfs_scrub_full(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::BtrfsScrubFull,
) -> Result<()> {
    let (file, name) = (open(s, path)?, path.as_os_str());
    let scrubs = s.state::<Scrubs>();
    let asked = file.try_clone().on(path)?;
    scrubs.start(file, name, options.readonly == Some(true))?;
    scrubs.finish(&asked, name)
}

/// What the last scrub has found so far.
pub(crate) fn btrfs_scrub_status(s: &mut Session, path: GuestPath<'_>) -> Result<Btrfsscrub> {
    let file = open(s, path)?;
    let all = s.state::<Scrubs>().progress(&file, path.as_os_str())?;
    Ok(Btrfsscrub {
        btrfsscrub_data_extents_scrubbed: all.data_extents_scrubbed,
        btrfsscrub_tree_extents_scrubbed: all.tree_extents_scrubbed,
        btrfsscrub_data_bytes_scrubbed: all.data_bytes_scrubbed,
        btrfsscrub_tree_bytes_scrubbed: all.tree_bytes_scrubbed,
        btrfsscrub_read_errors: all.read_errors,
        btrfsscrub_csum_errors: all.csum_errors,
        btrfsscrub_verify_errors: all.verify_errors,
        btrfsscrub_no_csum: all.no_csum,
        btrfsscrub_csum_discards: all.csum_discards,
        btrfsscrub_super_errors: all.super_errors,
        btrfsscrub_malloc_errors: all.malloc_errors,
        btrfsscrub_uncorrectable_errors: all.uncorrectable_errors,
        btrfsscrub_unverified_errors: all.unverified_errors,
        btrfsscrub_corrected_errors: all.corrected_errors,
        btrfsscrub_last_physical: all.last_physical,
    })
}

/// Spreads everything over the devices anew.
pub(crate) fn btrfs_filesystem_balance(s: &mut Session, fs: GuestPath<'_>) -> Result<()> {
    let file = open(s, fs)?;
    // Without the option, it waits for ten seconds whether somebody ends it.
    let tool = btrfs(&["balance", "start", "--full-balance", "--"]);
    tool.file(&file, fs).ok().map_err(|e| e.within(fs))
}

/// Pauses that.
pub(crate) fn btrfs_balance_pause(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    control(s, path, Control::Pause)
}

/// Ends that.
pub(crate) fn btrfs_balance_cancel(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    control(s, path, Control::Cancel)
}

fn control(s: &Session, path: GuestPath<'_>, control: Control) -> Result<()> {
    match balance::control(open(s, path)?, control) {
        Err(rustix::io::Errno::NOTCONN) => Err(no_balance(path)),
        done => done.on(path),
    }
}

fn no_balance(path: GuestPath<'_>) -> Error {
    Error::new(Errno::ENOTCONN, "no balance is going on").within(path)
}

/// Goes on where it was paused.
pub(crate) fn btrfs_balance_resume(s: &mut Session, path: GuestPath<'_>) -> Result<()> {
    let file = open(s, path)?;
    if let Err(rustix::io::Errno::NOTCONN) = balance::state(&file) {
        return Err(no_balance(path));
    }
    let tool = btrfs(&["balance", "resume", "--"]);
    tool.file(&file, path).ok().map_err(|e| e.within(path))
}

/// How far it has come.
pub(crate) fn btrfs_balance_status(s: &mut Session, path: GuestPath<'_>) -> Result<Btrfsbalance> {
    let mut status = Btrfsbalance {
        btrfsbalance_status: "none".into(),
        btrfsbalance_total: 0,
        btrfsbalance_balanced: 0,
        btrfsbalance_considered: 0,
        btrfsbalance_left: 0,
    };
    let (state, progress) = match balance::state(open(s, path)?) {
        Err(rustix::io::Errno::NOTCONN) => return Ok(status),
        found => found.on(path)?,
    };
    let mut text = String::from(if state.is_running() { "running" } else { "paused" });
    for (told, what) in [(state.is_to_end(), "cancel"), (state.is_to_pause(), "pause")] {
        if told {
            text += &format!(", {what} requested");
        }
    }
    status.btrfsbalance_status = text.into();
    status.btrfsbalance_total = progress.expected;
    status.btrfsbalance_balanced = progress.completed;
    status.btrfsbalance_considered = progress.considered;
    status.btrfsbalance_left = percent_left(progress.completed, progress.expected);
    Ok(status)
}

/// The rest, in percent, rounded.
fn percent_left(done: u64, total: u64) -> u64 {
    let (left, total) = (u128::from(total.saturating_sub(done)), u128::from(total.max(1)));
    u64::try_from((left * 200 + total) / (total * 2)).unwrap_or(100)
}

/// Puts pieces of a file together, or of what the filesystem keeps of a directory (not of the files in it).
pub(crate) fn btrfs_filesystem_defragment(
    s: &mut Session,
    path: GuestPath<'_>,
    options: &options::BtrfsFilesystemDefragment<'_>,
) -> Result<()> {
    let mut tool = btrfs(&["filesystem", "defragment"]);
    if options.flush == Some(true) {
        tool = tool.arg("-f");
    }
    if let Some(compress) = options.compress {
        let known = COMPRESSIONS
            .iter()
            .find(|name| compress == **name)
            .ok_or_else(|| Error::argument("compress", compress, "must be zlib or lzo"))?;
        tool = tool.arg(format!("-c{known}"));
    }
    let file = open(s, path)?;
    tool.arg("--").file(&file, path).ok().map_err(|e| e.within(path))
}

/// Makes a filesystem as large as its device, or as large as this.
pub(crate) fn btrfs_filesystem_resize(
    s: &mut Session,
    mountpoint: GuestPath<'_>,
    options: &options::BtrfsFilesystemResize,
) -> Result<()> {
    let size = match options.size {
        Some(size) => not_negative::<u64, _>("size", size)?.to_string(),
        None => "max".to_owned(),
    };
    let file = s.open(mountpoint, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let tool = btrfs(&["filesystem", "resize", "--"]);
    tool.arg(size).file(&file, mountpoint).ok().map_err(|e| e.within(mountpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_percent() {
        assert_eq!(percent_left(0, 0), 0);
        assert_eq!(percent_left(0, 8), 100);
        assert_eq!(percent_left(3, 8), 63);
        assert_eq!(percent_left(8, 8), 0);
        assert_eq!(percent_left(9, 8), 0);
        assert_eq!(percent_left(0, u64::MAX), 100);
    }
}
