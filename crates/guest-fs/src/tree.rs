// SPDX-License-Identifier: Apache-2.0
//! Walks through directory trees of the guest, by descriptor: no symbolic link is followed on the way, and neither
//! how many levels a tree has nor how many names a directory has makes a difference to what a walk takes.

mod names;
mod way;

use names::Names;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
pub use way::Way;

/// Bytes of entries that are read at once.
const BUFFER: usize = 32 << 10;
/// Bytes of names that a walk keeps of directories that are closed. What has more stays open.
const MOST_KEPT: usize = 16 << 20;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// A walk through what is below a directory. Each directory is entered only if the caller says so.
#[derive(Debug)]
pub struct Walk {
    /// Directories from the top to where the walk is.
    way: Way,
    /// What is left of each of them.
    levels: Vec<Level>,
    /// Path of what was found last, from below the top on.
    path: Vec<u8>,
    kind: FileType,
    /// Bytes of names of levels far above, and how many there may be.
    kept: usize,
    most_kept: usize,
    buffer: Box<[MaybeUninit<u8>]>,
}

#[derive(Debug)]
struct Level {
    names: Names,
    /// Bytes of names that count as kept.
    kept: usize,
    /// Length of the path to it, including the slash after it.
    path: usize,
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An entry of the directory in which the walk is.
    Found,
    /// There is no more in a directory that was entered; the walk is in the one above again, and found is the
    /// directory that was left.
    Left,
}

impl Walk {
    /// A walk through this directory.
    pub fn new(top: &impl AsFd) -> rustix::io::Result<Self> {
        let top = rustix::fs::openat(top, ".", DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            way: Way::new(top),
            levels: vec![Level { names: Names::default(), kept: 0, path: 0 }],
            path: Vec::new(),
            kind: FileType::Unknown,
            kept: 0,
            most_kept: MOST_KEPT,
            buffer: Box::new_uninit_slice(BUFFER),
        })
    }

    /// Goes on; nothing at the end. After an error the path is that of the directory that cannot be read.
    pub fn step(&mut self) -> rustix::io::Result<Option<Step>> {
        while let Some(level) = self.levels.last_mut() {
            if let Some((kind, name)) = level.names.next() {
                self.path.truncate(level.path);
                self.path.extend_from_slice(name);
                self.kind = kind;
                return Ok(Some(Step::Found));
            }
            match self.way.here().and_then(|dir| level.names.read(dir, &mut self.buffer)) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(e) => {
                    level.names.complete();
                    self.path.truncate(level.path.saturating_sub(1));
                    return Err(e);
                }
            }
            self.path.truncate(level.path.saturating_sub(1));
            self.kind = FileType::Directory;
            self.levels.pop();
            let Some(above) = self.levels.last_mut() else { break };
            self.kept -= std::mem::take(&mut above.kept);
            if let Err(e) = self.way.up() {
                self.levels.clear();
                return Err(e);
            }
            return Ok(Some(Step::Left));
        }
        Ok(None)
    }

    /// Enters the directory that was found.
    pub fn enter(&mut self) -> rustix::io::Result<()> {
        let below = self.open(DIRECTORY)?;
        self.way.down(below, |number, dir| {
            let Some(level) = self.levels.get_mut(number) else { return true };
            let most = self.most_kept.saturating_sub(self.kept);
            let read = level.names.read_rest(dir, &mut self.buffer, most);
            level.kept = level.names.len();
            self.kept += level.kept;
            read
        });
        self.path.push(b'/');
        self.levels.push(Level { names: Names::default(), kept: 0, path: self.path.len() });
        Ok(())
    }

    /// Opens what was found; `flags` are to have `NOFOLLOW`.
    pub fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(self.dir()?, self.name(), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The directory in which the walk is.
    pub fn dir(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.way.here()
    }

    /// Path of what was found or left, from below the top on.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Name of what was found or left, in the directory in which the walk is.
    pub fn name(&self) -> &std::ffi::OsStr {
        let begin = self.levels.last().map_or(0, |level| level.path);
        std::ffi::OsStr::from_bytes(&self.path[begin.min(self.path.len())..])
    }

    /// What was found, not followed.
    pub fn stat(&self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(self.dir()?, self.name(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Of which type it is; a filesystem need not say so in the entry.
    pub fn kind(&self) -> FileType {
        match self.kind {
            FileType::Unknown => {
                self.stat().map_or(FileType::Unknown, |s| FileType::from_raw_mode(s.st_mode))
            }
            kind => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno as Raw;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_walk_comes_to_everything_once_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/c"), "").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("a/link")).unwrap();
        let mut walk = Walk::new(&File::open(dir.path()).unwrap()).unwrap();
        let (mut found, mut left) = (Vec::new(), Vec::new());
        while let Some(step) = walk.step().unwrap() {
            let path = String::from_utf8(walk.path().to_vec()).unwrap();
            assert_eq!(walk.name().to_str(), path.rsplit('/').next());
            match step {
                Step::Left => left.push(path),
                Step::Found => {
                    found.push(path);
                    if walk.kind().is_dir() {
                        walk.enter().unwrap();
                    } else {
                        assert!(walk.enter().is_err());
                    }
                }
            }
        }
        found.sort();
        assert_eq!(found, ["a", "a/b", "a/b/c", "a/link"]);
        assert_eq!(left, ["a/b", "a"]);
    }

    /// Directories `d` in each other, with as many files in each, and a walk through the whole.
    fn deep(levels: usize, files: usize) -> (tempfile::TempDir, Walk) {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_owned();
        for _ in 0..levels {
            for n in 0..files {
                std::fs::write(path.join(n.to_string()), "").unwrap();
            }
            path.push("d");
            std::fs::create_dir(&path).unwrap();
        }
        let walk = Walk::new(&File::open(dir.path()).unwrap()).unwrap();
        (dir, walk)
    }

    #[test]
    fn a_deep_walk_comes_to_everything_with_few_directories_open() {
        let (dir, mut walk) = deep(1000, 3);
        let (mut found, mut left) = (std::collections::BTreeSet::new(), 0);
        while let Some(step) = walk.step().unwrap() {
            assert!(walk.way.open_directories() <= 32);
            let named = dir.path().join(std::ffi::OsStr::from_bytes(walk.path()));
            assert_eq!(
                std::fs::symlink_metadata(named).unwrap().ino(),
                walk.stat().unwrap().st_ino
            );
            if step == Step::Left {
                left += 1;
                continue;
            }
            assert!(found.insert(walk.path().to_vec()));
            if walk.kind().is_dir() {
                walk.enter().unwrap();
            }
        }
        assert_eq!((found.len(), left, walk.kept), (4000, 1000, 0));
    }

    #[test]
    fn a_directory_stays_open_if_too_many_names_are_left_in_it() {
        let (_dir, mut walk) = deep(200, 3);
        walk.most_kept = 20;
        let mut found = 0;
        while let Some(step) = walk.step().unwrap() {
            if step == Step::Found {
                found += 1;
                if walk.kind().is_dir() {
                    walk.enter().unwrap();
                }
            }
        }
        assert_eq!((found, walk.kept), (800, 0));
    }

    #[test]
    fn a_walk_does_not_go_on_elsewhere_when_its_directories_are_moved() {
        let (dir, mut walk) = deep(100, 1);
        let elsewhere = dir.path().join("elsewhere");
        let mut depth = 0;
        let end = loop {
            match walk.step() {
                Ok(Some(Step::Found)) if walk.kind().is_dir() => {
                    walk.enter().unwrap();
                    depth += 1;
                    if depth == 100 {
                        let moved = dir.path().join("d/".repeat(10));
                        std::fs::rename(moved, &elsewhere).unwrap();
                    }
                }
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert_eq!(end, Err(Raw::STALE));
        assert_eq!(walk.step(), Ok(None));
    }
}
