// SPDX-License-Identifier: Apache-2.0
//! `/etc/tcmu/tcmu.conf` as far as it concerns a program on the library: how much is logged, and
//! where. A thread may watch it.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::write;
use tcmu_abi::log::tcmu_set_log_level;

use crate::log;

/// The file.
const PATH: &str = "/etc/tcmu/tcmu.conf";

/// What C knows as `struct tcmu_config`.
#[derive(Debug)]
pub(crate) struct Config {
    path: Arc<PathBuf>,
    /// Ends the watch when it is written to.
    watch: Mutex<Option<OwnedFd>>,
}

impl Default for Config {
    fn default() -> Self {
        Config { path: Arc::new(PATH.into()), watch: Mutex::default() }
    }
}

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    level: Option<c_int>,
    directory: Option<PathBuf>,
}

impl Settings {
    /// `key = value`, a line each; values may be quoted, and `#` begins a comment.
    fn parse(text: &str) -> Settings {
        let mut settings = Settings::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(|c| c == '"' || c == '\'');
            match key.trim() {
                "log_level" => settings.level = value.parse().ok().or(settings.level),
                "log_dir" => settings.directory = Some(value.into()),
                _ => {}
            }
        }
        settings
    }
}

fn load(path: &Path) -> io::Result<()> {
    let settings = Settings::parse(&std::fs::read_to_string(path)?);
    if let Some(level) = settings.level {
        tcmu_set_log_level(level);
    }
    if let Some(directory) = settings.directory {
        // It logs why, if it cannot.
        log::open(Some(directory));
    }
    Ok(())
}

impl Config {
    /// Reads and applies the file; 0 or a negative errno.
    pub(crate) fn load(&self) -> c_int {
        done(load(&self.path))
    }

    /// Does so whenever it changes, until [`Config::unwatch`]; 0 or a negative errno.
    pub(crate) fn watch(&self) -> c_int {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_some() {
            return 0;
        }
        let started = start(self.path.clone());
        done(started.map(|end| *watch = Some(end)))
    }

    /// Ends the watch.
    pub(crate) fn unwatch(&self) {
        let end = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end {
            let _ = write(&end, &1u64.to_ne_bytes());
        }
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        self.unwatch();
    }
}

fn done(result: io::Result<()>) -> c_int {
    let Err(error) = result else { return 0 };
    tracing::error!("{PATH}: {error}");
    -error.raw_os_error().unwrap_or(libc::EIO)
}

/// Starts the thread that watches; returns what ends it.
fn start(path: Arc<PathBuf>) -> io::Result<OwnedFd> {
    let end = eventfd(0, EventfdFlags::CLOEXEC)?;
    let ended = end.try_clone()?;
    let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // The directory: the file's own watch is lost when it is replaced.
    let mask = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
    inotify::add_watch(&changes, path.parent().unwrap_or(Path::new("/")), mask)?;
    crate::dbus::thread("tcmu-config", move || {
        loop {
            let mut fds =
                [&ended, &changes].map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
            let waited = poll(&mut fds, None);
            if matches!(waited, Err(errno) if errno != rustix::io::Errno::INTR)
                || fds[0].revents().contains(PollFlags::IN)
            {
                return;
            }
            if is_about(&changes, &path)
                && let Err(error) = load(&path)
            {
                tracing::warn!("{}: {error}", path.display());
            }
        }
    })?;
    Ok(end)
}

/// Reads what has changed in the directory; whether the file is among it.
fn is_about(changes: &OwnedFd, path: &Path) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(changes, &mut buffer);
    let mut found = false;
    while let Ok(event) = events.next() {
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
        found |= name.is_some_and(|name| path.file_name().is_some_and(|file| *file == *name));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_the_daemon_reads_it() {
        let text =
            "# log_level = 1\nlog_level=5 # all\nlog_dir = \"/srv/log\"\nother = 3\nnothing\n";
        let settings = Settings { level: Some(5), directory: Some("/srv/log".into()) };
        assert_eq!(Settings::parse(text), settings);
        assert_eq!(Settings::parse("log_level = many"), Settings::default());
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_and_no_more() {
        let config =
            Config { path: Arc::new("/no/such/tcmu.conf".into()), watch: Mutex::default() };
        assert_eq!(config.load(), -libc::ENOENT);
        assert_eq!(config.watch(), -libc::ENOENT);
        config.unwatch();
    }
}
