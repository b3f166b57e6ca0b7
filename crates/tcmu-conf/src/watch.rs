// SPDX-License-Identifier: Apache-2.0
//! Tells when a file may have changed, however it is written: in place, by rename (editors), or
//! through a link that is switched (configuration mounts). Watches directories, for a file's own
//! watch is lost with its inode.
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify;
use rustix::fs::inotify::{CreateFlags, WatchFlags};

/// A watch on one file.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches the directory of `path`, and the one of what it links to. An error names what is
    /// missing.
    pub fn new(path: &Path) -> io::Result<Watch> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mask = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, directory, mask)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", directory.display())))?;
        if let Ok(real) = path.canonicalize()
            && let Some(real) = real.parent()
        {
            // The same directory yields the same watch.
            inotify::add_watch(&fd, real, mask)?;
        }
        Ok(Watch(fd))
    }

    /// Forgets what happened so far; whether something did. The caller compares contents: an event
    /// may concern a neighbour.
    pub fn drain(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut any = false;
        while events.next().is_ok() {
            any = true;
        }
        any
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn writing_replacing_and_deleting_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tcmu.conf");
        let watch = Watch::new(&file).unwrap();
        assert!(!watch.drain());
        fs::write(&file, "a").unwrap();
        assert!(watch.drain());
        fs::write(dir.path().join("new"), "b").unwrap();
        watch.drain();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert!(watch.drain());
        fs::remove_file(&file).unwrap();
        assert!(watch.drain());
        assert!(!watch.drain());
    }

    #[test]
    fn a_change_behind_a_link_is_noticed() {
        let (dir, real) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(real.path().join("c"), "a").unwrap();
        std::os::unix::fs::symlink(real.path().join("c"), dir.path().join("tcmu.conf")).unwrap();
        let watch = Watch::new(&dir.path().join("tcmu.conf")).unwrap();
        fs::write(real.path().join("c"), "b").unwrap();
        assert!(watch.drain());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Watch::new(Path::new("/no/such/tcmu.conf")).unwrap_err();
        assert!(error.to_string().starts_with("/no/such: "), "{error}");
    }
}
