// SPDX-License-Identifier: Apache-2.0
//! Removing trees of the guest, by descriptor: no link is followed.

use crate::tree::{Step, Walk};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

/// Removes what is of this name, with everything below it. What cannot be removed stays, the rest is removed anyway;
/// the first error is the result.
pub fn tree(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        // A directory: so says Linux, and so POSIX.
        Err(Raw::ISDIR | Raw::PERM) => {}
        done => return done,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        // It may not be removed, and is no directory.
        Err(Raw::NOTDIR | Raw::LOOP) => return Err(Raw::PERM),
        top => top?,
    };
    loop {
        let mut walk = Walk::new(&top)?;
        let (mut removed, mut failed) = (false, None);
        while let Some(step) = walk.step()? {
            let done = match step {
                Step::Left => rustix::fs::unlinkat(walk.dir()?, walk.name(), AtFlags::REMOVEDIR),
                Step::Found if !walk.kind().is_dir() => {
                    rustix::fs::unlinkat(walk.dir()?, walk.name(), AtFlags::empty())
                }
                Step::Found => match walk.enter() {
                    Ok(()) => continue,
                    // It need not be readable to be removed if it is empty.
                    Err(e) => rustix::fs::unlinkat(walk.dir()?, walk.name(), AtFlags::REMOVEDIR)
                        .map_err(|_| e),
                },
            };
            match done {
                Ok(()) => removed = true,
                Err(Raw::NOENT) => {}
                Err(e) => failed = failed.or(Some(e)),
            }
            if crate::interrupt::requested() {
                return Err(Raw::INTR);
            }
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // Some filesystems skip entries when others go while they are listed.
            Err(Raw::NOTEMPTY | Raw::EXIST) if removed && failed.is_none_or(not_empty) => {}
            Err(Raw::NOTEMPTY | Raw::EXIST) => return Err(failed.unwrap_or(Raw::NOTEMPTY)),
            done => return done,
        }
    }
}

fn not_empty(e: Raw) -> bool {
    matches!(e, Raw::NOTEMPTY | Raw::EXIST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("tree/a/b")).unwrap();
        std::fs::create_dir(at("kept")).unwrap();
        std::fs::write(at("kept/file"), "").unwrap();
        std::fs::write(at("tree/a/file"), "").unwrap();
        symlink("../../kept", at("tree/a/link")).unwrap();
        symlink("kept", at("link")).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        tree(fd.as_fd(), OsStr::new("tree")).unwrap();
        tree(fd.as_fd(), OsStr::new("link")).unwrap();
        assert!(at("kept/file").exists() && !at("tree").exists() && !at("link").is_symlink());
        assert_eq!(tree(fd.as_fd(), OsStr::new("tree")), Err(Raw::NOENT));
    }

    #[test]
    fn a_tree_goes_however_deep_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let mut here = rustix::io::fcntl_dupfd_cloexec(&fd, 0).unwrap();
        for _ in 0..2_000 {
            rustix::fs::mkdirat(&here, "deep", Mode::RWXU).unwrap();
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            here = rustix::fs::openat(&here, "deep", flags, Mode::empty()).unwrap();
        }
        tree(fd.as_fd(), OsStr::new("deep")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
