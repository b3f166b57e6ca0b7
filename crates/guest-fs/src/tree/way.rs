// SPDX-License-Identifier: Apache-2.0
//! The way from a directory down to one below it. However long it is, few of its directories are open: those far
//! above are closed, and opened again through `..` when the way comes back to them.

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::{Errno as Raw, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Directories that are open, from the lowest up.
const OPEN: usize = 32;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Directories, each in the one before it. After an error it has come to its end, and no directory is left.
#[derive(Debug)]
pub struct Way {
    levels: Vec<Level>,
    /// How many levels are too far above to be open, except for those that could not be closed.
    passed: usize,
}

#[derive(Debug)]
enum Level {
    Open(OwnedFd),
    Closed(Identity),
}

/// By which a directory is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Way {
    /// A way that begins with this directory, and never leads above it.
    pub fn new(top: OwnedFd) -> Self {
        Self { levels: vec![Level::Open(top)], passed: 0 }
    }

    /// The lowest directory.
    pub fn here(&self) -> Result<BorrowedFd<'_>> {
        match self.levels.last() {
            Some(Level::Open(fd)) => Ok(fd.as_fd()),
            _ => Err(Raw::NOENT),
        }
    }

    /// Whether the lowest directory is that in which the way began.
    pub fn is_at_top(&self) -> bool {
        self.levels.len() == 1
    }

    /// Goes on to a directory in the lowest one. `may_close` is asked about one that is open far above, by its
    /// number from the top.
    pub fn down(&mut self, below: OwnedFd, may_close: impl FnOnce(usize, BorrowedFd<'_>) -> bool) {
        if self.levels.len() - self.passed == OPEN {
            if let Some(level) = self.levels.get_mut(self.passed)
                && let Level::Open(fd) = level
                && let Ok(identity) = Identity::of(fd.as_fd())
                && may_close(self.passed, fd.as_fd())
            {
                *level = Level::Closed(identity);
            }
            self.passed += 1;
        }
        self.levels.push(Level::Open(below));
    }

    /// Goes back to the directory above, if it is not the end of the way.
    ///
    /// `..` leads elsewhere if somebody has moved the directory meanwhile: then it is not gone on there, it
    /// is an error, `ESTALE`.
    pub fn up(&mut self) -> Result<()> {
        let left = self.levels.pop();
        self.passed = self.passed.min(self.levels.len().saturating_sub(1));
        let (Some(Level::Open(left)), Some(above)) = (left, self.levels.last_mut()) else {
            return Ok(());
        };
        if let Level::Closed(identity) = above {
            match open_above(&left, *identity) {
                Ok(fd) => *above = Level::Open(fd),
                Err(e) => {
                    self.levels.clear();
                    self.passed = 0;
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// The lowest directory, for good.
    pub fn end(mut self) -> Result<OwnedFd> {
        match self.levels.pop() {
            Some(Level::Open(fd)) => Ok(fd),
            _ => Err(Raw::NOENT),
        }
    }

    #[cfg(test)]
    pub(super) fn open_directories(&self) -> usize {
        self.levels.iter().filter(|level| matches!(level, Level::Open(_))).count()
    }
}

impl Identity {
    fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let Stat { st_dev: device, st_ino: inode, .. } = rustix::fs::fstat(fd)?;
        Ok(Self { device, inode })
    }
}

/// The directory in which a directory is, if it is the one that it has to be.
fn open_above(below: &OwnedFd, identity: Identity) -> Result<OwnedFd> {
    let above = rustix::fs::openat(below, "..", DIRECTORY, Mode::empty())?;
    if Identity::of(above.as_fd())? == identity { Ok(above) } else { Err(Raw::STALE) }
}
