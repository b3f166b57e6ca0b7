// SPDX-License-Identifier: Apache-2.0
//! One daemon per host: a POSIX record lock on /run/tcmu.lock, the one that the C daemon takes, so
//! that the two never run at the same time. The kernel drops the lock when its holder dies,
//! however.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

/// The lock file of every TCM-User daemon.
pub const PATH: &str = "/run/tcmu.lock";

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("already running as pid {pid} (it holds {path}); stop it first", path = .path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder; 0 when it is in another PID namespace.
        pid: i32,
    },
    /// Processes of plugins that an earlier daemon has started hold the file open.
    #[error(
        "processes that plugins of an earlier daemon run in, or have started, have not ended, and \
         may have images open: {processes}. They hold {path}; end them first (they may ignore SIGTERM)",
        path = .path.display()
    )]
    Plugins {
        /// The lock file.
        path: PathBuf,
        /// Which ones, for people.
        processes: String,
    },
    /// The file cannot be used.
    #[error("cannot lock {path}: {source}; run as root, with a writable /run", path = .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Between two looks at whether others hold the file.
const LOOK: Duration = Duration::from_millis(20);

/// The lock, held for the life of the value.
#[derive(Debug)]
pub struct Lock {
    /// Never opened, nor duplicated and closed, a second time: that would drop the lock.
    file: Arc<File>,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, or says who has it. Never waits.
    pub fn take(path: &Path) -> Result<Lock, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(io)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { file: Arc::new(file), path: path.into() }),
            Err(Errno::ACCESS | Errno::AGAIN) => {
                Err(Error::Held { path: path.to_owned(), pid: holder(&file).unwrap_or(0) })
            }
            Err(errno) => Err(io(errno.into())),
        }
    }
}

impl Lock {
    /// The file, for the processes of plugins, which hold it open for as long as they run.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Waits until the plugins of an earlier daemon that was killed have ended, too. Their processes,
    /// and those that they have forked, share its lock of another kind, flock(2), which goes with the
    /// last of them.
    pub fn wait_for_plugins(&self, time: Duration) -> Result<(), Error> {
        let until = Instant::now() + time;
        loop {
            match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(LOOK),
                Err(Errno::WOULDBLOCK) => {
                    let processes = users(&self.file);
                    return Err(Error::Plugins { path: self.path.clone(), processes });
                }
                Err(errno) => {
                    return Err(Error::Io { path: self.path.clone(), source: errno.into() });
                }
            }
        }
    }
}

/// The other processes that have a file open, by PID and name, of those that can be seen.
fn users(file: &File) -> String {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let ours = file.metadata().ok().map(identity);
    let has_it = |process: &Path| {
        let mut fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        fds.any(|fd| ours.is_some() && fs::metadata(fd.path()).ok().map(identity) == ours)
    };
    let described = |process: PathBuf| {
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        if pid == std::process::id() || !has_it(&process) {
            return None;
        }
        let name = fs::read(process.join("comm")).unwrap_or_default();
        Some(format!("pid {pid} ({})", name.trim_ascii_end().escape_ascii()))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found: Vec<_> = processes.filter_map(|process| described(process.path())).collect();
    match found.is_empty() {
        true => "none that can be seen from here".to_owned(),
        false => found.join(", "),
    }
}

/// The process that holds the lock of an open file.
fn holder(file: &File) -> Option<i32> {
    let ours = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    let theirs = fcntl_getlk(file, &ours).ok()??;
    Some(theirs.pid.map_or(0, |pid| pid.as_raw_nonzero().get()))
}

/// The process that holds the lock at `path`, if any; takes nothing.
pub fn held_by(path: &Path) -> Option<i32> {
    holder(&OpenOptions::new().read(true).write(true).open(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Record locks do not exclude their own process, so a child takes it: this test program, told
    /// by the environment to hold the lock until its stdin ends.
    #[test]
    fn a_second_daemon_is_told_who_holds_the_lock() {
        if let Some(path) = std::env::var_os("HOLD_LOCK") {
            let _lock = Lock::take(Path::new(&path)).unwrap();
            io::Write::write_all(&mut io::stdout(), b"held\n").unwrap();
            io::stdin().read_line(&mut String::new()).unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(held_by(&path), None);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock::tests::a_second_daemon_is_told_who_holds_the_lock"])
            .arg("--nocapture")
            .env("HOLD_LOCK", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("held") {
            line.clear();
            assert_ne!(io::BufRead::read_line(&mut out, &mut line).unwrap(), 0, "child ended");
        }
        let error = Lock::take(&path).unwrap_err();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(matches!(error, Error::Held { pid: p, .. } if p == pid), "{error}");
        assert!(error.to_string().starts_with(&format!("already running as pid {pid}")));
        assert_eq!(held_by(&path), Some(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Lock::take(&path).is_ok(), "the lock outlived its holder");
    }

    #[test]
    fn a_daemon_waits_for_what_an_earlier_one_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = Lock::take(&path).unwrap();
        let theirs = File::open(&path).unwrap();
        flock(&theirs, FlockOperation::LockExclusive).unwrap();
        // A child that has it as a plugin's has it that was forked.
        let stdin = Stdio::from(theirs.try_clone().unwrap());
        let mut child = Command::new("sleep").arg("600").stdin(stdin).spawn().unwrap();
        let error = lock.wait_for_plugins(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::Plugins { .. }), "{error}");
        let text = format!("open: pid {} (sleep). They hold {}", child.id(), path.display());
        assert!(error.to_string().contains(&text), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        let end = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(theirs);
        });
        lock.wait_for_plugins(Duration::from_secs(20)).unwrap();
        lock.wait_for_plugins(Duration::ZERO).unwrap();
        end.join().unwrap();
    }

    #[test]
    fn a_lock_file_that_cannot_be_made_is_named() {
        let error = Lock::take(Path::new("/no/such/dir/lock")).unwrap_err();
        assert!(error.to_string().starts_with("cannot lock /no/such/dir/lock: "), "{error}");
    }
}
