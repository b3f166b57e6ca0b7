// SPDX-License-Identifier: Apache-2.0
//! Watching files of the guest: one inotify instance a session.

use super::numbers::not_negative;
use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use guestfs_api::structs::InotifyEvent;
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno as Raw;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// Length of the kernel's queue of an instance that is made.
const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";
/// Bytes of events that are read at once.
const PIECE: usize = 64 << 10;
/// Bytes of events that one reply holds; as XDR they are longer by a fourth at most.
const MAX_EVENTS: usize = 2 << 20;
/// Bytes of an event in a reply, less those of its name.
const EVENT: usize = 24;

/// The session's instance.
#[derive(Debug, Default)]
struct Watching {
    instance: Option<OwnedFd>,
    /// Length of the queue that was asked for last.
    maxevents: Option<u32>,
}

impl Watching {
    fn instance(&self) -> Result<&OwnedFd> {
        let text = "you must call 'inotify_init' first to initialize inotify";
        self.instance.as_ref().ok_or_else(|| Error::new(Errno::EINVAL, text))
    }
}

/// Begins to watch, with room for this many events; 0 leaves that as it is. What was watched before is forgotten.
pub(crate) fn inotify_init(s: &mut Session, maxevents: i32) -> Result<()> {
    let wanted: u32 = not_negative("maxevents", maxevents)?;
    let state = s.state::<Watching>();
    let maxevents = if wanted == 0 { state.maxevents } else { Some(wanted) };
    let instance = match maxevents {
        Some(length) => with_queue(length)?,
        None => make()?,
    };
    // A length that could not be set is not kept.
    state.maxevents = maxevents;
    state.instance = Some(instance);
    Ok(())
}

fn make() -> Result<OwnedFd> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).on("inotify")
}

/// The length is this machine's and not the instance's, but an instance keeps what it was made with: it is
/// changed for a moment only.
fn with_queue(length: u32) -> Result<OwnedFd> {
    let before = std::fs::read(QUEUE).on(QUEUE)?;
    std::fs::write(QUEUE, length.to_string()).on(QUEUE)?;
    let made = make();
    std::fs::write(QUEUE, before.trim_ascii()).on(QUEUE)?;
    made
}

/// Watches a file or directory; returns the watch's number.
pub(crate) fn inotify_add_watch(s: &mut Session, path: GuestPath<'_>, mask: i32) -> Result<i64> {
    s.state::<Watching>().instance()?;
    let mut mask = WatchFlags::from_bits_retain(mask.cast_unsigned());
    // The last component has been followed, or not, when the watch is added through its descriptor.
    let nofollow = mask.contains(WatchFlags::DONT_FOLLOW);
    mask.remove(WatchFlags::DONT_FOLLOW);
    let flags = if nofollow { OFlags::PATH | OFlags::NOFOLLOW } else { OFlags::PATH };
    let file = s.open(path, flags)?;
    let instance = s.state::<Watching>().instance()?;
    inotify::add_watch(instance, proc_path(file.as_fd()), mask).map(i64::from).on(path)
}

/// Ends a watch.
pub(crate) fn inotify_rm_watch(s: &mut Session, wd: i32) -> Result<()> {
    let instance = s.state::<Watching>().instance()?;
    inotify::remove_watch(instance, wd).on(format!("wd: {wd}"))
}

/// Events since the last call, as many as a reply holds.
pub(crate) fn inotify_read(s: &mut Session) -> Result<Vec<InotifyEvent>> {
    let mut events = Vec::new();
    read(s, &mut |event| events.push(event)).map(|_| events)
}

/// Names of what events since the last call were about.
pub(crate) fn inotify_files(s: &mut Session) -> Result<Vec<OsString>> {
    let mut names = BTreeSet::new();
    let mut len = 0;
    loop {
        let more = read(s, &mut |event| {
            let name = event.in_name;
            let n = name.len();
            if n > 0 && names.insert(name) {
                len += n + size_of::<u64>();
            }
        })?;
        if !more || len > MAX_EVENTS {
            return Ok(names.into_iter().collect());
        }
    }
}

/// Reads events until there are no more, or as many as a reply holds; returns whether there may be more.
fn read(s: &mut Session, sink: &mut dyn FnMut(InotifyEvent)) -> Result<bool> {
    let instance = s.state::<Watching>().instance()?;
    let mut buffer = vec![MaybeUninit::uninit(); PIECE];
    let mut reader = Reader::new(instance, &mut buffer);
    let mut len = 0;
    // The kernel forgets what was read from it, so it has to be returned.
    while len < MAX_EVENTS || !reader.is_buffer_empty() {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Raw::AGAIN) => return Ok(false),
            Err(Raw::INTR) => continue,
            Err(e) => return Err(e).on("inotify"),
        };
        let name = event
            .file_name()
            .map(|n| OsString::from_vec(n.to_bytes().to_vec()))
            .unwrap_or_default();
        len += EVENT + name.len();
        sink(InotifyEvent {
            in_wd: event.wd().into(),
            in_mask: ReadFlags::bits(&event.events()),
            in_cookie: event.cookie(),
            in_name: name,
        });
    }
    Ok(true)
}

/// Ends all watches.
pub(crate) fn inotify_close(s: &mut Session) -> Result<()> {
    let state = s.state::<Watching>();
    state.instance()?;
    state.instance = None;
    Ok(())
}
