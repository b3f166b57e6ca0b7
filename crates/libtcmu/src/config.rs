// SPDX-License-Identifier: Apache-2.0
//! `/etc/tcmu/tcmu.conf` as far as it concerns a program on the library: how much is logged, and
//! where. A thread may watch it.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::write;
use tcmu_abi::log::tcmu_set_log_level;
use tcmu_conf::{PATH, Watch};

use crate::log;

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
    /// What concerns others, and what cannot be understood, is passed over.
    fn parse(content: &[u8]) -> Settings {
        let mut settings = Settings::default();
        for setting in tcmu_conf::settings(content) {
            let Ok(value) = setting.value else { continue };
            match setting.key {
                "log_level" => settings.level = value.parse().ok().or(settings.level),
                "log_dir" => settings.directory = Some(value.into()),
                _ => {}
            }
        }
        settings
    }
}

fn load(path: &Path) -> io::Result<()> {
    let settings = Settings::parse(&tcmu_conf::read(path)?);
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
    let other = match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        _ => libc::EIO,
    };
    -error.raw_os_error().unwrap_or(other)
}

/// Starts the thread that watches; returns what ends it.
fn start(path: Arc<PathBuf>) -> io::Result<OwnedFd> {
    let end = eventfd(0, EventfdFlags::CLOEXEC)?;
    let ended = end.try_clone()?;
    let changes = Watch::new(&path)?;
    let mut applied = None;
    crate::dbus::thread("tcmu-config", move || {
        loop {
            let mut fds = [ended.as_fd(), changes.as_fd()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let waited = poll(&mut fds, None);
            if matches!(waited, Err(errno) if errno != rustix::io::Errno::INTR)
                || fds[0].revents().contains(PollFlags::IN)
            {
                return;
            }
            changes.drain();
            // It may have been a neighbour of the file.
            let content = tcmu_conf::read(&path).ok();
            if content.is_none() || content == applied {
                continue;
            }
            applied = content;
            if let Err(error) = load(&path) {
                tracing::warn!("{}: {error}", path.display());
            }
        }
    })?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_the_daemon_reads_it() {
        let text =
            b"# log_level = 1\nlog_level=5 # all\nlog_dir = \"/srv/log\"\nother = 3\nnothing\n";
        let settings = Settings { level: Some(5), directory: Some("/srv/log".into()) };
        assert_eq!(Settings::parse(text), settings);
        assert_eq!(Settings::parse(b"log_level = many"), Settings::default());
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
