// SPDX-License-Identifier: Apache-2.0
//! The thread that writes the log. Nothing here may end the daemon: an error is reported once on
//! stderr, and the file is tried again after a while.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::{FILE, Message};

/// After an error the file is left alone for so long.
const RETRY: Duration = Duration::from_secs(30);

/// How lines look on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As in the file.
    Plain,
    /// With a priority for journald, which adds the rest.
    Journal,
}

impl Style {
    /// Journal when stderr is the stream that systemd connected: `JOURNAL_STREAM` is its DEV:INODE.
    pub fn of_stderr() -> Style {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let is = File::open("/proc/self/fd/2").and_then(|f| f.metadata());
        // A socket cannot be opened through /proc; its link's target has the same numbers.
        let is = is.or_else(|_| std::fs::metadata("/proc/self/fd/2"));
        match is {
            Ok(m) if stream == format!("{}:{}", m.dev(), m.ino()) => Style::Journal,
            _ => Style::Plain,
        }
    }
}

/// Serves messages until all handles of the log are gone.
pub(super) fn run(messages: &Receiver<Message>, stderr: Option<Style>) {
    let mut file = LogFile::default();
    for message in messages {
        match message {
            Message::Line(line) => {
                let plain = line.to_string();
                file.write(plain.as_bytes());
                let _ = match stderr {
                    Some(Style::Plain) => io::stderr().write_all(plain.as_bytes()),
                    Some(Style::Journal) => io::stderr().write_all(line.for_journal().as_bytes()),
                    None => Ok(()),
                };
            }
            Message::Directory(directory) => file = LogFile::new(Some(directory)),
            Message::Reopen => file = LogFile::new(file.directory),
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// The log file, open or waiting for the next try.
#[derive(Debug, Default)]
struct LogFile {
    directory: Option<PathBuf>,
    file: Option<File>,
    retry_at: Option<Instant>,
}

impl LogFile {
    fn new(directory: Option<PathBuf>) -> LogFile {
        let mut this = LogFile { directory, file: None, retry_at: None };
        this.open();
        this
    }

    fn open(&mut self) {
        let Some(directory) = &self.directory else { return };
        match open(directory) {
            Ok(file) => (self.file, self.retry_at) = (Some(file), None),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if let (Some(directory), None) = (&self.directory, self.retry_at) {
            let path = directory.join(FILE);
            let _ = writeln!(
                io::stderr(),
                "log file {}: {error}; going on without it, trying again every {} s",
                path.display(),
                RETRY.as_secs()
            );
        }
        (self.file, self.retry_at) = (None, Some(Instant::now() + RETRY));
    }

    fn write(&mut self, line: &[u8]) {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.open();
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(line)
        {
            self.failed(&error);
        }
    }
}

fn open(directory: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let path = directory.join(FILE);
    // Not blocked by a FIFO that lies there, and not led elsewhere by a link.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_default;
    use super::super::{Level, Log};
    use std::fs;
    use std::time::Duration;

    #[test]
    fn lines_go_to_the_new_file_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let (file, old) = (dir.path().join("sub/tcmu-runner.log"), dir.path().join("sub/old"));
        let log = Log::start(Level::Info, None).unwrap();
        log.set_directory(dir.path().join("sub"));
        with_default(log.clone(), || tracing::info!("before"));
        log.flush(Duration::from_secs(5));
        fs::rename(&file, &old).unwrap();
        with_default(log.clone(), || tracing::info!("between"));
        log.reopen();
        with_default(log.clone(), || tracing::info!("after"));
        log.flush(Duration::from_secs(5));
        let old = fs::read_to_string(old).unwrap();
        assert!(
            old.contains("before\n") && old.contains("between\n") && !old.contains("after\n"),
            "{old}"
        );
        let new = fs::read_to_string(file).unwrap();
        assert!(new.ends_with("after\n") && new.lines().count() == 1, "{new}");
    }

    #[test]
    fn a_directory_that_cannot_be_used_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tcmu-runner.log")).unwrap();
        let log = Log::start(Level::Info, None).unwrap();
        log.set_directory(dir.path().into());
        log.set_directory("/proc/no/such".into());
        with_default(log.clone(), || tracing::info!("lost"));
        log.set_directory(dir.path().join("good"));
        with_default(log.clone(), || tracing::info!("kept"));
        log.flush(Duration::from_secs(5));
        let text = fs::read_to_string(dir.path().join("good/tcmu-runner.log")).unwrap();
        assert!(text.ends_with("kept\n") && !text.contains("lost"));
    }
}
