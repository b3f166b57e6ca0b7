//! Walks through directory trees of the guest, by descriptor: no symbolic link is followed on the way, and a
//! directory of any length takes the same little memory.

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, Stat};
use rustix::io::Errno as Raw;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Once;

/// A walk through what is below a directory. Each directory is entered only if the caller says so.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Directories from the top to where the walk is.
    levels: Vec<Level>,
    /// Path of what was found last, from below the top on.
    path: Vec<u8>,
    found: Option<DirEntry>,
}

#[derive(Debug)]
struct Level {
    dir: Dir,
    /// Length of the path to it, with the slash behind it.
    path: usize,
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// An entry of the directory in which the walk is.
    Found,
    /// There is no more in a directory that was entered; the walk is in the one above again, and found is the
    /// directory that was left.
    Left,
}

impl Walk {
    /// A walk through this directory.
    pub(crate) fn new(top: &impl AsFd) -> rustix::io::Result<Self> {
        allow_many_files();
        Ok(Self {
            levels: vec![Level { dir: Dir::read_from(top)?, path: 0 }],
            path: Vec::new(),
            found: None,
        })
    }

    /// Goes on; nothing at the end. After an error the path is that of the directory that cannot be read.
    pub(crate) fn step(&mut self) -> rustix::io::Result<Option<Step>> {
        while let Some(level) = self.levels.last_mut() {
            match level.dir.read() {
                Some(entry) => {
                    self.path.truncate(level.path);
                    let entry = entry?;
                    let name = entry.file_name();
                    if name == c"." || name == c".." {
                        continue;
                    }
                    self.path.extend_from_slice(name.to_bytes());
                    self.found = Some(entry);
                    return Ok(Some(Step::Found));
                }
                None => {
                    self.path.truncate(level.path.saturating_sub(1));
                    self.found = None;
                    self.levels.pop();
                    return Ok((!self.levels.is_empty()).then_some(Step::Left));
                }
            }
        }
        Ok(None)
    }

    /// Enters the directory that was found.
    pub(crate) fn enter(&mut self) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.open(flags)?;
        self.path.push(b'/');
        self.levels.push(Level { dir: Dir::new(fd)?, path: self.path.len() });
        self.found = None;
        Ok(())
    }

    /// Opens what was found; `flags` are to have `NOFOLLOW`.
    pub(crate) fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(self.dir()?, self.name(), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The directory in which the walk is.
    pub(crate) fn dir(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.levels.last().ok_or(Raw::NOENT)?.dir.fd()
    }

    /// How many directories below the top the walk is.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// Path of what was found or left, from below the top on.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Name of what was found or left, in the directory in which the walk is.
    pub(crate) fn name(&self) -> &std::ffi::OsStr {
        let begin = self.levels.last().map_or(0, |level| level.path);
        std::ffi::OsStr::from_bytes(&self.path[begin.min(self.path.len())..])
    }

    /// What was found, not followed.
    pub(crate) fn stat(&self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(self.dir()?, self.name(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Of which type it is; a filesystem need not say so in the entry.
    pub(crate) fn kind(&self) -> FileType {
        match self.found.as_ref().map_or(FileType::Unknown, DirEntry::file_type) {
            FileType::Unknown => {
                self.stat().map_or(FileType::Unknown, |s| FileType::from_raw_mode(s.st_mode))
            }
            kind => kind,
        }
    }
}

/// Each level of a walk takes a descriptor: as deep as a path can lead, they are to be had.
fn allow_many_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        const ENOUGH: u64 = 16 << 10;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = maximum.unwrap_or(ENOUGH).min(ENOUGH);
        if current.is_some_and(|c| c < wanted) {
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).ok();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

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

    #[test]
    fn a_walk_is_as_deep_as_a_path_can_lead() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d/".repeat(1900));
        std::fs::create_dir_all(deep).unwrap();
        let mut walk = Walk::new(&File::open(dir.path()).unwrap()).unwrap();
        let mut depth = 0;
        while let Some(step) = walk.step().unwrap() {
            if step == Step::Found {
                walk.enter().unwrap();
                depth += 1;
            }
        }
        assert_eq!(depth, 1900);
    }
}
